"""Few-step objectives over eight devices: the parameters and the carry of one, and only gradients on the way."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from few_step_toys import PARAMS, network

from pgm_jax import parallel, training
from pgm_jax.processes import PFGMpp, karras, precondition
from pgm_jax.samplers import heun
from pgm_jax.training import objectives as o

PROCESS, SCALING, NETWORK = PFGMpp(64), precondition.edm(0.5), network(jnp.float32)
PARTS = PROCESS, NETWORK, SCALING
TEACHER = o.Teacher(NETWORK, SCALING, heun())
TIMES = karras(8, 0.002, 80.0)[:-1][::-1]
LEVELS = o.levels.lognormal(-1.0, 1.2)
# Objective, and its carry.
OBJECTIVES = {
    "ect": (o.ect(*PARTS, o.curricula.stages(1)), o.carry_of()),
    "ict": (
        o.consistency_training(*PARTS, o.gaps.on_grid(o.curricula.doubling(8), emphasis=(-1.1, 2.0))),
        o.carry_of(),
    ),
    "cd": (
        o.consistency_distillation(*PARTS, o.gaps.on_grid(18), TEACHER, rate=o.curricula.constant(0.95)),
        o.carry_of(PARAMS, PARAMS),
    ),
    "ctm": (o.ctm(*PARTS, o.Trajectory(TIMES, 2), TEACHER), o.carry_of(teacher=PARAMS)),
    "scm": (o.scm(PROCESS, NETWORK, LEVELS), o.carry_of()),
    "meanflow": (o.meanflow(*PARTS, LEVELS), ()),
}


def trained(objective, carry, count):
    draws = np.random.default_rng(0).normal(0, 0.5, (3, 16, 4, 4, 1)).astype(np.float32)
    batches = itertools.cycle({"x0": images} for images in draws)
    mesh = parallel.make_mesh(devices=jax.devices()[:count])
    return training.fit(
        objective, optax.sgd(1e-2), PARAMS, batches, key=jax.random.key(0), steps=3, carry=carry, mesh=mesh
    )  # fmt: skip


@pytest.mark.parametrize("name", OBJECTIVES)
def test_eight_devices_train_as_one(name):
    one, eight = (trained(*OBJECTIVES[name], count) for count in (1, 8))
    changed = jax.tree.map(lambda a, b: bool(a != b), one.params, PARAMS)
    assert any(jax.tree.leaves(changed))
    close = lambda a, b: np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-5)
    jax.tree.map(close, (one.params, one.carry), (eight.params, eight.carry))

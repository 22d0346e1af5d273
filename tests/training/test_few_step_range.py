"""Few-step objectives at the ends of their ranges: t -> 0, t - s -> 0 and t -> T, in float32 and bfloat16."""

import jax
import jax.numpy as jnp
import pytest
from few_step_toys import PARAMS, network

from pgm_jax.processes import EDM, PFGMpp, precondition
from pgm_jax.samplers import heun
from pgm_jax.training import objectives as o

LOW, HIGH = 0.002, 80.0
PROCESSES = [EDM(), PFGMpp(2.5), PFGMpp(128)]
# t to 0, to sigma_min, no gap, hardly a gap at either end, the whole range.
TIMES = [1e-6, LOW * (1 + 1e-6), 1e-3, 1.0, HIGH, HIGH]
BELOW = [0.0, LOW, 1e-3, 1.0 - 1e-7, HIGH * (1 - 1e-7), 0.0]


BATCH = {"x0": 0.5 * jax.random.normal(jax.random.key(0), (64, 4, 4, 1))}


def each(*lists):
    """A law that takes its entries in turns."""

    def law(process, u, step=None):
        place = (u * len(lists[0])).astype(int)
        chosen = tuple(jnp.asarray(values, jnp.float32)[place] for values in lists)
        return chosen if len(lists) > 1 else chosen[0]

    return law


def finite(objective, carry=None):
    loss = lambda params: objective(params, carry or o.carry_of(), BATCH, jax.random.key(1))[0]
    value, slopes = jax.jit(jax.value_and_grad(loss))(PARAMS)
    return bool(jnp.isfinite(value)) and all(bool(jnp.isfinite(slope)) for slope in slopes.values())


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("process", PROCESSES, ids=["inf", "2.5", "128"])
def test_consistency_losses_are_finite(process, dtype):
    teacher = o.Teacher(network(dtype), precondition.edm(0.5), heun())
    for scaling in (precondition.edm(0.5), precondition.consistency(0.5, LOW)):
        parts = process, network(dtype), scaling, each(TIMES, BELOW)
        assert finite(o.consistency_training(*parts))
        assert finite(o.consistency_distillation(*parts, teacher), o.carry_of(teacher=PARAMS))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("process", PROCESSES, ids=["inf", "2.5", "128"])
def test_jumps_and_continuous_time_are_finite(process, dtype):
    levels, scaling = each([1e-6, LOW, 1.0, HIGH, 1e3]), precondition.edm(0.5)
    assert finite(o.meanflow(process, network(dtype), scaling, levels))
    assert finite(o.scm(process, network(dtype), levels))
    times = [1e-9, 1e-6 * (1 - 1e-6), 1e-6, LOW, 1.0 - 1e-6, 1.0, HIGH, 1e3 * (1 - 1e-6), 1e3]
    assert finite(o.ctm(process, network(dtype), scaling, o.Trajectory(times, 2)))


def test_stages_of_tuning_are_finite():
    for stage in (0, 20):
        objective = o.ect(
            PFGMpp(128), network(jnp.float32), precondition.edm(0.5), lambda step, k=stage: k, q=4.0
        )
        assert finite(objective), stage

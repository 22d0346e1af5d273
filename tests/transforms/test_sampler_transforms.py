"""Samplers and guidance through jit, vmap, grad, pmap and shard_map, in one table of cases."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from oracles.problems import gaussian_problem

from pgm_jax.core import chain
from pgm_jax.guidance import cfg, dds, dps, exact, known_region, moment_matching
from pgm_jax.processes import EDM, VP, FlowMatching, PFGMpp
from pgm_jax.processes.grid import linear
from pgm_jax.processes.regrid import resample
from pgm_jax.samplers import (
    adaptive,
    ancestral,
    consistency,
    ctm,
    ddim,
    dpmpp_2m,
    dpmpp_2s,
    euler_maruyama,
    heun,
    langevin,
    predictor_corrector,
    reverse_diffusion,
    sample_one,
)

SHAPE = (8,)
GRID = linear(3, 0.9, 0.1)


def _denoise(x_t, t, cond=None, s=None):
    """A denoiser that is neither linear nor voxel-wise, smooth in everything.

    `M^T tanh(M x)`: like every posterior mean under Normal noise its Jacobian is symmetric, which conjugate
    gradients in moment matching, and their implicit derivative, rely on.
    """
    hidden = jnp.tanh(x_t + 0.3 * jnp.roll(x_t, 1, -1))
    base = (hidden + 0.3 * jnp.roll(hidden, -1, -1)) / (1 + t**2)
    return base if cond is None else base + 0.2 * cond


def _linear(x_t, t, cond=None):
    return 0.8 * x_t / (1 + t**2)


PROCESSES = {"edm": EDM(), "vp": VP(), "flow": FlowMatching(), "pfgmpp": PFGMpp(8.0)}
ODE = {
    "ddim": ddim(),
    "heun": heun(),
    "2m": dpmpp_2m(),
    "2s": dpmpp_2s(),
    "consistency": consistency(),
    "ctm": ctm(),
}
RANDOM = {
    "ancestral": ancestral(),
    "large": ancestral("large"),
    "eta": ddim(0.5),
    "langevin": langevin(2, 1e-3, 0.1),
    "sde": euler_maruyama(),
    "reverse diffusion": reverse_diffusion(),
    "pc": predictor_corrector(),
    "ctm": ctm(0.5),
}
GUIDANCE = {
    "none": lambda problem: None,
    "cfg": lambda problem: cfg(2.0),
    "dds": lambda problem: dds(problem.likelihood),
    "dps": lambda problem: dps(problem.likelihood),
    # Tight, so that implicit differentiation and finite differences see the same solution.
    "moment matching": lambda problem: moment_matching(problem.likelihood, rtol=1e-12),
    "exact": lambda problem: exact(problem.prior, problem.likelihood),
    "known region": lambda problem: known_region(jnp.arange(8) % 2, jnp.ones(8)),
    "chain": lambda problem: chain(cfg(2.0), dds(problem.likelihood), dps(problem.likelihood)),
}

# Every process with a solver of each order, PFGM++ with all of them, VP with the random ones, all guidances.
CASES = {
    **{
        f"{p} {name}": (PROCESSES[p], ODE[name], "none", GRID) for p in PROCESSES for name in ("ddim", "heun")
    },
    **{f"pfgmpp {name}": (PROCESSES["pfgmpp"], ODE[name], "none", GRID) for name in ODE},
    **{f"vp {name}": (PROCESSES["vp"], RANDOM[name], "none", GRID) for name in RANDOM},
    **{f"edm heun {g}": (PROCESSES["edm"], ODE["heun"], g, GRID) for g in GUIDANCE},
    "pfgmpp ddim exact": (PROCESSES["pfgmpp"], ODE["ddim"], "exact", GRID),
    "pfgmpp ddim moment matching": (PROCESSES["pfgmpp"], ODE["ddim"], "moment matching", GRID),
    "vp ancestral repaint": (PROCESSES["vp"], RANDOM["ancestral"], "known region", resample(GRID, 2)),
}
SMALL = ("pfgmpp heun", "vp ancestral repaint", "edm heun chain", "pfgmpp ddim moment matching")


def _run(name):
    """Returns `(key, x_init, cond) -> image` of one case."""
    process, sampler, guidance, grid = CASES[name]

    def run(key, x, cond):
        made = GUIDANCE[guidance](gaussian_problem())
        return sample_one(key, sampler, _denoise, process, grid, x_init=x, cond=cond, guidance=made)

    return run


def _inputs(count=4):
    keys = jax.random.split(jax.random.key(3), count)
    return (
        keys,
        jax.vmap(lambda k: jax.random.normal(k, SHAPE))(keys),
        jnp.linspace(-1, 1, count * 8).reshape(count, 8),
    )


def _selected(name, small=SMALL):
    return name if name in small else pytest.param(name, marks=pytest.mark.slow)


@pytest.mark.parametrize("name", [_selected(name) for name in CASES])
def test_jit_and_vmap_change_nothing(name):
    """jit equals eager, vmap equals a loop, to float32 rounding."""
    run, inputs = _run(name), _inputs(3)
    compiled = jax.jit(run)
    row = lambda i: jax.tree.map(lambda a: a[i], inputs)
    eager = run(*row(0))
    jitted = jnp.stack([compiled(*row(i)) for i in range(3)])
    batched = jax.jit(jax.vmap(run))(*inputs)
    np.testing.assert_allclose(jitted[0], eager, rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(batched, jitted, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", [_selected(name, SMALL[:2] + SMALL[3:]) for name in CASES])
def test_gradient_equals_finite_differences(x64, name):
    """The gradient with respect to x_init and the condition, along one direction, by central differences."""
    key, x, cond = jax.tree.map(lambda a: a[0], _inputs(1))
    run = _run(name)
    value = jax.jit(lambda x, cond: jnp.sum(jnp.sin(run(key, x, cond) + jnp.arange(8.0))))
    slopes = jax.jit(jax.grad(value, argnums=(0, 1)))(x, cond)
    direction = jnp.cos(jnp.arange(8.0))
    step = 1e-5
    in_x = (value(x + step * direction, cond) - value(x - step * direction, cond)) / (2 * step)
    in_cond = (value(x, cond + step * direction) - value(x, cond - step * direction)) / (2 * step)
    for slope, difference in zip(slopes, (in_x, in_cond), strict=True):
        assert np.isfinite(slope).all()
        limit = 1e-6
        assert float(jnp.vdot(slope, direction)) == pytest.approx(float(difference), rel=limit, abs=limit)


# The chain differentiates through conjugate gradients past their convergence, where NaN once hid.
DEVICES = ["pfgmpp heun", "edm heun chain"]


@pytest.mark.parametrize(
    "name", DEVICES + [pytest.param(n, marks=pytest.mark.slow) for n in SMALL if n not in DEVICES]
)
def test_pmap_and_shard_map_equal_jit(name):
    run, inputs = _run(name), _inputs(4)
    whole = jax.jit(jax.vmap(run))(*inputs)
    # Relative to the image: XLA fuses differently across devices.
    gap = lambda found: float(jnp.linalg.norm(found - whole) / jnp.linalg.norm(whole))
    assert gap(np.asarray(jax.pmap(run, devices=jax.devices()[:4])(*inputs))) < 1e-5
    mesh = Mesh(np.array(jax.devices()[:4]), ("sample",))
    spec = PartitionSpec("sample")
    sharded = jax.shard_map(jax.vmap(run), mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    assert gap(np.asarray(jax.jit(sharded)(*inputs))) < 1e-5


@pytest.mark.slow
def test_adaptive_passes_jit_vmap_and_grad(x64):
    pytest.importorskip("diffrax")
    sampler = adaptive(rtol=1e-8, atol=1e-8)
    run = lambda x: sample_one(jax.random.key(0), sampler, _linear, EDM(), [0.9, 0.4], x_init=x)
    x = jnp.linspace(-1, 1, 16).reshape(2, 8)
    batched = jax.jit(jax.vmap(run))(x)
    np.testing.assert_allclose(batched[1], jax.jit(run)(x[1]), rtol=1e-6)
    slope = jax.jit(jax.grad(lambda x: jnp.sum(run(x))))(x[0])
    # The flow is linear, so the slope is the same factor everywhere.
    np.testing.assert_allclose(slope, batched[0] / x[0], rtol=1e-5)


# Sharded draws (row 13).


def _mesh(count):
    return Mesh(np.array(jax.devices()[:count]), ("sample",))


@functools.cache
def _draws(count, devices, name):
    """Prior draws, one step's noise and final images of `count` samples on a number of devices."""
    from pgm_jax.core import prior_key, sample_key, step_key

    process, sampler = {"normal": (VP(), ancestral()), "student": (PFGMpp(8.0), heun())}[name]

    def one(index):
        key = sample_key(jax.random.key(0), index)
        noise = process.law.sample(step_key(key, 1), (16,), jnp.float32)
        start = process.prior(prior_key(key), (16,), jnp.float32(0.9))
        image = sample_one(key, sampler, _denoise, process, GRID, shape=(16,))
        return start, noise, image

    sharding = NamedSharding(_mesh(devices), PartitionSpec("sample"))
    indices = jax.device_put(jnp.arange(count), sharding)
    return [np.asarray(a) for a in jax.jit(jax.vmap(one), out_shardings=sharding)(indices)]


LAYOUTS = [("student", 3, 1), ("student", 16, 8), ("normal", 16, 2)]
MORE = [("student", 1, 1), ("student", 16, 2), ("normal", 1, 1), ("normal", 3, 1), ("normal", 16, 8)]


@pytest.mark.parametrize(
    "name, count, devices", LAYOUTS + [pytest.param(*row, marks=pytest.mark.slow) for row in MORE]
)
def test_draws_do_not_depend_on_the_batch_or_the_devices(name, count, devices):
    """Row 13: draws bit for bit, images to 1e-5."""
    truth = _draws(16, 1, name)
    found = _draws(count, devices, name)
    np.testing.assert_array_equal(found[1], truth[1][:count])
    np.testing.assert_allclose(found[0], truth[0][:count], rtol=3e-7)
    np.testing.assert_allclose(found[2], truth[2][:count], rtol=1e-5, atol=1e-6)


# Names of instructions; "collective" alone would also match this test's name in the metadata.
COLLECTIVES = (
    "all-reduce(",
    "all-gather(",
    "collective-permute(",
    "all-to-all(",
    "reduce-scatter(",
    "-start(",
    "callback",
)


def test_a_sharded_student_draw_needs_no_collective():
    """65536 dimensions, eight devices: the compiled text holds no communication and no host callback."""
    process = PFGMpp(64.0)
    sharding = NamedSharding(_mesh(8), PartitionSpec("sample"))

    def run(keys):
        draw = lambda k: sample_one(k, ddim(), _linear, process, [0.9, 0.1], shape=(256, 256, 1))
        return jax.vmap(draw)(keys)

    keys = jax.device_put(jax.random.split(jax.random.key(0), 8), sharding)
    lowered = jax.jit(run, in_shardings=sharding, out_shardings=sharding).lower(keys)
    assert "callback" not in lowered.as_text()
    compiled = lowered.compile()
    text = compiled.as_text()
    assert not [word for word in COLLECTIVES if word in text]
    # The same search does find the communication of a mean over the samples.
    mean = jax.jit(lambda keys: jnp.mean(run(keys), 0), in_shardings=sharding).lower(keys).compile().as_text()
    assert [word for word in COLLECTIVES if word in mean]
    images = compiled(keys)
    assert len(images.sharding.device_set) == 8
    one = jax.jit(lambda k: run(k[None])[0])(keys[5])
    np.testing.assert_allclose(images[5], one, rtol=1e-5, atol=1e-6)

"""One compiled program: no host callback, and no new compilation for a new measurement, D, key or start."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles.problems import gaussian_problem

from pgm_jax.core import chain
from pgm_jax.guidance import cfg, dds, dps, exact, known_region, moment_matching
from pgm_jax.processes import EDM, PFGMpp
from pgm_jax.processes.grid import karras, linear
from pgm_jax.processes.regrid import resample
from pgm_jax.samplers import (
    ancestral,
    ctm,
    ddim,
    dpmpp_2m,
    heun,
    langevin,
    predictor_corrector,
    sample,
    sample_one,
)

PROGRAMS = {
    "heun dds": (heun(), karras(8), lambda p: dds(p.likelihood)),
    "2m chain": (dpmpp_2m(), karras(8), lambda p: chain(cfg(2.0), dps(p.likelihood), dds(p.likelihood))),
    "ancestral repaint": (
        ancestral(),
        resample(linear(4), 3),
        lambda p: known_region(jnp.ones(8), jnp.ones(8)),
    ),
    "pc matching": (predictor_corrector(), linear(4, 1.0, 0.1), lambda p: moment_matching(p.likelihood)),
    "langevin": (langevin(), linear(4), lambda p: None),
    "ctm": (ctm(0.3), linear(4), lambda p: None),
    "exact": (ddim(), karras(8), lambda p: exact(p.prior, p.likelihood)),
}


def _denoise(x_t, t, cond=None, s=None):
    base = jnp.tanh(x_t) / (1 + t**2)
    return base if cond is None else base + cond


@pytest.mark.parametrize("name", PROGRAMS)
def test_no_callback_and_one_scan(name):
    """The lowered text has no host callback; the grid is one loop, not an unrolled list of steps."""
    sampler, grid, guidance = PROGRAMS[name]
    problem = gaussian_problem()

    def run(key, likelihood):
        made = guidance(problem._replace(likelihood=likelihood))
        return sample(key, sampler, _denoise, EDM(), grid, shape=(2, 8), cond=jnp.ones((2, 8)), guidance=made)

    lowered = jax.jit(run).lower(jax.random.key(0), problem.likelihood)
    text = lowered.as_text()
    assert "callback" not in text and "stablehlo.while" in text
    # Twice the steps, the same program but for its table of times.
    finer = np.interp(np.linspace(0, len(grid) - 1, 2 * len(grid) - 1), np.arange(len(grid)), grid)
    fine = jax.jit(
        lambda key, likelihood: sample(
            key,
            sampler,
            _denoise,
            EDM(),
            finer,
            shape=(2, 8),
            cond=jnp.ones((2, 8)),
            guidance=guidance(problem._replace(likelihood=likelihood)),
        )
    ).lower(jax.random.key(0), problem.likelihood)
    assert len(fine.as_text()) < 1.1 * len(text)


def test_two_measurements_and_two_d_are_one_trace(key):
    """The process and the likelihood are arguments: a new y, noise level or D does not trace again."""
    chex.clear_trace_counter()
    problem = gaussian_problem()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(key, process, likelihood, x):
        return sample_one(key, heun(), _denoise, process, karras(6), x_init=x, guidance=dds(likelihood))

    images = []
    for df, shift, noise_std in ((8.0, 0.0, 0.3), (128.0, 0.0, 0.3), (8.0, 1.0, 0.3), (8.0, 0.0, 0.1)):
        likelihood = problem.likelihood.replace(
            y=problem.likelihood.y + shift, noise_std=jnp.float32(noise_std), backprojection=None
        )
        process = PFGMpp(jnp.float32(df))
        images.append(run(key, process, likelihood, jnp.linspace(-50, 50, 8)))
    # Heun's dds reads y and the noise level; the denoiser here does not read D, the prior draw does.
    assert not np.allclose(images[0], images[2]) and not np.allclose(images[0], images[3])

    @jax.jit
    @chex.assert_max_traces(n=1)
    def from_prior(key, process):
        return sample_one(key, heun(), _denoise, process, karras(6), shape=(8,))

    first, second = (from_prior(key, PFGMpp(jnp.float32(df))) for df in (8.0, 0.5))
    assert np.isfinite(first).all() and not np.allclose(first, second)


def test_the_process_of_a_traced_d_is_that_of_the_number(key):
    traced = jax.jit(lambda df: sample_one(key, heun(), _denoise, PFGMpp(df), karras(6), shape=(8,)))(3.0)
    plain = jax.jit(lambda: sample_one(key, heun(), _denoise, PFGMpp(3.0), karras(6), shape=(8,)))()
    np.testing.assert_allclose(traced, plain, rtol=2e-5, atol=1e-6)


def test_only_rising_grids_have_a_branch():
    """The grid is host data, fixed when the program is traced: a grid that only descends has no branch."""
    descending = jax.make_jaxpr(lambda k: sample_one(k, ddim(), _denoise, EDM(), [1.0, 0.5, 0.0], shape=(2,)))
    rising = jax.make_jaxpr(lambda k: sample_one(k, ddim(), _denoise, EDM(), [0.5, 1.0, 0.0], shape=(2,)))
    assert "cond[" not in str(descending(jax.random.key(0))) and "cond[" in str(rising(jax.random.key(0)))

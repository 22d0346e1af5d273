"""A run in parts is the run: same draws, one program, and resumable from any part's state."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax.guidance import mbir
from pgm_jax.operators import GaussianLikelihood, Identity
from pgm_jax.priors import GaussianPrior
from pgm_jax.processes import EDM, PFGMpp, karras
from pgm_jax.samplers import ddim, dpmpp_2m, heun, sample_in_parts, sample_one

SHAPE = (4, 4, 1)


def _problem(process):
    prior = GaussianPrior(jnp.zeros(SHAPE), 0.5 * jnp.eye(16))
    return prior.denoiser(process)


@pytest.mark.parametrize("sampler", [ddim(1.0, of="marginal"), heun(), dpmpp_2m()])
@pytest.mark.parametrize("part", [1, 3, 6])
def test_parts_are_the_run(sampler, part):
    process, grid, key = EDM(), karras(6), jax.random.key(3)
    denoise = _problem(process)
    whole = sample_one(key, sampler, denoise, process, grid, shape=SHAPE)
    start, advance, count = sample_in_parts(key, sampler, denoise, process, grid, part=part, shape=SHAPE)
    assert count == 6 // part
    chex.clear_trace_counter()
    state, advance = jax.jit(start)(), jax.jit(chex.assert_max_traces(advance, n=1))
    for number in range(count):
        state = advance(state, number)
    np.testing.assert_allclose(state.x, whole, rtol=2e-5, atol=2e-5, equal_nan=False)


def test_the_state_of_guidance_goes_on_between_parts():
    process, key = PFGMpp(8.0), jax.random.key(0)
    grid = karras(4, sigma_max=5.0)
    likelihood = GaussianLikelihood.create(Identity(SHAPE), jnp.ones(SHAPE), 0.3)
    settings = {"shape": SHAPE, "guidance": mbir(likelihood, 0.1, 1.0)}
    arguments = (key, ddim(), _problem(process), process, grid)
    whole = sample_one(*arguments, **settings)
    start, advance, count = sample_in_parts(*arguments, **settings)
    state = start()
    for number in range(count):
        state = jax.tree.map(jnp.asarray, jax.tree.map(np.asarray, advance(state, number)))
    np.testing.assert_allclose(state.x, whole, rtol=2e-5, atol=2e-5, equal_nan=False)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(state.guidance)) > 0


def test_parts_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="6 steps do not divide into parts of 4"):
        sample_in_parts(jax.random.key(0), heun(), _problem(EDM()), EDM(), karras(6), part=4, shape=SHAPE)

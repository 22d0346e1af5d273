"""Samplers that add a score go on from the state that a guidance moved to, not from the one they had."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax import samplers
from pgm_jax.guidance import known_region
from pgm_jax.priors import GaussianPrior
from pgm_jax.processes import VE, karras

SAMPLERS = {
    "reverse_diffusion": samplers.reverse_diffusion,
    "predictor_corrector": lambda: samplers.predictor_corrector(snr=0.05),
    "euler_maruyama": samplers.euler_maruyama,
    "langevin": lambda: samplers.langevin(3, 4e-5, 0.01),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_known_region_of_independent_pixels(name):
    """Known pixels end at their values, the others where they end without a known region."""
    mean, std = jnp.array([1.0, -1.0, 0.5, 0.0]), jnp.array([0.5, 0.3, 0.6, 0.4])
    prior, process = GaussianPrior(mean, jnp.diag(std**2)), VE()
    mask, image = jnp.array([1.0, 0.0, 1.0, 0.0]), jnp.array([0.2, 9.0, -0.3, 9.0])
    grid = karras(60, 0.01, 20.0, process=process)
    grid = grid[:-1] if name == "euler_maruyama" else grid

    def draw(key, guidance):
        sampler, denoise = SAMPLERS[name](), prior.denoiser(process)
        return samplers.sample(key, sampler, denoise, process, grid, shape=(1000, 4), guidance=guidance)

    draws = jax.jit(lambda key: draw(key, known_region(mask, image)))(jax.random.key(0))
    plain = jax.jit(lambda key: draw(key, None))(jax.random.key(1))[:, 1::2]
    np.testing.assert_allclose(draws[:, ::2], np.tile(image[::2], (1000, 1)), atol=0.1)
    free, error = draws[:, 1::2], 5 * np.sqrt(2 / 1000)
    np.testing.assert_array_less(np.abs(free.mean(0) - plain.mean(0)), error * plain.std(0))
    # The step of the corrector is measured on all pixels, so that its excess spread is not quite the same.
    np.testing.assert_allclose(free.std(0), plain.std(0), rtol=error / np.sqrt(2) + 0.05)

"""The two programs of `pgm bench fewstep`: from noise to new images, and from noisy images to clean ones."""

import math

import jax
import jax.numpy as jnp

from pgm_jax import samplers
from pgm_jax.bench.few_step_priors import METHODS, Budget, Contender
from pgm_jax.core import sample_key
from pgm_jax.metrics import psnr


def generation(contender: Contender, budget: Budget, gamma: float, batch: int):
    """Builds the function that generates a batch, to be compiled.

    Args:
        contender: `Contender`.
        budget: `Budget`.
        gamma: see `FewStepCase`.
        batch: images.

    Returns:
        `(prior, first) -> images` number first to first + batch - 1; each depends on its number alone.
    """
    config, process = contender.config, contender.prior.process
    method = METHODS[budget.sampler]
    grid = method.grid(config, process, budget.steps, config.sigma_max)

    def draw(prior, first):
        denoise = contender.denoiser(prior, budget.sampler)
        one = lambda index: samplers.sample_one(
            sample_key(jax.random.key(0), index),
            method.make(gamma),
            denoise,
            prior.process,
            grid,
            shape=(*config.size, config.channels),
            dtype=jnp.complex64 if config.complex else jnp.float32,
        )
        return jax.vmap(one)(first + jnp.arange(batch))

    return draw


def denoising(contender: Contender, budget: Budget, gamma: float, sigma: float):
    """Builds the function that denoises patches in the same number of evaluations, to be compiled.

    Args:
        contender: `Contender`.
        budget: `Budget`.
        gamma: see `FewStepCase`.
        sigma: level of the noise, of the process's own law.

    Returns:
        `(prior, truths) -> PSNR of each patch` in dB, peak 1; complex patches by their error per real component.
    """
    process, method = contender.prior.process, METHODS[budget.sampler]
    grid = method.grid(contender.config, process, budget.steps, sigma)

    def score(prior, truths):
        denoise = contender.denoiser(prior, budget.sampler)

        def one(index, truth):
            key_noise, key_sample = jax.random.split(sample_key(jax.random.key(1), index))
            noisy = prior.process.perturb(key_noise, truth, jnp.float32(grid[0]))
            sampler = method.make(gamma)
            clean = samplers.sample_one(key_sample, sampler, denoise, prior.process, grid, x_init=noisy)
            return psnr(clean, truth, 1.0) + (10 * math.log10(2) if jnp.iscomplexobj(truth) else 0.0)

        return jax.vmap(one)(jnp.arange(len(truths)), truths)

    return score

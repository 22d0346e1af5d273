"""How an image is drawn from a prior of a configuration: which sampler, along which grid, told what."""

from collections.abc import Callable

import jax.numpy as jnp

from pgm_jax.core import Network
from pgm_jax.networks import as_denoiser
from pgm_jax.processes import karras
from pgm_jax.recipes.generation import few_steps
from pgm_jax.recipes.generation.classes import Asked
from pgm_jax.recipes.prior_config import PriorConfig
from pgm_jax.samplers import ddim, dpmpp_2m, heun, sample_one

SAMPLERS = {"heun": heun, "ddim": ddim, "dpmpp_2m": dpmpp_2m}
"""Samplers of the probability-flow ODE by name; all are deterministic given their start, as finite D needs."""

SAMPLER, STEPS = "heun", 18
"""Sampler of a prior that is not for few steps, and its steps, where none are named."""


def image_draw(
    config: PriorConfig, process, network: Network, plain: Callable, sampler, steps, asked: Asked
) -> Callable:
    """Makes the function that draws one image: of the objective's own kind, or of the sampler that is named.

    Args:
        config: the configuration.
        process: its process.
        network: its network.
        plain: its parameterisation.
        sampler: name of a sampler of `SAMPLERS`, or None.
        steps: steps of the sampler, or None.
        asked: what the draw is told.

    Returns:
        `(key, params, inputs) -> (*size, channels)`; inputs are not read.

    Raises:
        ValueError: for a sampler that does not exist, or one that is named for a few-step prior.
    """
    shape = (*config.size, config.channels)
    dtype = jnp.complex64 if config.complex else jnp.float32
    few = config.objective != "denoising"
    if sampler is not None and (sampler not in SAMPLERS or few):
        known = "leave it out for a few-step prior" if few else f"choose one of {', '.join(SAMPLERS)}"
        raise ValueError(f"sampler is {sampler!r}: {known}")
    if few:
        number = few_steps.FEW_STEPS if steps is None else steps
        one = few_steps.draw_one(config, process, network, plain, number, asked.condition)
        return lambda key, params, inputs=None: one(key, params, shape, dtype)
    grid = karras(STEPS if steps is None else steps, config.sigma_min, config.sigma_max, process=process)
    method = SAMPLERS[sampler or SAMPLER]()

    def draw(key, params, inputs=None):
        denoise = as_denoiser(network, params, process, plain)
        return sample_one(
            key, method, denoise, process, grid, shape=shape, dtype=dtype, cond=asked.condition(key),
            guidance=asked.guidance,
        )  # fmt: skip

    return draw

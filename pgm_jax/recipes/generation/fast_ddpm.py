"""Fast-DDPM (Jiang et al. 2025): a conditional DDPM that is trained at the K times at which it is sampled.

One grid makes the law of the training times and the path of the sampler, so the two cannot differ. The condition is
an image: a low-dose slice (denoising), a slice of another contrast (translation), or the two neighbours of a slice
(multi-image super-resolution, two channels). With `full_ddpm` the grid is the whole chain: the DDPM beside it.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from pgm_jax.core import Network, Objective
from pgm_jax.networks import as_denoiser
from pgm_jax.processes import (
    DDPM,
    fast_ddpm as fast_grid,
    linear_betas,
    precondition,
    predict_noise,
    trailing,
)
from pgm_jax.samplers import ancestral, ddim, sample
from pgm_jax.training import objectives


class TimeGrid(NamedTuple):
    """The times of training and sampling.

    Attributes:
        process: `DDPM` of `total` steps.
        times: visited by the sampler, falling to 0; training draws from all but 0.
        sampler: DDIM, or the ancestral step on the whole chain.
    """

    process: Any
    times: np.ndarray
    sampler: Any

    @property
    def evaluations(self) -> int:
        """Evaluations of the network for one image."""
        return len(self.times) - 1


def fast_ddpm(steps: int = 10, spacing: str = "nonuniform", total: int = 1000) -> TimeGrid:
    """Makes Fast-DDPM's grid with DDIM's deterministic step.

    Args:
        steps: K; "uniform" has K + 1 times, as the published code has.
        spacing: "uniform", or "nonuniform" with more times where there is more noise.
        total: steps T of the chain.

    Returns:
        `TimeGrid`.

    Raises:
        ValueError: see `processes.fast_ddpm`.
    """
    return TimeGrid(DDPM(linear_betas(total)), fast_grid(steps, spacing, total), ddim(0.0))


def full_ddpm(total: int = 1000) -> TimeGrid:
    """Makes the whole chain with the ancestral step (Ho et al. 2020), which Fast-DDPM is compared with.

    Args:
        total: steps T of the chain.

    Returns:
        `TimeGrid`.
    """
    return TimeGrid(DDPM(linear_betas(total)), trailing(total, total), ancestral())


def told_level(process, t):
    """Returns the coefficients of a network that predicts the noise and is told ln(sigma / alpha) / 4.

    Args:
        process: affine process.
        t: time.

    Returns:
        `Coefficients`.
    """
    return predict_noise(process, t)._replace(c_noise=precondition.edm()(process, t).c_noise)


def objective_of(grid: TimeGrid, network: Network) -> Objective:
    """Makes the objective `E |noise - F(x_t, condition, t)|^2`, t uniform over the grid and even over the batch.

    The published code pairs opposite places of the grid and sums over pixels; here the batch covers the grid evenly
    and the mean is taken, so that the rate does not depend on the size of the image.

    Args:
        grid: `TimeGrid`.
        network: `Network` that reads `cond["image"]`.

    Returns:
        Objective of batches `{"x0", "cond": {"image"}}`.
    """
    law = objectives.levels.discrete(grid.times[:-1])
    return objectives.denoising(grid.process, network, told_level, law, stratified=True)


def translate(key, grid: TimeGrid, network: Network, params, images, channels: int = 1):
    """Draws one image for each condition.

    Args:
        key: PRNG key; image i depends on it and on i alone.
        grid: the `TimeGrid` of the training.
        network: its network.
        params: its parameters.
        images: (n, height, width, k) conditions.
        channels: channels of an image drawn.

    Returns:
        (n, height, width, channels).
    """
    denoise = as_denoiser(network, params, grid.process, told_level)
    shape = (*images.shape[:-1], channels)
    return sample(
        key, grid.sampler, denoise, grid.process, grid.times, shape=shape, cond={"image": jnp.asarray(images)}
    )

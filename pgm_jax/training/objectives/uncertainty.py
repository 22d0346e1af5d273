"""EDM2's learned uncertainty: each noise level is scaled by the loss that is expected there."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri

from pgm_jax.core import Network, Objective
from pgm_jax.training.objectives.denoising import sample_losses
from pgm_jax.training.objectives.pairs import summary

_GOLDEN = 0.6180339887498949


def learned_uncertainty(
    process, network: Network, parameterisation, levels, weighting=None, **options
) -> Objective:
    """Makes the denoising objective with a learned uncertainty (Karras et al. 2024, EDM2):

        L = E [ l / e^u(level) + u(level) ],   l the weighted loss of `denoising`.

    At its optimum e^u is the expected l of a level, so every level contributes alike to the gradient. The
    value may be negative. Parameters are `{"network": ..., "uncertainty": ...}`; sample with the first.

    Args:
        process: see `denoising`; one noise level a time.
        network: see `denoising`.
        parameterisation: see `denoising`.
        levels: see `denoising`.
        weighting: see `denoising`.
        **options: see `denoising`.

    Returns:
        Objective; see `denoising`. The metrics also have "weighted_loss", the mean of l.
    """
    losses = sample_losses(process, network, parameterisation, levels, weighting, **options)

    def objective(params, carry, batch, key):
        weighted, level = losses(params["network"], batch, key)
        u = jax.vmap(lambda level: uncertainty(params["uncertainty"], level))(level)
        loss, metrics = summary(weighted * jnp.exp(-u) + u, level)
        return loss, (carry, metrics | {"weighted_loss": jnp.mean(weighted)})

    return objective


def init_uncertainty(features: int = 128):
    """Returns the parameters of u, all 0: training starts as without it.

    Args:
        features: number of Fourier features of the level.

    Returns:
        `{"kernel": (features,), "bias": ()}`, float32.
    """
    return {"kernel": jnp.zeros(features), "bias": jnp.zeros(())}


def uncertainty(params, level):
    """Computes `u = bias + kernel . sqrt(2) cos(2 pi (f c + p)) / sqrt(features)`, c = ln(level) / 4.

    One linear layer on Fourier features of EDM's c_noise (Karras et al. 2024). Frequencies f are the
    standard normal's quantiles and phases p are spread evenly: EDM2 draws both.

    Args:
        params: see `init_uncertainty`.
        level: noise level sigma / alpha, a positive scalar.

    Returns:
        Real scalar: u, the log of the expected loss.
    """
    size = params["kernel"].shape[0]
    place = (np.arange(size) + 0.5) / size
    phase = jnp.asarray((np.arange(size) * _GOLDEN) % 1.0, jnp.float32)
    c = jnp.clip(0.25 * jnp.log(jnp.maximum(level, jnp.finfo(jnp.float32).tiny)), -5.0, 5.0)
    waves = jnp.cos(2 * jnp.pi * (ndtri(jnp.asarray(place, jnp.float32)) * c + phase))
    return params["bias"] + jnp.dot(params["kernel"], waves) * np.sqrt(2 / size)

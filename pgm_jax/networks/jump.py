"""From a batched network to a jump denoiser, which is also told the time at which it is to arrive."""

import math
from collections.abc import Callable

import jax.numpy as jnp

from pgm_jax.core import JumpDenoiser, Network
from pgm_jax.networks.denoiser import as_denoiser

TARGET_FEATURES = 16
"""Length of what a network reads of its target; build it with `Conditions(vector=TARGET_FEATURES + ...)`."""


def as_jump_denoiser(network: Network, params, process, parameterisation: Callable) -> JumpDenoiser:
    """Makes the jump denoiser of a network (CTM, Kim et al. 2024, Eq. 9; MeanFlow):

        g(x_t, t, s) = c_skip x_t + c_out F(c_in x_t, c_noise(t), c_noise(s), cond).

    `process.mix(estimate, s)` of the estimate with x0 = g is the jump; in EDM's frame
    `G = (s / t) x_t + (1 - s / t) g`. At s = t, g is the denoiser. The target reaches the network at the end of
    `cond["vector"]`, see `told`.

    Args:
        network: `Network` built for that vector.
        params: its parameters.
        process: the process whose times it reads.
        parameterisation: `(process, t) -> coefficients`, see `as_denoiser`.

    Returns:
        `denoise(x_t, t, cond, s) -> x0`; without s it is the denoiser, s = t.
    """
    denoise = as_denoiser(network, params, process, parameterisation)

    def jump(x_t, t, cond=None, s=None):
        s = t if s is None else s
        return denoise(x_t, t, told(cond, parameterisation(process, s).c_noise))

    return jump


def told(cond, target):
    """Adds a target to the conditions: sines and cosines of `c_noise(s)` at halved periods, after the vector.

    Args:
        cond: dict of conditions, or None.
        target: c_noise of the target, (...,).

    Returns:
        dict with "vector" (..., k + TARGET_FEATURES).
    """
    octaves = 2.0 ** jnp.arange(TARGET_FEATURES // 2, dtype=jnp.result_type(float)) / 4
    phase = math.pi * jnp.asarray(target)[..., None] * octaves.reshape((1,) * jnp.ndim(target) + (-1,))
    waves = jnp.concatenate([jnp.sin(phase), jnp.cos(phase)], axis=-1)
    given = (cond or {}).get("vector")
    waves = waves if given is None else jnp.concatenate([given, waves.astype(given.dtype)], axis=-1)
    return {**(cond or {}), "vector": waves}

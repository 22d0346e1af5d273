"""Accelerated plug-and-play: a point estimate from very few evaluations of a denoiser or a consistency function.

From an image with errors, such as that of TV, without noise of its own:

    z_k = u_k + omega_k (D(u_k, sigma_k) - u_k),   x_(k+1) = argmin_v |v - z_k|^2 / (2 v_k sigma_k^2) - ln p(y | v),
    u_(k+1) = x_(k+1) + beta_k (x_(k+1) - x_k),   u_0 = x_0 = start,

the proximal step of plug-and-play (Venkatakrishnan et al. 2013) with over-relaxation omega and the extrapolation of
Nesterov 1983. New noise at every level makes draws and needs many levels to forget its start; two evaluations do
better without.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from pgm_jax.reconstruction.posterior_plan import image_of


class PlugStep(NamedTuple):
    """One evaluation.

    Attributes:
        level: sigma, the noise level that the denoiser is told, in units of the image.
        relax: omega, how far the image follows the denoiser; 1 takes its output.
        trust: v, variance of z in units of sigma^2.
        extrapolate: beta, how far the next evaluation is moved on along the change of this one.
    """

    level: float
    relax: float = 1.0
    trust: float = 1.0
    extrapolate: float = 0.0


def plug_and_play(
    denoise, process, likelihood, start, steps: Sequence[Any], cg: int = 20, cond=None, correct=None
):
    """Reconstructs by a few evaluations from an image, without noise.

    For a Gaussian prior of variance s^2 the fixed point of `trust = relax` is the posterior mean under the prior
    variance s^2 + sigma^2.

    Args:
        denoise: denoiser `(x_t, t, cond) -> x0` of one image, such as `prior.denoiser()`.
        process: its process.
        likelihood: likelihood with a proximal map, in the units of the image.
        start: the image to start from.
        steps: one `PlugStep` for each evaluation; their numbers may be traced. With `correct`, any tuple with a
            level, `relax` and `extrapolate`.
        cg: conjugate gradient (or EM) steps of each proximal map.
        cond: condition of the denoiser.
        correct: function `(z, step) -> image` in place of the proximal map, such as `piccs` around z.

    Returns:
        Image like start.

    Raises:
        ValueError: for no step, or a start that does not fit the operator's images.
    """
    if not len(steps):
        raise ValueError("plug_and_play got no steps: give one PlugStep for each evaluation of the network.")
    if correct is None:
        correct = lambda z, step: likelihood.prox(z, step.trust * step.level**2, cg)
    x = u = image_of(likelihood, start)
    for step in steps:
        level = jnp.asarray(step.level, jnp.finfo(start.dtype).dtype)
        t = process.time(level)
        clean = denoise(process.alpha(t) * u, t, cond)
        pulled = u + step.relax * (clean - u)
        previous, x = x, correct(pulled, step)
        u = x + step.extrapolate * (x - previous)
    return x

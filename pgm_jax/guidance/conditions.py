"""Guidance by conditions and by known pixels: classifier-free guidance, known region, blending, clipping."""

import jax
import jax.numpy as jnp

from pgm_jax.core import Estimator
from pgm_jax.guidance.makers import correct, move


def cfg(scale, null=None):
    """Makes classifier-free guidance: `x0 = x0_null + scale (x0_cond - x0_null)` (Ho and Salimans 2022).

    Scale 1 is the conditional model, 0 the unconditional one. (LCM's and Ho's `strength` is scale - 1.)

    Args:
        scale: number, may be traced.
        null: the condition that stands for none; None by default. A zero image can be a real slice: train
            with a null of its own.

    Returns:
        A guidance with two evaluations; the state of the conditional one is kept.
    """

    def guidance(inner):
        def apply(key, x_t, t, state, *, cond=None, s=None):
            key_cond, key_null = jax.random.split(key)
            given, new_state = inner.apply(key_cond, x_t, t, state, cond=cond, s=s)
            free, _ = inner.apply(key_null, x_t, t, state, cond=null, s=s)
            x0 = free.x0 + scale * (given.x0 - free.x0)
            return inner.process.estimate(x_t, t, x0.astype(given.x0.dtype), given.x1), new_state

        return Estimator(inner.process, inner.init, apply)

    return guidance


def clip(low, high):
    """Makes a guidance that clips the clean image to [low, high] and recomputes the noise.

    Args:
        low: smallest value, in units of the image.
        high: largest value.

    Returns:
        A guidance; it refuses complex images, whose values have no order.
    """

    def update(key, process, x0, t, state):
        if jnp.iscomplexobj(x0):
            raise ValueError(
                "clip has no meaning for complex images: clip the magnitude in an update of your own."
            )
        return jnp.clip(x0, low, high), state

    return correct(update, keep_noise=False)


def known_region(mask, image):
    """Makes RePaint's known region (Lugmayr et al. 2022): known pixels follow the given image's own path.

    Where the mask is 1, x0 is the image and the noise is drawn afresh; elsewhere both stay. The final image
    equals the given one on the mask, bit for bit. Use it with a grid from `grid.resample` for RePaint.

    Args:
        mask: array of zeros and ones that broadcasts against the image.
        image: known values, of the shape of the image; read where the mask is 1.

    Returns:
        A guidance; Normal noise only, since fresh values in a region break a shared radius.
    """

    def target(key, process, estimate, t):
        known = jnp.asarray(mask, jnp.finfo(estimate.x0.dtype).dtype)
        x0 = jnp.where(known > 0, image, estimate.x0).astype(estimate.x0.dtype)
        fresh = process.law.sample(key, estimate.noise.shape, estimate.noise.dtype)
        return estimate._replace(x0=x0, noise=process.law.refresh(estimate.noise, fresh, known))

    return move(target)


def blend(image, weight):
    """Makes the blending of PPFM and PS-PFCM (Hein et al. 2024): `x <- weight x + (1 - weight) alpha image`.

    Args:
        image: noisy observation, of the shape of the image.
        weight: share of the model, in [0, 1]; 1 ignores the observation.

    Returns:
        A guidance, valid for every noise law.
    """

    def target(key, process, estimate, t):
        x0 = weight * estimate.x0 + (1 - weight) * image
        return estimate._replace(x0=x0.astype(estimate.x0.dtype), noise=weight * estimate.noise)

    return move(target)

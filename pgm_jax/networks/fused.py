"""Networks that take the conditioning image for a second noisy observation of the same image."""

import jax.numpy as jnp

from pgm_jax.core import Network
from pgm_jax.networks.drunet import drunet


def fused(network: Network, sigma_data: float, spread: float) -> Network:
    """Shows a network the noisy image and the conditioning image joined, each weighed by its precision:

        x' = w x + (1 - w) image,   sigma' = sigma sqrt(w),   w = spread^2 / (sigma^2 + spread^2).

    With the weights of a plain denoiser it is the posterior mean given both, for an image whose errors were Normal
    noise of deviation `spread`: a start from which little training is needed to read an image with other errors,
    such as those of a fast reconstruction. The network is given the image as its condition too. As sigma -> 0 it is
    the network itself, so what a parameterisation says of the clean end holds.

    The scalings of `precondition.edm` are undone and made anew for sigma'; with d = sigma_data, p = spread and
    Delta = d^2 p^2 + d^2 sigma^2 + p^2 sigma^2 the output is

        F(x, ...) = (d sigma sqrt(sigma^2 + d^2) image - d^3 sigma x + p sqrt((sigma^2 + d^2) Delta) F') / Delta,

    x being c_in times the noisy image, in which nothing is divided by sigma.

    Args:
        network: `Network` for EDM's scalings that reads `cond["image"]`.
        sigma_data: standard deviation of the images, as in the parameterisation.
        spread: deviation of the errors of the conditioning image, per real component.

    Returns:
        `Network` with the same parameters, for the same parameterisation.

    Raises:
        ValueError: unless sigma_data and spread are above 0, and at a call without `cond["image"]`.
    """
    if not (sigma_data > 0 and spread > 0):
        raise ValueError(f"fused needs sigma_data and spread above 0, got {sigma_data} and {spread}.")
    d, p = sigma_data, spread

    def apply(params, x, t, cond=None, **options):
        if not cond or "image" not in cond:
            raise ValueError("a fused network reads an image: give cond={'image': ...}")
        # EDM tells the network ln(sigma) / 4.
        sigma = jnp.exp(4 * t)
        told = t + jnp.log(p**2 / (sigma**2 + p**2)) / 8
        sigma = sigma.reshape(t.shape + (1,) * (x.ndim - t.ndim))
        root, wide = jnp.hypot(sigma, d), sigma**2 + p**2
        delta = (d * p) ** 2 + sigma**2 * (d**2 + p**2)
        joined = (p**2 * root * x + sigma**2 * cond["image"]) / wide
        inner = network.apply(params, joined * jnp.sqrt(wide / delta), told, cond, **options)
        known = d * sigma * (root * cond["image"] - d**2 * x) / delta
        return known + p * root / jnp.sqrt(delta) * inner

    return Network(network.init, apply)


def fused_drunet(sigma_data: float, spread: float, **options) -> Network:
    """Makes a `drunet` that is `fused`.

    Args:
        sigma_data: see `fused`.
        spread: see `fused`.
        **options: of `drunet`, with `conditions` of an image.

    Returns:
        `Network`.

    Raises:
        ValueError: for conditions without an image, and see `fused` and `drunet`.
    """
    if not getattr(options.get("conditions"), "image", 0):
        raise ValueError("fused_drunet reads an image: give conditions=Conditions(image=CHANNELS)")
    return fused(drunet(**options), sigma_data, spread)

"""Operators whose `A^H A` is a Fourier multiplier: Cartesian masks of one coil, blurs, the identity."""

import jax
import jax.numpy as jnp
import numpy as np

# Relative size of a residual that counts as rounding.
_ROUNDING = 1e-4


def gram_spectrum(prior, operator):
    """Reads the spectrum g of `A^H A` from its response to a point in every channel.

    For real images it is that of `Re A^H A`, the mean of g at k and -k.

    Args:
        prior: `StationaryGaussianPrior`, for the size and kind of its images.
        operator: linear map with an adjoint whose `A^H A` is a Fourier multiplier.

    Returns:
        Non-negative real array of the image's shape, in FFT order.
    """
    shape = prior.power.shape
    spatial = tuple(range(len(shape) - 1))
    point = jnp.zeros(shape, prior.image_dtype).at[(0,) * len(spatial)].set(1.0)
    response = prior.real_part(operator.adjoint(operator(point)))
    return jnp.maximum(jnp.real(jnp.fft.fftn(response, axes=spatial)), 0.0).astype(prior.power.dtype)


def is_circulant(prior, operator) -> bool:
    """Tests on one random image whether `A^H A` is a Fourier multiplier.

    Args:
        prior: `StationaryGaussianPrior`, for the size and kind of its images.
        operator: linear map with an adjoint.

    Returns:
        Whether it is; False under `jit`, where no value is known.
    """
    real, imag = np.random.default_rng(0).standard_normal((2, *prior.power.shape))
    probe = jnp.asarray(real + 1j * imag if prior.is_complex else real, prior.image_dtype)
    gram = prior.real_part(operator.adjoint(operator(probe)))
    gap = gram - prior.filter(probe, prior.half(gram_spectrum(prior, operator)))
    if isinstance(gap, jax.core.Tracer):
        return False
    return bool(jnp.linalg.norm(gap.ravel()) <= _ROUNDING * jnp.linalg.norm(gram.ravel()))

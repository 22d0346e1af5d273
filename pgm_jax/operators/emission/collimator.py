"""The blur of a collimator, which grows with the distance from its face."""

import math

import jax
import jax.numpy as jnp
import numpy as np


def collimator_kernels(distance, fwhm, growth, spacing):
    """Builds the normalised kernel of each distance, a normal law integrated over pixels.

    Args:
        distance: distances from the face of the collimator in mm, any shape; negative ones count as 0.
        fwhm: full width at half maximum at the face in mm.
        growth: growth of that width per mm of distance.
        spacing: pixel size in mm.

    Returns:
        float64 (*distance.shape, taps), taps odd and the same for all, cut at 3.5 standard deviations of the
        widest, symmetric, non-negative and of sum 1.
    """
    std = (fwhm + growth * np.maximum(distance, 0.0)) / np.sqrt(8 * np.log(2)) / spacing
    reach = max(int(np.ceil(3.5 * np.max(std))), 0)
    edges = np.arange(-reach, reach + 2) - 0.5
    ratio = edges / (np.sqrt(2) * np.maximum(std, 1e-6)[..., None])
    cumulative = np.vectorize(math.erf, otypes=[np.float64])(ratio)
    kernels = np.diff(cumulative, axis=-1)
    return kernels / kernels.sum(axis=-1, keepdims=True)


def band(kernels, size: int):
    """Builds the matrices of convolution with some kernels, where what leaves the edge is lost.

    Args:
        kernels: (..., taps), taps odd.
        size: number of pixels.

    Returns:
        Array (..., size, size), symmetric as the kernels are.
    """
    reach = kernels.shape[-1] // 2
    tap = np.arange(size)[None, :] - np.arange(size)[:, None] + reach
    inside = (tap >= 0) & (tap <= 2 * reach)
    return jnp.where(inside, kernels[..., np.clip(tap, 0, 2 * reach)], 0.0)


def blur(image, matrix, axis: int):
    """Multiplies an image by a matrix along one axis.

    Args:
        image: array.
        matrix: (size, size), see `band`.
        axis: axis of length size.

    Returns:
        Array like image.
    """
    blurred = jnp.tensordot(matrix, image, axes=[[1], [axis]], precision=jax.lax.Precision.HIGHEST)
    return jnp.moveaxis(blurred, 0, axis)


def collapse(image, kernels):
    """Blurs each depth with its own kernel and adds them up, one matrix product over depths for each tap.

    Args:
        image: (depths, bins, slices).
        kernels: (depths, taps).

    Returns:
        Array (bins, slices).
    """
    taps, bins = kernels.shape[1], image.shape[1]
    sums = jnp.tensordot(kernels, image, axes=[[0], [0]], precision=jax.lax.Precision.HIGHEST)
    padded = jnp.pad(sums, [(0, 0), (taps // 2, taps // 2), (0, 0)])
    return sum(padded[tap, tap : tap + bins] for tap in range(taps))


def collapse_adjoint(projection, kernels):
    """Computes the transpose of `collapse`.

    Args:
        projection: (bins, slices).
        kernels: (depths, taps).

    Returns:
        Array (depths, bins, slices).
    """
    taps, bins = kernels.shape[1], projection.shape[0]
    padded = jnp.pad(projection, [(taps // 2, taps // 2), (0, 0)])
    shifted = jnp.stack([padded[taps - 1 - tap :][:bins] for tap in range(taps)])
    return jnp.tensordot(kernels, shifted, axes=[[1], [0]], precision=jax.lax.Precision.HIGHEST)

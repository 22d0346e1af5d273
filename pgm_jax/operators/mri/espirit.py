"""Coil sensitivities from the centre of k-space by ESPIRiT."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax.operators.mri.checks import require_finite


def calibration_region(y, size):
    """Cuts the centre out of Cartesian k-space; DC lies at N // 2 before and at size // 2 after.

    Args:
        y: k-space (coils, *shape).
        size: width of the region along every axis, or one for each.

    Returns:
        Array (coils, *size) like y.

    Raises:
        ValueError: if the region is wider than k-space.
    """
    shape = y.shape[1:]
    sizes = (size,) * len(shape) if np.ndim(size) == 0 else tuple(size)
    if len(sizes) != len(shape) or any(not 1 <= s <= n for s, n in zip(sizes, shape, strict=True)):
        raise ValueError(
            f"a calibration region {sizes} does not fit in k-space {shape}: choose a smaller one"
        )
    start = [n // 2 - s // 2 for n, s in zip(shape, sizes, strict=True)]
    return y[(slice(None), *(slice(a, a + s) for a, s in zip(start, sizes, strict=True)))]


def espirit_maps(calibration, shape, *, kernel: int = 6, threshold=0.02, crop=0.95):
    """Computes the sensitivities that a fully sampled centre of k-space determines.

    Windows of the region span a subspace (singular values above `threshold` of the largest); its projection,
    averaged over where a window may lie, acts in the image as one coils x coils matrix a voxel. Sensitivities
    are its eigenvectors of eigenvalue 1; where the largest eigenvalue is below `crop` there is no signal, and
    the maps are 0. Their phase is relative to the strongest combination of coils in the region.

    Source: M. Uecker et al., ESPIRiT, an eigenvalue approach to autocalibrating parallel MRI, MRM 71 (2014),
    Eq. 14-17; the averaged projection is built as one kernel of (2 kernel - 1)^d, so no stack of images of every
    kernel is held.

    Args:
        calibration: fully sampled centre of k-space (coils, *size), on the host.
        shape: shape of the maps, such as (height, width) or (depth, height, width).
        kernel: width of a window along every axis.
        threshold: least singular value of the subspace over the largest.
        crop: least eigenvalue of signal, in [0, 1].

    Returns:
        (maps, eigenvalue): complex (coils, *shape) with `sum_c |S_c|^2 = 1` or 0, and real (*shape,) in [0, 1].

    Raises:
        ValueError: if the region is narrower than a window, not finite or zero.
    """
    calibration, shape = np.asarray(calibration, np.complex128), tuple(shape)
    require_finite(calibration, "the calibration region")
    if calibration.ndim != len(shape) + 1 or min(calibration.shape[1:]) < kernel:
        raise ValueError(
            f"ESPIRiT needs a calibration region (coils, ...) of {len(shape)} axes, each at least kernel = "
            f"{kernel} wide, got {calibration.shape}: measure a wider centre"
        )
    if not np.any(calibration):
        raise ValueError("the calibration region is zero: cut it where k-space was measured")
    correlation = _averaged_projection(calibration, kernel, threshold)
    # Strongest combination of coils: the phase reference.
    flat = calibration.reshape(len(calibration), -1)
    reference = np.linalg.eigh(flat @ flat.conj().T)[1][:, -1]
    dtype = jnp.result_type(complex)
    return _eigenmaps(jnp.asarray(correlation, dtype), jnp.asarray(reference, dtype), crop, shape=shape)


def _averaged_projection(calibration, kernel, threshold):
    """Returns H[d, ..., c, c'] = k^-d sum over q' - q = d of P[(c, q), (c', q')], lags from -(k-1) to k-1."""
    coils, d = len(calibration), calibration.ndim - 1
    axes = tuple(range(1, d + 1))
    windows = np.lib.stride_tricks.sliding_window_view(calibration, (kernel,) * d, axis=axes)
    windows = np.moveaxis(windows, 0, d).reshape(-1, coils * kernel**d)
    power, vectors = np.linalg.eigh(windows.T @ windows.conj())
    signal = vectors[:, np.sqrt(np.maximum(power, 0)) > threshold * np.sqrt(power[-1])]
    kernels = signal.T.reshape(-1, coils, *[kernel] * d)
    lags = (2 * kernel - 1,) * d
    spectrum = np.fft.fftn(kernels, lags, axes=tuple(range(2, d + 2)))
    spectrum = np.einsum("ic...,ie...->...ce", spectrum, spectrum.conj())
    # A correlation sum over q of v(q) conj(v(q + lag)) is at index -lag of the circular one.
    correlation = np.fft.ifftn(spectrum, axes=tuple(range(d)))
    for axis in range(d):
        correlation = np.roll(np.flip(correlation, axis), kernel, axis)
    return correlation / kernel**d


@partial(jax.jit, static_argnames="shape")
def _eigenmaps(correlation, reference, crop, *, shape):
    """Evaluates the matrices row by row and takes their largest eigenvectors."""
    lag = np.arange(correlation.shape[0]) - correlation.shape[0] // 2
    factors = [
        jnp.asarray(np.exp(-2j * np.pi * np.outer(np.arange(n) - n // 2, lag) / n), correlation.dtype)
        for n in shape
    ]

    def row(factor):
        matrices = jnp.tensordot(factor, correlation, 1, precision=jax.lax.Precision.HIGHEST)
        for axis, other in enumerate(factors[1:]):
            matrices = jnp.tensordot(other, matrices, ((1,), (axis,)), precision=jax.lax.Precision.HIGHEST)
            matrices = jnp.moveaxis(matrices, 0, axis)
        values, vectors = jnp.linalg.eigh(matrices)
        maps, value = vectors[..., -1], values[..., -1]
        body = jnp.matmul(maps, jnp.conj(reference))[..., None]
        phase = jnp.where(body == 0, 1.0, jnp.conj(body) / jnp.where(body == 0, 1.0, jnp.abs(body)))
        return jnp.where((value >= crop)[..., None], phase * maps, 0.0), value

    maps, value = jax.lax.map(row, factors[0])
    return jnp.moveaxis(maps, -1, 0), value

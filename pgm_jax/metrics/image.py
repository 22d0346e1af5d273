"""Errors of one image against a reference: PSNR, NRMSE, SSIM."""

import jax.numpy as jnp
import numpy as np


def _require_same_shape(x, reference):
    if jnp.shape(x) != jnp.shape(reference):
        raise ValueError(
            f"an image of shape {jnp.shape(x)} cannot be compared with a reference of shape "
            f"{jnp.shape(reference)}: "
            "crop or resample one of them, and vmap over a batch"
        )


def _sum_of_squares(x, mask):
    square = jnp.real(x) ** 2 + jnp.imag(x) ** 2
    if mask is not None:
        square = jnp.where(jnp.broadcast_to(mask, x.shape), square, 0.0)
    return jnp.sum(square)


def _count(x, mask):
    return x.size if mask is None else jnp.sum(jnp.broadcast_to(mask, x.shape).astype(bool))


def psnr(x, reference, peak, mask=None):
    """Computes the peak signal-to-noise ratio, `10 log10(peak^2 / mean |x - reference|^2)`, in dB.

    Args:
        x: image of any shape, real or complex.
        reference: image of the same shape and unit.
        peak: largest possible signal, in the unit of the image.
        mask: array of truth values that broadcasts to the image; entries outside it are left out.

    Returns:
        Real scalar, infinite for equal images.

    Raises:
        ValueError: if the shapes differ.
    """
    _require_same_shape(x, reference)
    error = jnp.asarray(x) - jnp.asarray(reference)
    return 10 * jnp.log10(peak**2 * _count(error, mask) / _sum_of_squares(error, mask))


def nrmse(x, reference, mask=None):
    """Computes the relative error `||x - reference|| / ||reference||` in the Euclidean norm.

    Args:
        x: image of any shape, real or complex.
        reference: image of the same shape and unit, not zero.
        mask: array of truth values that broadcasts to the image; entries outside it are left out.

    Returns:
        Real scalar, unitless.

    Raises:
        ValueError: if the shapes differ.
    """
    _require_same_shape(x, reference)
    reference = jnp.asarray(reference)
    return jnp.sqrt(_sum_of_squares(x - reference, mask) / _sum_of_squares(reference, mask))


def _gaussian_window(sigma, radius):
    offsets = np.arange(-radius, radius + 1)
    window = np.exp(-0.5 * (offsets / sigma) ** 2)
    return window / window.sum()


def _filter(maps, window):
    """Correlates axes 1 and 2 with the window, where it fits whole."""
    for axis in (1, 2):
        size = maps.shape[axis] - len(window) + 1
        slices = [jnp.take(maps, np.arange(k, k + size), axis=axis) for k in range(len(window))]
        maps = sum(float(w) * s for w, s in zip(window, slices, strict=True))
    return maps


def ssim(x, reference, data_range, sigma=1.5):
    """Computes the mean structural similarity of two 2-D images with a Gaussian window.

    `(2 m_x m_y + c1) (2 v_xy + c2) / ((m_x^2 + m_y^2 + c1) (v_x + v_y + c2))` with c1 = (0.01 range)^2 and
    c2 = (0.03 range)^2, means m and (co)variances v weighted by the window (11 x 11 for sigma 1.5), averaged
    over the voxels where the window fits whole and over channels. Equal to scikit-image's
    `structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False)`.

    Source: Z. Wang et al., Image quality assessment: from error visibility to structural similarity, IEEE TIP
    13 (2004), Eq. 13.

    Args:
        x: real image (height, width) or (height, width, channel).
        reference: image of the same shape and unit.
        data_range: difference of the largest and smallest possible value, in the unit of the image.
        sigma: width of the window in voxels; it is cut at 3.5 sigma.

    Returns:
        Real scalar, 1 for equal images.

    Raises:
        ValueError: if the shapes differ, the images are complex, not 2-D, or smaller than the window.
    """
    _require_same_shape(x, reference)
    radius = int(3.5 * sigma + 0.5)
    shape = jnp.shape(x)
    if jnp.iscomplexobj(x) or jnp.iscomplexobj(reference):
        raise ValueError("ssim needs real images: pass magnitudes, jnp.abs(x)")
    if len(shape) not in (2, 3) or min(shape[:2]) < 2 * radius + 1:
        raise ValueError(
            "ssim needs (height, width) or (height, width, channel) of at least "
            f"{2 * radius + 1} voxels a side, got {shape}: vmap over slices, or lower sigma"
        )
    x, reference = jnp.asarray(x), jnp.asarray(reference)
    maps = jnp.stack([x, reference, x * x, reference * reference, x * reference])
    mean_x, mean_y, xx, yy, xy = _filter(maps, _gaussian_window(sigma, radius))
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * (xy - mean_x * mean_y) + c2) / (xx - mean_x**2 + yy - mean_y**2 + c2)
    return jnp.mean(luminance * structure)

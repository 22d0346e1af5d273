"""Ramp filters of filtered backprojection: the band-limited ramp in space, and windows in frequency."""

import jax.numpy as jnp
import numpy as np

# Windows as functions of the frequency over the cut-off, in [0, 1].
WINDOWS = {
    "ram-lak": lambda f: np.ones_like(f),
    "shepp-logan": lambda f: np.sinc(f / 2),
    "cosine": lambda f: np.cos(np.pi * f / 2),
    "hamming": lambda f: 0.54 + 0.46 * np.cos(np.pi * f),
    "hann": lambda f: 0.5 + 0.5 * np.cos(np.pi * f),
}


def ramp(bins: int, spacing: float, arc: bool = False) -> np.ndarray:
    """Computes the kernel `h[0] = 1 / (4 d^2)`, `h[odd n] = -1 / (pi n d)^2`, `h[even n] = 0`, d the spacing.

    Sampled in space: `|f|` sampled in frequency has a zero at DC, which darkens the middle of an image (cupping).
    On an arc the kernel is `(n d / sin(n d))^2` times that.

    Source: A. C. Kak, M. Slaney, Principles of computerized tomographic imaging (1988), Eq. 3.61 and 3.129.

    Args:
        bins: number of bins of a projection.
        spacing: distance between bins: mm, or radians on an arc.
        arc: whether bins are equal in angle.

    Returns:
        float64 (length,), circular with n = 0 first; length is the least power of two >= 2 bins - 1.
    """
    length = 2 ** int(np.ceil(np.log2(max(2 * bins - 1, 1))))
    n = np.minimum(np.arange(length), length - np.arange(length))
    odd = n % 2 == 1
    position = np.where(odd, n, 1) * spacing
    # Entries beyond the projection never meet data.
    position = np.where(n < bins, position, spacing)
    kernel = np.where(odd, -1 / (np.pi * (np.sin(position) if arc else position)) ** 2, 0.0)
    kernel[0] = 1 / (4 * spacing**2)
    return kernel


def response(bins: int, spacing: float, filter: str = "ram-lak", cutoff: float = 1.0, arc: bool = False):
    """Computes the frequency response of a windowed ramp.

    Args:
        bins: number of bins of a projection.
        spacing: distance between bins: mm, or radians on an arc.
        filter: "ram-lak", "shepp-logan", "cosine", "hamming" or "hann".
        cutoff: frequency beyond which the response is 0, over that of Nyquist; in (0, 1].
        arc: whether bins are equal in angle.

    Returns:
        float64 (length / 2 + 1,) in 1 / mm: `spacing` times the transform of `ramp`, times the window.

    Raises:
        ValueError: for an unknown filter or a cut-off outside (0, 1].
    """
    if filter not in WINDOWS:
        raise ValueError(f"filter must be one of {', '.join(WINDOWS)}, got {filter!r}")
    if not 0 < cutoff <= 1:
        raise ValueError(f"cutoff is a fraction of the Nyquist frequency in (0, 1], got {cutoff}")
    gain = spacing * np.fft.rfft(ramp(bins, spacing, arc)).real
    frequency = np.linspace(0, 1, len(gain)) / cutoff
    return gain * np.where(frequency <= 1, WINDOWS[filter](np.minimum(frequency, 1)), 0.0)


def filter_projections(y, gain):
    """Filters projections along their bins without wrap-around.

    Args:
        y: projections (views, bins, slices), real.
        gain: `response` for that number of bins.

    Returns:
        Array like y.
    """
    length = 2 * (len(gain) - 1)
    spectrum = jnp.fft.rfft(y, length, axis=1) * jnp.asarray(gain, y.dtype)[None, :, None]
    return jnp.fft.irfft(spectrum, length, axis=1)[:, : y.shape[1]]

"""A fixed vector of texture statistics of an image: wavelet amplitudes, their modulation, and grey values."""

import functools
import math

import jax.numpy as jnp
import numpy as np

_ORIENTATIONS = 6
# Centre of the finest filters in cycles per pixel, and the ratio of neighbouring scales.
_FINEST, _OCTAVE = 0.35, 2.0
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_LEAST = 16


def texture_features(image, scales: int = 4):
    """Computes 70 numbers a channel (for 4 scales) that describe what an image looks like, without any training.

    With u the image less its mean under a window that falls to 0 at the border, and W one-sided log-Gabor filters
    at `scales` octaves and 6 orientations:

        mean |W u|                   how much structure each filter sees, 6 an octave
        (mean |W u|^2)^(1/2)         its root mean square over the orientations, which says how sparse it is
        (mean |W' |W u||^2)^(1/2)    how the structure of an octave varies at a coarser one, for 6 angles between
                                     the two, averaged over orientation
        mean, 5 quantiles            of the grey values, 0.05 to 0.95

    Of the first three, amplitudes with long tails, the square root is taken. The third is a scattering of second
    order (J. Bruna and S. Mallat, Invariant scattering convolution networks, IEEE TPAMI 35 (2013)), with root mean
    squares for means; it tells an image from noise of the same spectrum. The filters are fixed numbers: nothing is
    downloaded, and figures of different machines agree.

    Args:
        image: (height, width, channel), each side at least 16 pixels; of complex images the magnitude is taken.
        scales: number of octaves, the finest at 0.35 cycles a pixel.

    Returns:
        (features,) float.

    Raises:
        ValueError: for another shape, a side below 16 pixels, or scales below 1.
    """
    image = jnp.abs(image) if jnp.iscomplexobj(image) else jnp.asarray(image)
    if image.ndim != 3 or min(image.shape[:2]) < _LEAST or scales < 1:
        raise ValueError(
            f"texture_features needs (height, width, channel) of at least {_LEAST} pixels a side and 1 scale, got "
            f"{image.shape} and {scales}: vmap over a batch"
        )
    return jnp.concatenate([_of_channel(image[..., c], scales) for c in range(image.shape[-1])])


def _of_channel(x, scales):
    window, filters = _window(*x.shape), _filters(*x.shape, scales)
    wavelets = jnp.asarray(filters, x.dtype)

    def seen(y):
        weights = jnp.asarray(window, x.dtype)[None, None]
        mean = jnp.sum(weights * y, axis=(-2, -1), keepdims=True) / jnp.sum(weights)
        return weights * (y - mean)

    amplitude = jnp.abs(jnp.fft.ifft2(wavelets * jnp.fft.fft2(seen(x[None, None]))))
    # Means over the window, so that the border counts as little as it is seen.
    first = jnp.mean(amplitude, axis=(-2, -1))
    spread = jnp.sqrt(jnp.mean(amplitude**2, axis=(1, 2, 3)))
    # The energy behind the second filter by Parseval: no transform back.
    power = jnp.abs(jnp.fft.fft2(seen(amplitude))) ** 2 / x.size**2
    energy = jnp.einsum("jahw,kbhw->jakb", power, wavelets**2)
    turns = np.arange(_ORIENTATIONS)
    relative = energy[:, turns[:, None], :, (turns[:, None] + turns) % _ORIENTATIONS].mean(axis=0)
    finer, coarser = np.triu_indices(scales, 1)
    second = jnp.sqrt(relative[:, finer, coarser])
    amplitudes = jnp.concatenate([first.ravel(), spread, second.ravel()])
    grey = jnp.concatenate([jnp.mean(x)[None], jnp.quantile(x, jnp.asarray(_QUANTILES))])
    return jnp.concatenate([jnp.sqrt(amplitudes), grey])


@functools.cache
def _window(height, width):
    """1 in the middle half, falling to 0 at the border as the square of a sine."""

    def taper(n):
        place = np.minimum(np.arange(n) + 0.5, np.arange(n)[::-1] + 0.5) / (n / 4)
        return np.sin(0.5 * math.pi * np.minimum(place, 1.0)) ** 2

    return taper(height)[:, None] * taper(width)[None, :]


@functools.cache
def _filters(height, width, scales):
    """(scales, orientations, height, width) transfer functions, finest first, of the frequencies of `fft2`."""
    rows, columns = np.meshgrid(np.fft.fftfreq(height), np.fft.fftfreq(width), indexing="ij")
    radius, angle = np.hypot(rows, columns), np.arctan2(rows, columns)
    octaves = np.log(np.maximum(radius, 1e-12) / _FINEST) / math.log(_OCTAVE)
    found = []
    for scale in range(scales):
        band = np.exp(-0.5 * ((octaves + scale) / 0.5) ** 2)
        for turn in range(_ORIENTATIONS):
            off = np.angle(np.exp(1j * (angle - math.pi * turn / _ORIENTATIONS)))
            found.append(band * np.exp(-0.5 * (off / (0.6 * math.pi / _ORIENTATIONS)) ** 2))
    return np.array(found).reshape(scales, _ORIENTATIONS, height, width)

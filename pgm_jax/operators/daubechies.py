"""Daubechies' orthogonal wavelet filters, by spectral factorisation on the host."""

import functools
import math
import re

import numpy as np


@functools.cache
def daubechies_filter(name: str) -> np.ndarray:
    """Computes the low-pass filter of an orthogonal wavelet with the shortest support for its moments.

    With N vanishing moments it has 2 N taps h and unit norm, `sum_k h_k h_(k + 2 m) = [m = 0]` and
    `sum_k (-1)^k k^p h_k = 0` for p < N. Of the roots of `P(y) = sum_k C(N - 1 + k, k) y^k`, with
    `y = (2 - z - 1 / z) / 4`, those inside the unit circle are taken (extremal phase), and Newton's method on the
    orthogonality conditions removes what rounding the roots has left.

    Source: I. Daubechies, Ten lectures on wavelets (1992), section 6.1 and table 6.1.

    Args:
        name: "haar", or "db1" to "db10".

    Returns:
        float64 array (2 N,), in the order of the table: the reconstruction filter of PyWavelets.

    Raises:
        ValueError: for another name.
    """
    match = re.fullmatch(r"db([1-9]|10)", "db1" if name == "haar" else name)
    if match is None:
        raise ValueError(f'wavelet must be "haar" or "db1" to "db10", got {name!r}')
    order = int(match[1])
    ones = np.poly(-np.ones(order))
    roots = np.roots([math.comb(order - 1 + k, k) for k in range(order)][::-1]) if order > 1 else []
    inside = []
    for y in roots:
        pair = np.roots([1.0, 4 * y - 2, 1.0])
        inside.append(pair[np.argmin(np.abs(pair))])
    taps = np.real(np.convolve(ones, np.poly(inside))) if order > 1 else ones
    return _polished(taps * np.sqrt(2) / taps.sum())


def _conditions(taps):
    """Returns the orthogonality and moment conditions of the taps, all 0 for a wavelet, and their Jacobian."""
    size = len(taps)
    values, rows = [], []
    for shift in range(0, size, 2):
        values.append(taps[shift:] @ taps[: size - shift] - (shift == 0))
        row = np.zeros(size)
        row[shift:] += taps[: size - shift]
        row[: size - shift] += taps[shift:]
        rows.append(row)
    k = np.arange(size)
    for power in range(size // 2):
        # Powers are scaled, so that the conditions are of one size.
        row = (-1.0) ** k * (k / size) ** power
        values.append(row @ taps)
        rows.append(row)
    return np.array(values), np.array(rows)


def _polished(taps):
    for _ in range(3):
        values, rows = _conditions(taps)
        taps = taps - np.linalg.lstsq(rows, values, rcond=None)[0]
    return taps

"""The Kaiser-Bessel window and its Fourier transform, in float64 on the host."""

import numpy as np


def shape_parameter(width: int, oversampling: float) -> float:
    """Computes beta, which balances the window's main lobe against the aliasing of the oversampled grid.

    `beta = pi sqrt((W / s)^2 (s - 1/2)^2 - 0.8)`.

    Source: P. J. Beatty, D. G. Nishimura, J. M. Pauly, Rapid gridding reconstruction with a minimal
    oversampling ratio, IEEE TMI 24 (2005), Eq. 5.

    Args:
        width: W, grid points under the window along one axis.
        oversampling: s, grid points over image points.

    Returns:
        Python number.
    """
    return float(np.pi * np.sqrt((width / oversampling) ** 2 * (oversampling - 0.5) ** 2 - 0.8))


def kaiser_bessel(u, width: int, beta: float):
    """Computes `I0(beta sqrt(1 - (2 u / W)^2)) / I0(beta)` for |u| <= W / 2, and 0 beyond.

    Args:
        u: distance in grid points, any shape.
        width: W, grid points.
        beta: shape parameter.

    Returns:
        float64 array of the shape of u, 1 at u = 0.
    """
    inside = 1 - (2 * np.asarray(u, float) / width) ** 2
    return np.where(inside >= 0, np.i0(beta * np.sqrt(np.maximum(inside, 0))), 0.0) / np.i0(beta)


def kaiser_bessel_transform(v, width: int, beta: float):
    """Computes the Fourier transform of the window, `W sinh(q) / (q I0(beta))`, `q^2 = beta^2 - (pi W v)^2`.

    Where q^2 < 0 it is `W sin(|q|) / (|q| I0(beta))`.

    Args:
        v: frequency in cycles per grid point, any shape.
        width: W, grid points.
        beta: shape parameter.

    Returns:
        float64 array of the shape of v, in grid points.
    """
    square = beta**2 - (np.pi * width * np.asarray(v, float)) ** 2
    q = np.sqrt(np.maximum(np.abs(square), 1e-12))
    return width * np.where(square > 0, np.sinh(q), np.sin(q)) / (q * np.i0(beta))

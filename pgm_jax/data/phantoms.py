"""Computed test images. They are never a substitute for data: ask for them by name."""

from collections.abc import Sequence

import numpy as np

from pgm_jax.data.volume import Volume

# Amplitude, half axes (x, y, z), centre (x, y, z), angle in degrees about z.
ELLIPSOIDS = (
    (1.0, 0.69, 0.92, 0.81, 0.0, 0.0, 0.0, 0.0),
    (-0.8, 0.6624, 0.874, 0.78, 0.0, -0.0184, 0.0, 0.0),
    (-0.2, 0.11, 0.31, 0.22, 0.22, 0.0, 0.0, -18.0),
    (-0.2, 0.16, 0.41, 0.28, -0.22, 0.0, 0.0, 18.0),
    (0.1, 0.21, 0.25, 0.41, 0.0, 0.35, -0.15, 0.0),
    (0.1, 0.046, 0.046, 0.05, 0.0, 0.1, 0.25, 0.0),
    (0.1, 0.046, 0.046, 0.05, 0.0, -0.1, 0.25, 0.0),
    (0.1, 0.046, 0.023, 0.05, -0.08, -0.605, 0.0, 0.0),
    (0.1, 0.023, 0.023, 0.02, 0.0, -0.606, 0.0, 0.0),
    (0.1, 0.023, 0.046, 0.02, 0.06, -0.605, 0.0, 0.0),
)


def shepp_logan(shape: Sequence[int] = (256, 256)) -> Volume:
    """Computes the modified Shepp-Logan phantom at any size, in 2-D or 3-D.

    The field of view is [-1, 1] along every axis; pixels are sampled at their centres. The 3-D phantom adds
    a third half axis and a height to each ellipse of the 2-D one; ellipsoids turn about z only.

    Args:
        shape: (height, width), or (depth, height, width).

    Returns:
        Volume with array (1, height, width, 1) or (depth, height, width, 1), values in [0, 1] "a.u.",
        without spacing.

    Raises:
        ValueError: if `shape` has not two or three positive sizes.

    References:
        Shepp and Logan 1974, The Fourier reconstruction of a head section. Contrast: Toft 1996, The Radon
        transform, table B.3. Third dimension: Schabel 2006, phantom3d.
    """
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise ValueError(f"shepp_logan: {tuple(shape)} is not (height, width) or (depth, height, width)")
    y, x = (_centres(size) for size in shape[-2:])
    y = -y[:, None]  # row 0 is anterior
    z = _centres(shape[0])[:, None, None] if len(shape) == 3 else None
    image = np.zeros(shape, np.float64)
    for amplitude, a, b, c, x0, y0, z0, degrees in ELLIPSOIDS:
        turn = np.deg2rad(degrees)
        u = (x - x0) * np.cos(turn) + (y - y0) * np.sin(turn)
        v = (y - y0) * np.cos(turn) - (x - x0) * np.sin(turn)
        inside = (u / a) ** 2 + (v / b) ** 2
        image += amplitude * ((inside if z is None else inside + ((z - z0) / c) ** 2) <= 1)
    array = np.abs(image.round(6)).astype(np.float32).reshape((-1, *shape[-2:], 1))  # no -1e-17 from tenths
    return Volume(array, None, None, "a.u.", "shepp-logan", subject="phantom")


def _centres(size: int) -> np.ndarray:
    return (np.arange(size) + 0.5) * 2.0 / size - 1.0

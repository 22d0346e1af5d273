"""Synthetic receive coils of an MRI scanner."""

import numpy as np


def birdcage_maps(coils: int, height: int, width: int, radius=1.5, dtype=np.complex64):
    """Builds the sensitivities of a ring of coils, normalised so that `sum_c |S_c|^2 = 1` at every voxel.

    Coil c sits at angle 2 pi c / coils on a circle around the field of view (half width 1). Its magnitude
    falls as 1 / distance, its phase is the angle at which the voxel sees it, less its own angle.

    Args:
        coils: number of coils.
        height: rows of the image.
        width: columns of the image.
        radius: radius of the ring in half widths of the field of view; above sqrt(2) no coil lies inside it.
        dtype: complex dtype of the result.

    Returns:
        numpy array (coils, height, width), unitless.
    """
    rows = (2 * np.arange(height) - (height - 1)) / height
    columns = (2 * np.arange(width) - (width - 1)) / width
    angle = 2 * np.pi * np.arange(coils)[:, None, None] / coils
    dx = columns[None, None, :] - radius * np.cos(angle)
    dy = rows[None, :, None] - radius * np.sin(angle)
    maps = np.exp(1j * (np.arctan2(dy, dx) - angle)) / np.hypot(dx, dy)
    return (maps / np.sqrt(np.sum(np.abs(maps) ** 2, axis=0, keepdims=True))).astype(dtype)

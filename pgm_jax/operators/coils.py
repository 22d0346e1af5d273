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


def birdcage_volume_maps(
    coils: int, depth: int, height: int, width: int, rings: int = 2, radius=1.5, dtype=np.complex64
):
    """Builds the sensitivities of rings of coils along z, normalised so that `sum_c |S_c|^2 = 1` at every voxel.

    Ring r lies at z = (2 r - (rings - 1)) / rings half lengths of the volume and is turned by r half gaps;
    otherwise as `birdcage_maps`, with the distance in three dimensions.

    Args:
        coils: number of coils, a multiple of `rings`.
        depth: slices of the volume.
        height: rows.
        width: columns.
        rings: number of rings along z.
        radius: radius of the rings in half widths of the field of view.
        dtype: complex dtype of the result.

    Returns:
        numpy array (coils, depth, height, width), unitless.

    Raises:
        ValueError: if the coils do not fill the rings.
    """
    if coils % rings:
        raise ValueError(f"{coils} coils do not fill {rings} rings: give a multiple")
    z, y, x = np.meshgrid(*[(2 * np.arange(n) - (n - 1)) / n for n in (depth, height, width)], indexing="ij")
    ring, number = np.divmod(np.arange(coils)[:, None, None, None], coils // rings)
    angle = 2 * np.pi * (number + 0.5 * ring) / (coils // rings)
    dx, dy = x - radius * np.cos(angle), y - radius * np.sin(angle)
    dz = z - (2 * ring - (rings - 1)) / rings
    maps = np.exp(1j * (np.arctan2(dy, dx) - angle)) / np.sqrt(dx**2 + dy**2 + dz**2)
    return (maps / np.sqrt(np.sum(np.abs(maps) ** 2, axis=0, keepdims=True))).astype(dtype)

"""Sums of ellipsoids with exact line integrals: phantoms whose projections owe nothing to a voxel grid.

Coordinates are (x, y, z) in mm about the centre of the volume; x, y and z grow with the column, row and slice.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pgm_jax.data.phantoms import ELLIPSOIDS


class Ellipsoids(NamedTuple):
    """A sum of uniform ellipsoids, `f(r) = sum_e amplitude_e [ |Q_e (r - centre_e)| <= 1 ]`.

    Attributes:
        amplitudes: value that each adds inside (n,), such as 1/mm.
        centres: (n, 3), mm.
        shapes: matrices Q (n, 3, 3), 1/mm; the rows are the axes of an ellipsoid over their half lengths.
    """

    amplitudes: np.ndarray
    centres: np.ndarray
    shapes: np.ndarray


def ellipsoids(amplitudes, half_axes, centres, rotations=None) -> Ellipsoids:
    """Builds a sum of ellipsoids from half axes and rotations.

    Args:
        amplitudes: (n,), value that each adds inside.
        half_axes: (n, 3) > 0, mm.
        centres: (n, 3), mm.
        rotations: matrices (n, 3, 3) whose columns are the directions of the axes; none by default.

    Returns:
        The `Ellipsoids`, float64.

    Raises:
        ValueError: if the shapes do not match or a half axis is not positive.
    """
    amplitudes, half_axes, centres = (np.asarray(a, np.float64) for a in (amplitudes, half_axes, centres))
    n = len(amplitudes)
    rotations = np.eye(3)[None].repeat(n, 0) if rotations is None else np.asarray(rotations, np.float64)
    shapes = half_axes.shape, centres.shape, rotations.shape
    if shapes != ((n, 3), (n, 3), (n, 3, 3)):
        raise ValueError(
            f"ellipsoids: half axes, centres, rotations of {n} need shapes (n, 3), (n, 3), (n, 3, 3), got {shapes}"
        )
    if not np.all(half_axes > 0):
        raise ValueError(
            f"ellipsoids: the smallest half axis is {half_axes.min()}: give positive lengths in mm"
        )
    return Ellipsoids(amplitudes, centres, rotations.transpose(0, 2, 1) / half_axes[:, :, None])


def shepp_logan_ellipsoids(radius) -> Ellipsoids:
    """Returns the modified 3-D Shepp-Logan phantom, whose samples are `shepp_logan((depth, height, width))`.

    Args:
        radius: half the side of the field of view in mm, one number or one each along (x, y, z).

    Returns:
        `Ellipsoids`.

    References:
        Those of `shepp_logan`.
    """
    amplitudes, *lengths, degrees = np.array(ELLIPSOIDS).T
    half_axes, centres = np.stack(lengths[:3], -1), np.stack(lengths[3:], -1)
    # The table's y points up the page, ours down the rows.
    centres, turn = centres * (1, -1, 1), -np.deg2rad(degrees)
    c, s, zero, one = np.cos(turn), np.sin(turn), np.zeros_like(turn), np.ones_like(turn)
    axes = np.stack([c, s, zero, -s, c, zero, zero, zero, one], -1).reshape(-1, 3, 3)
    unit = ellipsoids(amplitudes, half_axes, centres, axes.transpose(0, 2, 1))
    radius = np.broadcast_to(np.asarray(radius, np.float64), (3,))
    return Ellipsoids(unit.amplitudes, unit.centres * radius, unit.shapes / radius)


def line_integrals(phantom: Ellipsoids, sources, points) -> np.ndarray:
    """Computes the exact integral along the whole line from a source through a point.

    With `u = Q (s - c)`, `w = Q d`, `D = (u.w)^2 - |w|^2 (|u|^2 - 1)` the chord is `2 sqrt(D) |d| / |w|^2`.

    Args:
        phantom: the ellipsoids.
        sources: (..., 3), mm.
        points: (..., 3), mm, such as detector pixels; broadcasts against sources.

    Returns:
        Integrals (...), float64, in units of the amplitude times mm.

    References:
        Kak and Slaney 1988, Principles of Computerized Tomographic Imaging, section 3.2, for ellipsoids.
    """
    sources, points = np.asarray(sources, np.float64), np.asarray(points, np.float64)
    direction = points - sources
    length = np.linalg.norm(direction, axis=-1)
    total = np.zeros(length.shape)
    for amplitude, centre, shape in zip(*phantom, strict=True):
        # From the point of the line next to the centre, lest two large squares cancel.
        start = sources - centre
        along = np.sum(start * direction, -1, keepdims=True) / length[..., None] ** 2
        u, w = (start - along * direction) @ shape.T, direction @ shape.T
        square = np.sum(w * w, -1)
        cross = np.sum(u * w, -1)
        discriminant = cross**2 - square * (np.sum(u * u, -1) - 1)
        total += amplitude * 2 * np.sqrt(np.maximum(discriminant, 0)) * length / square
    return total


def raster(phantom: Ellipsoids, shape: Sequence[int], spacing, supersample: int = 4) -> np.ndarray:
    """Samples a phantom on a volume, each voxel the mean of `supersample**3` points.

    Args:
        phantom: the ellipsoids.
        shape: (depth, height, width).
        spacing: voxel size (dz, dy, dx), mm.
        supersample: points along each side of a voxel; 1 samples the centres.

    Returns:
        float32 volume (depth, height, width, 1).
    """
    offsets = (np.arange(supersample) + 0.5) / supersample - 0.5
    fine = [
        ((np.arange(n)[:, None] + offsets).ravel() - (n - 1) / 2) * d
        for n, d in zip(shape, spacing, strict=True)
    ]
    z, y, x = fine
    nz, ny, nx = shape
    volume = np.zeros(tuple(shape), np.float64)
    for k in range(nz):
        # One slice at a time: the fine grid of a whole volume would not fit.
        layer = z[k * supersample : (k + 1) * supersample, None, None]
        values = np.zeros((supersample, ny * supersample, nx * supersample))
        for amplitude, centre, matrix in zip(*phantom, strict=True):
            square = 0.0
            for q in matrix:
                plane = q[1] * (y[:, None] - centre[1]) + q[2] * (layer - centre[2])
                square = square + (q[0] * (x - centre[0]) + plane) ** 2
            values += amplitude * (square <= 1)
        volume[k] = values.reshape(supersample, ny, supersample, nx, supersample).mean((0, 2, 4))
    return volume.astype(np.float32)[..., None]

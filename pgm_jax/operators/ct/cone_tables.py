"""Host tables of the projectors in three dimensions, in voxel units about the centre of the volume.

Axes are in the order of the array, (z, y, x). The ray of column k and row l is `S + t (D - S)`, t = 0 at the source
and 1 on the detector, with `D - S = (C - S) + k U + l W`, k and l counted from the middle of the detector. It is
sampled once in every plane of its driving axis a, the one along which it passes most voxels.
"""

from typing import NamedTuple

import numpy as np

from pgm_jax.operators.ct.geometry3d import Vector, VolumeGrid

OTHERS = ((1, 2), (0, 2), (0, 1))
# Windows of candidate rays are this much wider, in pixels, than in exact arithmetic.
SLACK = 1e-3
# Nowhere near a volume, so that the interpolation gives 0.
_ASIDE = 1e6


class SeparableTables(NamedTuple):
    """Tables of views whose detector columns are parallel to z; axis 1 is the driving axis, y or x.

    Attributes:
        middle, slope: where a column's rays cross the middle plane, and the step from plane to plane
            (V, 2, columns).
        fraction, step: t at the middle plane and its step from plane to plane (V, 2, columns).
        square: squared length of a column's rays from source to detector in the (x, y) plane (V, columns), mm^2.
        height: z of the source, and `h0, h1` of `D_z - S_z = h0 + h1 l` (V, 3).
        inverse: numerator and denominator of k as functions of (y, x, 1) (V, 2, 3).
        reach: half width in columns of the shadow of two voxels (V, 2).
        active: whether the driving axis has rays in this view (V, 2), bool.
    """

    middle: np.ndarray
    slope: np.ndarray
    fraction: np.ndarray
    step: np.ndarray
    square: np.ndarray
    height: np.ndarray
    inverse: np.ndarray
    reach: np.ndarray
    active: np.ndarray


class VectorTables(NamedTuple):
    """Tables of views with any detector; linear forms in (1, k, l) have three coefficients on the last axis.

    Attributes:
        direction: forms of `D - S` along (z, y, x) (V, 3, 3).
        moment: forms of `S_o d_a - S_a d_o` for driving axis a and the two others o (V, 3, 2, 3).
        compared: forms of (D - S) in integers that choose the driving axis (V, 3, 3), of (1, 2 k, 2 l).
        inverse: numerators of k and l and their denominator t as functions of (z, y, x, 1) (V, 3, 4).
        reach: half widths in columns and rows of the shadow of two by two voxels (V, 3, 2).
        active: whether the driving axis has rays in this view (V, 3), bool.
    """

    direction: np.ndarray
    moment: np.ndarray
    compared: np.ndarray
    inverse: np.ndarray
    reach: np.ndarray
    active: np.ndarray


class Rays(NamedTuple):
    """A geometry in voxel units: what both kinds of table are made of.

    Attributes:
        source: S (V, 3).
        direction, compared, inverse: as in `VectorTables`.
        shape: (nz, ny, nx) of the volume.
        rows, columns: of the detector.
    """

    source: np.ndarray
    direction: np.ndarray
    compared: np.ndarray
    inverse: np.ndarray
    shape: tuple
    rows: int
    columns: int


def rays(geometry: Vector, grid: VolumeGrid) -> Rays:
    """Converts a geometry to voxel units.

    Args:
        geometry: the acquisition in mm.
        grid: voxels of the volume.
    """
    source, centre, u, v = np.moveaxis(geometry.vectors[..., ::-1] / np.array(grid.spacing), 1, 0)
    direction = np.stack([centre - source, u, v], -1)
    solve = np.linalg.inv(direction[..., (1, 2, 0)])
    inverse = np.concatenate([solve, -solve @ source[..., None]], -1)
    half = np.array([1.0, geometry.columns / 2, geometry.rows / 2])
    largest = np.max(np.sum(np.abs(direction) * half, -1), -1)[:, None, None]
    # Integers compare alike in every program, so no ray changes its driving axis between A and its adjoint.
    compared = np.rint(direction * (1.0, 0.5, 0.5) * 2.0**29 / largest).astype(np.int32)
    return Rays(source, direction, compared, inverse, grid.shape, geometry.rows, geometry.columns)


def is_separable(r: Rays) -> bool:
    """Whether detector columns are parallel to z, rows normal to it, and no ray is driven by z."""
    along = np.abs(r.direction)
    scale = 1e-12 * along.max((1, 2))
    straight = (along[:, 0, 1] <= scale).all() and (along[:, 1:, 2] <= scale[:, None]).all()
    k, l = _doubled(r.columns), _doubled(r.rows)[[0, -1]]
    z, y, x = (_compared(r, a, k[:, None], l) for a in range(3))
    return bool(straight and np.all(np.abs(z) <= np.maximum(np.abs(y), np.abs(x))))


def separable_tables(r: Rays, spacing) -> tuple[SeparableTables, tuple[int, int]]:
    """Builds the tables of a separable geometry.

    Args:
        r: the rays, for which `is_separable` holds.
        spacing: (dz, dy, dx), mm.

    Returns:
        (tables, largest number of columns and of rows whose rays weigh one voxel in one plane).
    """
    k, doubled = np.arange(r.columns) - (r.columns - 1) / 2, _doubled(r.columns)
    d = r.direction[:, 1:, :1] + r.direction[:, 1:, 1:2] * k
    y_leads = np.abs(_compared(r, 1, doubled, 0)) >= np.abs(_compared(r, 2, doubled, 0))
    driven = np.stack([y_leads, ~y_leads], 1)
    step = np.where(driven, 1 / np.where(driven, d, 1.0), 0.0)
    across, source = r.source[:, 1:, None], r.source[:, :0:-1, None]
    middle = np.where(driven, source - across * d[:, ::-1] * step, _ASIDE)
    fraction = np.where(driven, -across * step, 1.0)
    square = np.sum((d * np.asarray(spacing)[1:, None]) ** 2, 1)
    height = np.stack([r.source[:, 0], r.direction[:, 0, 0], r.direction[:, 0, 2]], -1)
    active = driven.any(-1)
    moves = np.eye(3)[[2, 1]]
    reach = np.stack([shadow_reach(r, 0, [move]) for move in moves], 1) * active
    taps_v = most_taps((1 / (_nearest(r) * np.abs(height[:, 2]))).max())
    inverse = r.inverse[:, (0, 2), 1:]
    tables = SeparableTables(
        middle, d[:, ::-1] * step, fraction, step, square, height, inverse, reach, active
    )
    return tables, (most_taps(reach.max()), taps_v)


def vector_tables(r: Rays) -> tuple[VectorTables, tuple[int, int]]:
    """Builds the tables of any geometry.

    Args:
        r: the rays.

    Returns:
        (tables, largest number of columns and of rows whose rays weigh one voxel in one plane).
    """
    s, d = r.source[..., None], r.direction
    moment = np.stack([
        np.stack([s[:, o] * d[:, a] - s[:, a] * d[:, o] for o in OTHERS[a]], 1) for a in range(3)
    ], 1)  # fmt: skip
    active = np.stack([_drives(r, v) for v in range(len(s))])
    unit = np.eye(3)
    squares = [[unit[p] + unit[q], unit[p] - unit[q]] for p, q in OTHERS]
    reach = np.stack([np.stack([shadow_reach(r, n, moves) for n in (0, 1)], -1) for moves in squares], 1)
    reach = reach * active[..., None]
    taps = most_taps(reach[..., 0].max()), most_taps(reach[..., 1].max())
    return VectorTables(d, moment, r.compared, r.inverse, reach, active), taps


def corner_depths(r: Rays) -> np.ndarray:
    """Computes t at the corners of the volume, one voxel beyond its outer centres (V, 8).

    It is 0 in the plane through the source parallel to the detector, and 1 on the detector.
    """
    return _at(r.inverse[:, 2], _corners(r.shape, 1.0))


def corner_pixels(r: Rays) -> np.ndarray:
    """Computes (k, l) of the corners of the volume on the detector (V, 8, 2), in pixels from its middle."""
    corners = _corners(r.shape, 0.5)
    return (
        np.stack([_at(r.inverse[:, n], corners) for n in (0, 1)], -1)
        / _at(r.inverse[:, 2], corners)[..., None]
    )


def _corners(shape, margin):
    ends = [((n - 1) / 2 + margin) * np.array([-1.0, 1.0]) for n in shape]
    return np.stack(np.meshgrid(*ends, indexing="ij"), -1).reshape(-1, 3)


def _at(form, points):
    """Evaluates forms (V, 4) at points (..., 3): (V, ...)."""
    return form[:, :3] @ points.reshape(-1, 3).T + form[:, 3:]


def _nearest(r):
    return corner_depths(r).min(1)


def _doubled(size):
    return 2 * np.arange(size) - (size - 1)


def _compared(r, axis, k, l):
    """The integer form of one component at doubled pixel positions, (V, *shape of k and l)."""
    form = r.compared[:, axis].astype(np.int64).reshape(-1, 3, *[1] * np.ndim(k + l))
    return form[:, 0] + form[:, 1] * k + form[:, 2] * l


def _drives(r, view):
    """Which axes drive some ray of one view (3,): y before x before z where they tie."""
    one = r._replace(compared=r.compared[view : view + 1])
    z, y, x = (np.abs(_compared(one, a, _doubled(r.columns), _doubled(r.rows)[:, None])) for a in range(3))
    by_y, by_x = (y >= x) & (y >= z), (x > y) & (x >= z)
    return np.array([not np.all(by_y | by_x), by_y.any(), by_x.any()])


def most_taps(half_width):
    """Returns how many integers lie within a half width of a position, at most."""
    return int(np.floor(2 * half_width + 2 * SLACK)) + 1


def shadow_reach(r, coordinate, moves, cells=4):
    """Bounds how far k (coordinate 0) or l (1) of a voxel shifts when it moves by `+-move` (V,).

    `k(X + e) - k(X) = (num(e) den(X) - num(X) den(e)) / (den(X) den(X + e))`: the numerator is linear in X, so in
    each cell of the volume it is largest, and the denominators smallest, at a corner.
    """
    parts = [(n - 1) / 2 * np.linspace(-1, 1, cells + 1) for n in r.shape]
    grid = np.stack(np.meshgrid(*parts, indexing="ij"), -1)
    num, den = (_at(r.inverse[:, n], grid).reshape(-1, *grid.shape[:3]) for n in (coordinate, 2))
    shifts = []
    for move in moves:
        for e in (move, -move):
            num_e, den_e = (r.inverse[:, n, :3] @ e for n in (coordinate, 2))
            num_e, den_e = num_e[:, None, None, None], den_e[:, None, None, None]
            top = _over_cells(np.abs(num_e * den - num * den_e), np.maximum)
            shifts.append(top / (_over_cells(den, np.minimum) * _over_cells(den + den_e, np.minimum)))
    return np.stack(shifts).max((0, 2, 3, 4))


def _over_cells(values, reduce):
    """Reduces values at grid points (V, c, c, c) over the corners of each cell."""
    for axis in (1, 2, 3):
        lower, upper = (np.take(values, range(i, values.shape[axis] - 1 + i), axis) for i in (0, 1))
        values = reduce(lower, upper)
    return values

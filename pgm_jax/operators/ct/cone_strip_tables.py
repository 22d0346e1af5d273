"""Host tables of the separable footprint, in voxel units about the centre of the volume; see `cone_tables`."""

from typing import NamedTuple

import numpy as np

from pgm_jax.operators.ct.cone_tables import Rays, corner_depths, most_taps, separable_tables, shadow_reach

# Steepest slope of the edge of a beam whose middle has a slope of 1 at most.
_STEEPEST = 2.0


class StripTables(NamedTuple):
    """Tables of the separable footprint; those that it has in common with `SeparableTables` are the same.

    Attributes:
        middle, slope, square, height, inverse, active: as in `SeparableTables`.
        window: half width in voxels of the beam of a column where it crosses a plane (V, 2).
        reach: half width in columns of the window of beams that share a voxel (V,).
        area: factor of a share of a voxel's square in the line integral per mm from source to pixel (V,).
    """

    middle: np.ndarray
    slope: np.ndarray
    square: np.ndarray
    height: np.ndarray
    inverse: np.ndarray
    active: np.ndarray
    window: np.ndarray
    reach: np.ndarray
    area: np.ndarray


def strip_tables(r: Rays, spacing) -> tuple[StripTables, tuple[int, int, int, int]]:
    """Builds the tables of the separable footprint.

    Args:
        r: the rays, for which `is_separable` holds.
        spacing: (dz, dy, dx), mm.

    Returns:
        (tables, taps): how many columns and rows share a voxel at most, and how many voxels across and along z a
        beam meets in a plane.

    Raises:
        ValueError: if a column is so wide that the edges of its beam have nothing of its middle's direction.
    """
    t, _ = separable_tables(r, spacing)
    window = _windows(r, t)
    half = np.eye(3)[1:] / 2
    reach = 0.5 + shadow_reach(r, 0, [half[0] + half[1], half[0] - half[1]])
    nearest, farthest = (reduce(corner_depths(r), 1) for reduce in (np.min, np.max))
    rise = np.abs(t.height[:, 2])
    dy, dx = spacing[1:]
    along, across = r.direction[:, 1] * dy, r.direction[:, 2] * dx
    # The pitch of columns times the distance of the detector from the source.
    spanned = np.abs(along[:, 0] * across[:, 1] - across[:, 0] * along[:, 1])
    taps = reach.max(), (0.5 + 0.5 / (nearest * rise)).max(), window.max(), (0.5 + farthest * rise / 2).max()
    tables = StripTables(
        t.middle, t.slope, t.square, t.height, t.inverse, t.active, window, reach, dy * dx / spanned
    )
    return tables, tuple(most_taps(half_width) for half_width in taps)


def _windows(r, t):
    """Computes the half width of the widest beam about its middle, in voxels, where it crosses planes (V, 2)."""
    edges = np.arange(r.columns + 1) - r.columns / 2
    d = r.direction[:, 1:, :1] + r.direction[:, 1:, 1:2] * edges
    windows = []
    for axis, planes in enumerate(r.shape[1:]):
        driven, half = t.step[:, axis] != 0, 0.0
        for side in (slice(-1), slice(1, None)):
            with np.errstate(divide="ignore", invalid="ignore"):
                slope = np.where(driven, d[:, 1 - axis, side] / d[:, axis, side], 0.0)
            if not np.abs(slope).max() <= _STEEPEST:
                raise ValueError(
                    f"the strip footprint needs narrower columns: one of the {r.columns} spans too wide an angle; "
                    "use more columns or footprint='joseph'"
                )
            for end in (-(planes - 1) / 2, (planes - 1) / 2):
                edge = r.source[:, 2 - axis, None] + (end - r.source[:, 1 + axis, None]) * slope
                apart = np.abs(edge - t.middle[:, axis] - end * t.slope[:, axis])
                half = np.maximum(half, np.where(driven, apart + (1 + np.abs(slope)) / 2, 0.0).max(1))
        windows.append(half)
    return np.stack(windows, 1)

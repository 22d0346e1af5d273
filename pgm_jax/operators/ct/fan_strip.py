"""The exact-area strip projector of a fan beam, whose beams widen and lean differently at their two edges."""

from functools import partial

import jax.numpy as jnp
import numpy as np

from pgm_jax.operators.ct.driving import (
    ROWS_TOGETHER,
    Driven,
    crossing,
    crossing_tables,
    drive,
    group,
    project,
)
from pgm_jax.operators.ct.gather import gather_sum
from pgm_jax.operators.ct.geometry import Fan, ImageGrid, Lines
from pgm_jax.operators.ct.strip import one_side, sides, trapezoid


def bin_scale(grid: ImageGrid, geometry: Fan) -> np.ndarray:
    """Computes the factor (bins,) that turns a share of a pixel's area into a mean length over the bin.

    The mean over a bin of line integrals is `1 / spacing sum (area) rho`, with `rho = F / (d cos g)` on a flat
    detector and `F cos g / d` on an arc, at fan angle g and depth d along the central ray. The factor 1 / d stays
    with the pixel.
    """
    cos = np.cos(geometry.fan_angles(np.arange(geometry.bins)))
    per_bin = geometry.source_to_detector * (1 / cos if geometry.detector == "flat" else cos)
    return np.prod(grid.spacing) / geometry.spacing * per_bin


def forward_tables(grid: ImageGrid, geometry: Fan, used, sizes=None) -> tuple[tuple, int]:
    """Computes the host tables of `forward`, and how many columns a beam covers in a row at most.

    Args:
        grid: image grid.
        geometry: fan geometry.
        used: (views,), 0 for a view that only pads a subset.
        sizes: padded sizes of the two groups of beams.

    Returns:
        (tables, reach).

    Raises:
        ValueError: if a bin of a fan is so wide that its edges have nothing of its centre's direction.
    """
    edges = np.arange(geometry.bins + 1) - 0.5
    middles = geometry.lines(np.arange(geometry.bins))
    by_rows = drive(grid, middles).by_rows
    lines = geometry.lines(edges)
    edge_lines = [drive(grid, Lines(*(v[:, e] for v in lines)), by_rows) for e in (slice(-1), slice(1, None))]
    if max(np.abs(edge.slope).max() for edge in edge_lines) > 2:
        raise ValueError(
            f"the strip footprint needs narrower bins: one of the {geometry.bins} spans too wide an angle; "
            "use more bins or footprint='joseph'"
        )
    left, right = _in_order(*edge_lines, np.where(by_rows, middles.x, middles.y))
    scale = np.broadcast_to(bin_scale(grid, geometry), by_rows.shape) * used[:, None]
    tables = (*crossing_tables(grid, left), *crossing_tables(grid, right))
    rows, columns, order = group(by_rows, (*tables, *_depths(grid, geometry, by_rows), scale), sizes)
    return (*rows, *columns, order), _reach(grid, left, right)


def _in_order(first, second, across):
    """Exchanges the edges of beams whose first edge lies to the right, in front of the source.

    The lines of a fan turn about the source, so the normal's part across the driving axis tells the order. Where
    they cross the middle row does not: of steep rays in a wide fan that may be behind the source.
    """
    swap = across < 0
    starts = np.where(swap, second.start, first.start), np.where(swap, first.start, second.start)
    slopes = np.where(swap, second.slope, first.slope), np.where(swap, first.slope, second.slope)
    return [Driven(first.by_rows, start, slope) for start, slope in zip(starts, slopes, strict=True)]


def _reach(grid, left, right):
    """Returns the largest number of columns that one beam touches in one row."""
    ny, nx = grid.shape
    n = np.where(left.by_rows, ny, nx)
    margin = [sum(sides(1.0, np.abs(side.slope))) / 2 for side in (left, right)]
    widest = 0.0
    for i in (-(n // 2), n - 1 - n // 2):
        columns = [side.start + side.slope * i for side in (left, right)]
        low = np.minimum(columns[0] - margin[0], columns[1] - margin[1])
        high = np.maximum(columns[0] + margin[0], columns[1] + margin[1])
        widest = max(widest, float((high - low).max()))
    return int(np.ceil(widest - 1e-9))


def _depths(grid, geometry, by_rows):
    """Returns three tables: the depth of pixel (i, j), i from the middle row, is `first + i second + j third`."""
    (ny, nx), (dy, dx) = grid.shape, grid.spacing
    c, s = np.cos(geometry.angles)[:, None] * dx, np.sin(geometry.angles)[:, None] * dy
    along, across = np.where(by_rows, s, c), np.where(by_rows, c, s)
    n_along, n_across = np.where(by_rows, ny, nx), np.where(by_rows, nx, ny)
    first = geometry.source_to_axis + across * (n_across - 1) / 2 - along * (n_along // 2 - (n_along - 1) / 2)
    return first, -along, -across


def forward(tables, x, *, reach):
    """Computes `y_r = c_r sum_ij (share of pixel (i, j) in beam r) x_ij / d_ij`, d the depth of the pixel.

    Args:
        tables: `forward_tables`, as arrays.
        x: image (height, width, slices).
        reach: number of columns that a beam touches in a row, at most.

    Returns:
        Projections (views, bins, slices), in units of x times mm.
    """
    return project(tables, x, partial(_walk, reach=reach))


def _walk(tables, x, *, reach):
    left, right, (depth, along, across, scale) = tables[:4], tables[4:8], tables[8:]
    slopes = [jnp.abs(edge[2] + edge[3]) for edge in (left, right)]
    shapes = [trapezoid(*sides(jnp.ones_like(slope), slope)) for slope in slopes]
    n = x.shape[0]

    def locate(i):
        (first, u), (second, v) = crossing(left, i), crossing(right, i)
        v = v + (second - first).astype(x.dtype)
        low = jnp.floor(jnp.minimum(u - shapes[0][1], v - shapes[1][1]))
        column = first + low.astype(jnp.int32)
        shares = []
        for m in range(1, reach + 1):
            share = one_side(v - low - m, shapes[1]) - one_side(u - low - m, shapes[0])
            shares.append(share / (depth + i * along + (column + m).astype(x.dtype) * across))
        return column + 2, shares

    rows = jnp.pad(x, ((0, 0), (1, 1), (0, 0)))
    steps = jnp.arange(n, dtype=x.dtype) - n // 2
    total = gather_sum(locate, steps, rows, scale.shape, together=ROWS_TOGETHER)
    return scale[:, None] * total

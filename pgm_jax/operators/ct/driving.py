"""Rays sorted by driving axis, and the walk along it that every two-dimensional projector shares.

A ray is sampled once in each row if it crosses more rows than columns (it is driven by rows), else once in each
column of the image, which is then the transposed problem. Positions `start + slope i` are needed to 1e-7 pixel
while float32 resolves 3e-5 at 512, so both terms are stored as an exact part and a small remainder.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from pgm_jax.operators.ct.geometry import ImageGrid, Lines

# Rays a group are a multiple of this, for the sake of vector units.
_LANES = 16
# Rows that a walk takes at once where a row alone is too short a step for two threads.
ROWS_TOGETHER = 8


class Driven(NamedTuple):
    """Lines in pixel units: row-driven line r crosses row i at column `start_r + slope_r (i - n // 2)`.

    Attributes:
        by_rows: whether the line is driven by rows; otherwise rows and columns are exchanged.
        start: crossing of the middle row (column), in columns (rows).
        slope: step from row to row.
    """

    by_rows: np.ndarray
    start: np.ndarray
    slope: np.ndarray


def drive(grid: ImageGrid, lines: Lines, by_rows=None) -> Driven:
    """Computes where lines cross the rows, or the columns, of an image.

    Args:
        grid: image grid.
        lines: lines of any shape.
        by_rows: driving axis of each line; by default the one along which it crosses more pixels.

    Returns:
        `Driven` of arrays shaped like the lines.
    """
    (ny, nx), (dy, dx) = grid.shape, grid.spacing
    a, b = lines.x * dx, lines.y * dy
    by_rows = np.abs(a) >= np.abs(b) if by_rows is None else by_rows
    across, along = np.where(by_rows, a, b), np.where(by_rows, b, a)
    n_across, n_along = np.where(by_rows, nx, ny), np.where(by_rows, ny, nx)
    # Only an axis from the caller, who checks the slope, can lie along a ray.
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = -along / across
        start = lines.t / across + (n_across - 1) / 2 + slope * (n_along // 2 - (n_along - 1) / 2)
    return Driven(by_rows, start, slope)


def split_index(values) -> tuple[np.ndarray, np.ndarray]:
    """Splits positions into int32 and a fraction in [0, 1)."""
    whole = np.floor(values)
    return whole.astype(np.int32), values - whole


def split_float(values, largest) -> tuple[np.ndarray, np.ndarray]:
    """Splits v into `high + low` such that `high i` is exact in float32 for integers i with `|v i| <= largest`."""
    quantum = 2.0 ** (np.ceil(np.log2(max(largest, 1))) - 23)
    high = np.round(values / quantum) * quantum
    return high, values - high


def crossing_tables(grid: ImageGrid, driven: Driven) -> tuple:
    """Returns the four tables that `crossing` needs, (whole, fraction, slope high, slope low)."""
    # Slopes of rays stay below 1, those of the edges of a strip below 2.
    return *split_index(driven.start), *split_float(driven.slope, 2 * max(grid.shape))


def crossing(tables, i):
    """Computes the columns at which rays cross row i as (int32, remainder), the remainder within a few units.

    Args:
        tables: the four tables of `crossing_tables`, (rays,) each.
        i: row counted from the middle row, a floating scalar.

    Returns:
        (whole (rays,), remainder (rays,)); their sum is exact to about 1e-7.
    """
    whole, fraction, high, low = tables
    product = high * i
    floor = jnp.floor(product)
    return whole + floor.astype(jnp.int32), (product - floor) + (fraction + low * i)


def group(by_rows, columns, sizes=None) -> tuple[tuple, tuple, np.ndarray]:
    """Sorts rays into those driven by rows and by columns, padded with zeros.

    Args:
        by_rows: (views, bins) bool.
        columns: tables, (views, bins) each.
        sizes: rays of the two padded groups; the least multiples of 16 by default.

    Returns:
        (tables of the rays by rows, those by columns, order): the tables are (rays,) each, and entry (view, bin)
        of order, int32, is the place of that ray in the two groups together.
    """
    masks = by_rows, ~by_rows
    if sizes is None:
        sizes = group_sizes(by_rows)
    order = np.zeros(by_rows.shape, np.int32)
    groups = []
    for mask, size, first in zip(masks, sizes, (0, sizes[0]), strict=True):
        count = int(mask.sum())
        order[mask] = first + np.arange(count, dtype=np.int32)
        groups.append(tuple(np.pad(column[mask], (0, size - count)) for column in columns))
    return groups[0], groups[1], order


def group_sizes(by_rows) -> tuple[int, int]:
    """Returns the padded number of rays driven by rows and by columns."""
    counts = int(by_rows.sum()), int((~by_rows).sum())
    return tuple(-(-count // _LANES) * _LANES for count in counts)


def project(tables, x, walk):
    """Projects an image along both groups of rays and puts the results in order.

    Args:
        tables: tables of the rays by rows, as many of the rays by columns, and their order.
        x: image (height, width, slices).
        walk: function of (tables of a group, image with the driving axis first) that returns (rays, slices).

    Returns:
        Projections (views, bins, slices).
    """
    half = (len(tables) - 1) // 2
    rows, columns, order = tables[:half], tables[half:-1], tables[-1]
    parts = [walk(rows, x), walk(columns, x.swapaxes(0, 1))]
    return jnp.concatenate(parts)[order]

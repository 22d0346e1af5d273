"""The exact-area strip projector: a bin sees each pixel by the area that the pixel shares with the bin's beam.

The part of a pixel on one side of a line with normal n, at distance N from its centre, is the distribution function
at N of the sum of two uniform variables of widths `|n_x| dx` and `|n_y| dy`, a trapezoid. What a bin has of a pixel
is the difference between the edges of the bin, or just as well, in a parallel beam, between the sides of the pixel.

Source: Y. Long, J. A. Fessler, J. M. Balter, 3D forward and back-projection for X-ray CT using separable
footprints, IEEE TMI 29 (2010), the exact case of two dimensions.
"""

from functools import partial

import jax.numpy as jnp
import numpy as np

from pgm_jax.core import namespace
from pgm_jax.operators.ct.driving import ROWS_TOGETHER, crossing, crossing_tables, drive, group, project
from pgm_jax.operators.ct.gather import gather_sum
from pgm_jax.operators.ct.geometry import ImageGrid, Parallel
from pgm_jax.operators.ct.joseph import path_lengths

# One side of a pixel is taken as at least this part of the other, so that no flank is a jump.
_FLANK = 1e-6


def sides(first, second) -> tuple:
    """Returns the two sides of a pixel as seen along a line, neither less than 1e-6 of the other."""
    xp = namespace(first, second)
    least = _FLANK * xp.maximum(first, second)
    return xp.maximum(first, least), xp.maximum(second, least)


def trapezoid(first, second) -> tuple:
    """Returns the shape `(half plateau, half support, 1 / wide, 1 / (2 narrow))` of a sum of two uniform variables.

    Args:
        first: width of the one, > 0.
        second: width of the other, > 0.

    Returns:
        Tuple of arrays for `one_side`.
    """
    wide, narrow = jnp.maximum(first, second), jnp.minimum(first, second)
    return (wide - narrow) / 2, (wide + narrow) / 2, 1 / wide, 0.5 / narrow


def one_side(distance, shape):
    """Computes the distribution function of a trapezoid at a distance from its centre, less 1/2."""
    plateau, support, per_wide, per_narrow = shape
    inside = jnp.clip(distance, -support, support)
    flank = inside - jnp.clip(inside, -plateau, plateau)
    return per_wide * (inside - flank * jnp.abs(flank) * per_narrow)


def part_beyond(distance, first, second):
    """Computes `one_side` of sides that differ from pixel to pixel, with one division.

    Args:
        distance: from the centre, in the unit of the sides.
        first: width of the one side, >= 0.
        second: width of the other, >= 0; not both are 0.

    Returns:
        Array in [-1/2, 1/2].
    """
    wide = jnp.maximum(first, second)
    narrow = jnp.maximum(jnp.minimum(first, second), _FLANK * wide)
    support, plateau = (wide + narrow) / 2, (wide - narrow) / 2
    inside = jnp.clip(distance, -support, support)
    flank = inside - jnp.clip(inside, -plateau, plateau)
    return (2 * narrow * inside - flank * jnp.abs(flank)) / (2 * wide * narrow)


def forward_tables(grid: ImageGrid, geometry: Parallel, used, sizes=None) -> tuple[tuple, int]:
    """Computes the host tables of `forward`, and how many columns a beam covers in a row at most.

    Args:
        grid: image grid.
        geometry: parallel geometry.
        used: (views,), 0 for a view that only pads a subset.
        sizes: padded sizes of the two groups of beams.

    Returns:
        (tables, reach).
    """
    lines = geometry.lines(np.arange(geometry.bins))
    driven, lengths = drive(grid, lines), path_lengths(grid, lines)
    # Columns that a beam spans: spacing over |n_x| dx.
    width = geometry.spacing * lengths / np.prod(grid.spacing)
    tables = (*crossing_tables(grid, driven), width, lengths * used[:, None])
    rows, columns, order = group(driven.by_rows, tables, sizes)
    reach = 1 + (width + np.maximum(np.abs(driven.slope), _FLANK)).max()
    return (*rows, *columns, order), int(np.ceil(reach - 1e-9))


def forward(tables, x, *, reach):
    """Computes `y_r = l_r sum_ij (G(u_i + 1/2 - j) - G(u_i - 1/2 - j)) x_ij`, u_i where ray r crosses row i.

    G is the distribution function of the sum of two uniform variables, of the width of the beam in columns and of
    the ray's step from row to row; l is the path length in a row.

    Args:
        tables: `forward_tables`, as arrays.
        x: image (height, width, slices).
        reach: number of columns that a beam touches in a row, at most.

    Returns:
        Projections (views, bins, slices), in units of x times mm.
    """
    return project(tables, x, partial(_walk, reach=reach))


def _walk(tables, x, *, reach):
    *positions, width, lengths = tables
    _, slope = sides(jnp.ones_like(width), jnp.abs(positions[2] + positions[3]))
    shape = trapezoid(width, slope)
    n = x.shape[0]

    def locate(i):
        whole, u = crossing(positions, i)
        low = jnp.floor(u - shape[1] - 0.5)
        sides = [one_side(u - low - (m - 0.5), shape) for m in range(1, reach + 2)]
        # Rounding may make a share -1e-17, which a system of counts must not have.
        shares = [jnp.maximum(left - right, 0) for left, right in zip(sides, sides[1:], strict=False)]
        return whole + low.astype(jnp.int32) + 2, shares

    rows = jnp.pad(x, ((0, 0), (1, 1), (0, 0)))
    steps = jnp.arange(n, dtype=x.dtype) - n // 2
    total = gather_sum(locate, steps, rows, lengths.shape, together=ROWS_TOGETHER)
    return lengths[:, None] * total

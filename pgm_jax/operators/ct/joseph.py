"""Joseph's projector: a ray is sampled once in every row, or column, with linear interpolation.

Source: P. M. Joseph, An improved algorithm for reprojecting rays through pixel images, IEEE TMI 1 (1982).
"""

import jax.numpy as jnp
import numpy as np

from pgm_jax.operators.ct.driving import ROWS_TOGETHER, crossing, crossing_tables, drive, group, project
from pgm_jax.operators.ct.gather import gather_sum
from pgm_jax.operators.ct.geometry import ImageGrid


def path_lengths(grid: ImageGrid, lines) -> np.ndarray:
    """Computes the length of each line within one row (column) of its driving axis, mm."""
    dy, dx = grid.spacing
    return dx * dy / np.maximum(np.abs(lines.x) * dx, np.abs(lines.y) * dy)


def forward_tables(grid: ImageGrid, geometry, used, sizes=None) -> tuple:
    """Computes the host tables of `forward`.

    Args:
        grid: image grid.
        geometry: `Parallel` or `Fan`.
        used: (views,), 0 for a view that only pads a subset.
        sizes: padded sizes of the two groups of rays.

    Returns:
        Tuple of numpy arrays, for `driving.project`.
    """
    lines = geometry.lines(np.arange(geometry.bins))
    driven = drive(grid, lines)
    lengths = path_lengths(grid, lines) * used[:, None]
    rows, columns, order = group(driven.by_rows, (*crossing_tables(grid, driven), lengths), sizes)
    return *rows, *columns, order


def forward(tables, x):
    """Computes `y_r = l_r sum_i [(1 - f) x[i, j] + f x[i, j + 1]]`, `j + f` where ray r crosses row i.

    Args:
        tables: `forward_tables`, as arrays.
        x: image (height, width, slices).

    Returns:
        Projections (views, bins, slices), in units of x times mm.
    """
    return project(tables, x, _walk)


def _walk(tables, x):
    *positions, lengths = tables
    n = x.shape[0]

    def locate(i):
        whole, f = crossing(positions, i)
        carry = jnp.floor(f)
        return whole + (carry.astype(jnp.int32) + 1), [1 - (f - carry), f - carry]

    rows = jnp.pad(x, ((0, 0), (1, 2), (0, 0)))
    steps = jnp.arange(n, dtype=x.dtype) - n // 2
    total = gather_sum(locate, steps, rows, lengths.shape, together=ROWS_TOGETHER)
    return lengths[:, None] * total

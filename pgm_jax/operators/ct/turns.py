"""Scans that a quarter turn maps onto themselves: a quarter of the views, of four turned images.

The view at angle `b + pi / 2` of an image is the view at b of the image turned back by a quarter. So where the
pixels are square, and the views of the four quarters of a scan differ by quarter turns, one set of weights serves
four views: the turned images are projected together, like slices. The result is that of the views one by one, to
rounding.
"""

import jax
import jax.numpy as jnp
import numpy as np

_QUARTERS = 4
# From this many slices on the slices alone fill the vector units; turned images are then projected one by one.
_MANY = 4
# Views are taken for turned ones if they differ by less, radians: 1e-8 of a pixel at a distance of 10 000.
_ROUNDING = 1e-12


def quarter_turn(grid, angles) -> int:
    """Returns by how many quarter turns, 1 or -1, each quarter of the views follows the one before it, or 0.

    Args:
        grid: image grid.
        angles: (..., views), radians; sets of views that shall all agree.
    """
    (ny, nx), (dy, dx), views = grid.shape, grid.spacing, angles.shape[-1]
    if ny != nx or dy != dx or views % _QUARTERS:
        return 0
    quarters = angles.reshape(-1, _QUARTERS, views // _QUARTERS)
    steps = np.arange(_QUARTERS)[:, None] * np.pi / 2
    for sign in (1, -1):
        excess = quarters - quarters[:, :1] - sign * steps
        if np.abs(excess - 2 * np.pi * np.round(excess / (2 * np.pi))).max() < _ROUNDING:
            return sign
    return 0


def first_quarter(views, turn):
    """Returns the views (..., views) for which tables are built: all of them without a quarter turn."""
    return views[..., : views.shape[-1] // _QUARTERS] if turn else views


def turned(forward, adjoint):
    """Makes the maps of a whole scan from those of its first quarter.

    Args:
        forward: function of (tables, x, **static), x an image (height, width, slices).
        adjoint: function of (tables, y, **static), y projections (views, bins, slices).

    Returns:
        (forward, adjoint) with one more keyword, `turn`: 1, -1, or 0 for tables of all views.
    """

    def every(tables, x, *, turn, **static):
        if turn == 0:
            return forward(tables, x, **static)
        if x.shape[-1] < _MANY:
            images = jnp.stack([jnp.rot90(x, turn * r) for r in range(_QUARTERS)], axis=-1)
            y = forward(tables, images.reshape(*x.shape[:2], -1), **static)
            y = jnp.moveaxis(y.reshape(*y.shape[:2], x.shape[-1], _QUARTERS), -1, 0)
        else:
            y = jax.lax.map(lambda r: forward(tables, _turn(x, turn * r), **static), jnp.arange(_QUARTERS))
        return y.reshape(-1, *y.shape[2:])

    def total(tables, y, *, turn, **static):
        if turn == 0:
            return adjoint(tables, y, **static)
        quarters = y.reshape(_QUARTERS, -1, *y.shape[1:])
        if y.shape[-1] < _MANY:
            together = jnp.moveaxis(quarters, 0, -1)
            x = adjoint(tables, together.reshape(*together.shape[:2], -1), **static)
            x = x.reshape(*x.shape[:2], y.shape[-1], _QUARTERS)
            return sum(jnp.rot90(x[..., r], -turn * r) for r in range(_QUARTERS))

        def add(x, quarter):
            r, part = quarter
            return x + _turn(adjoint(tables, part, **static), -turn * r), None

        size = jax.eval_shape(lambda part: adjoint(tables, part, **static), quarters[0])
        return jax.lax.scan(add, jnp.zeros(size.shape, size.dtype), (jnp.arange(_QUARTERS), quarters))[0]

    return every, total


def _turn(x, quarters):
    turns = [lambda x, r=r: jnp.rot90(x, r) for r in range(_QUARTERS)]
    return jax.lax.switch(quarters % _QUARTERS, turns, x)

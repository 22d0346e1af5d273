"""Rotation of images about their centre by bilinear interpolation, with an exact adjoint by gathers alone.

Both directions evaluate the same hat weights. A rotation by three FFT shears would be unitary but rings, and
negative values would break the EM family.
"""

from itertools import product

import jax.numpy as jnp


def rotate(image, cosine, sine, grid):
    """Samples an image on a grid turned about its centre.

    Point (d, k) of the grid lies at t (cos, sin) + s (-sin, cos) of (x, y), with s and t its row and column
    counted from the middle of the grid, in pixels. Outside of the image it is 0.

    Args:
        image: (height, width, slices).
        cosine, sine: of the angle, real scalars.
        grid: (rows, columns) of the turned grid.

    Returns:
        Array (rows, columns, slices).
    """
    y, x = _image_position(*_points(grid, cosine.dtype), cosine, sine, grid, image.shape)
    total = jnp.zeros((*grid, image.shape[-1]), image.dtype)
    for row, column in product((0, 1), repeat=2):
        i, j = jnp.floor(y).astype(jnp.int32) + row, jnp.floor(x).astype(jnp.int32) + column
        total = total + _weighted(image, i, j, _hat(y - i) * _hat(x - j))
    return total


def rotate_adjoint(turned, cosine, sine, shape):
    """Computes the exact transpose of `rotate`.

    The points of the grid that read a pixel lie within one pixel of it along both image axes, so within
    sqrt(2) along the axes of the grid: nine candidates around the pixel hold them all.

    Args:
        turned: (rows, columns, slices).
        cosine, sine: of the angle, real scalars.
        shape: (height, width) of the image.

    Returns:
        Array (height, width, slices).
    """
    grid = turned.shape[:2]
    y, x = _points(shape, cosine.dtype)
    down, right = y - (shape[0] - 1) / 2, x - (shape[1] - 1) / 2
    depth = jnp.round(cosine * down - sine * right + (grid[0] - 1) / 2).astype(jnp.int32)
    lateral = jnp.round(cosine * right + sine * down + (grid[1] - 1) / 2).astype(jnp.int32)
    total = jnp.zeros((*shape, turned.shape[-1]), turned.dtype)
    for row, column in product((-1, 0, 1), repeat=2):
        d, k = depth + row, lateral + column
        at_y, at_x = _image_position(d, k, cosine, sine, grid, shape)
        total = total + _weighted(turned, d, k, _hat(at_y - y) * _hat(at_x - x))
    return total


def _points(shape, dtype):
    return jnp.arange(shape[0], dtype=dtype)[:, None], jnp.arange(shape[1], dtype=dtype)[None, :]


def _image_position(d, k, cosine, sine, grid, shape):
    """Returns the row and column of the image at point (d, k) of the turned grid."""
    s, t = d - (grid[0] - 1) / 2, k - (grid[1] - 1) / 2
    return sine * t + cosine * s + (shape[0] - 1) / 2, cosine * t - sine * s + (shape[1] - 1) / 2


def _hat(distance):
    return jnp.maximum(1 - jnp.abs(distance), 0.0)


def _weighted(array, i, j, weight):
    """Gathers `weight * array[i, j]`, 0 outside of the array."""
    height, width = array.shape[:2]
    inside = (i >= 0) & (i < height) & (j >= 0) & (j < width)
    i, j = jnp.clip(i, 0, height - 1), jnp.clip(j, 0, width - 1)
    return jnp.where(inside, weight, 0.0)[..., None] * array[i, j]

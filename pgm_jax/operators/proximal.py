"""Proximal maps and projections, `prox_f(v) = argmin_u f(u) + |u - v|^2 / 2`, of real and complex arrays.

Complex numbers count as vectors of two real components, so every map commutes with a change of phase. By Moreau,
`v = prox_f(v) + prox_f*(v)`: a shrinkage and the projection on the ball of the dual norm add up to the input.

Source: N. Parikh and S. Boyd, Proximal algorithms (2014), section 6.
"""

import jax.numpy as jnp

from pgm_jax.core import safe_divide


def root(square):
    """Computes the square root of real numbers >= 0, with derivative 0 at 0.

    Args:
        square: real array.

    Returns:
        Array like it.
    """
    positive = square > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1.0)), 0.0)


def magnitude(v, axis=None):
    """Computes `|v|`, or the Euclidean length `sqrt(sum |v|^2)` over an axis, with derivative 0 at 0.

    Args:
        v: real or complex array.
        axis: axis or axes of the vectors, or None for one number an entry.

    Returns:
        Real array, without the axis.
    """
    square = jnp.real(v) ** 2 + jnp.imag(v) ** 2 if jnp.iscomplexobj(v) else v**2
    return root(square if axis is None else jnp.sum(square, axis=axis))


def soft_threshold(v, threshold):
    """Computes `max(1 - threshold / |v|, 0) v`, the proximal map of `threshold sum |v|`.

    Args:
        v: real or complex array.
        threshold: number >= 0, or array that broadcasts against v.

    Returns:
        Array like v.
    """
    size = magnitude(v)
    return v * safe_divide(jnp.maximum(size - threshold, 0.0), size)


def group_shrink(v, threshold, axis: int = 0):
    """Computes `max(1 - threshold / ||v||_2, 0) v` vector by vector, the map of `threshold sum ||v||_2`.

    Args:
        v: real or complex array with the components of each vector along one axis.
        threshold: number >= 0, or array that broadcasts against v without that axis.
        axis: axis of the components.

    Returns:
        Array like v.
    """
    size = magnitude(v, axis)
    return v * jnp.expand_dims(safe_divide(jnp.maximum(size - threshold, 0.0), size), axis)


def project_discs(v, radius):
    """Projects every entry on the disc (for real v, the interval) `|v| <= radius`, the dual of `radius sum |v|`.

    Args:
        v: real or complex array.
        radius: number >= 0, or array that broadcasts against v.

    Returns:
        Array like v.
    """
    return v * safe_divide(radius, jnp.maximum(radius, magnitude(v)))


def project_balls(v, radius, axis: int = 0):
    """Projects every vector on the ball `||v||_2 <= radius`, the dual of isotropic total variation.

    Args:
        v: real or complex array with the components of each vector along one axis.
        radius: number >= 0, or array that broadcasts against v without that axis.
        axis: axis of the components.

    Returns:
        Array like v.
    """
    return v * jnp.expand_dims(safe_divide(radius, jnp.maximum(radius, magnitude(v, axis))), axis)


def shrink_singular_values(matrix, threshold):
    """Shrinks the singular values s to `max(s - threshold, 0)`, the map of `threshold` times the nuclear norm.

    Args:
        matrix: real or complex matrix, or a stack of them (..., rows, columns).
        threshold: number >= 0.

    Returns:
        Array like matrix.
    """
    left, values, right = jnp.linalg.svd(matrix, full_matrices=False)
    return jnp.matmul(left * jnp.maximum(values - threshold, 0.0)[..., None, :], right, precision="highest")

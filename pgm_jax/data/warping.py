"""Rotations, scalings and shifts of an image, by linear interpolation."""

import math

import jax
import jax.numpy as jnp

from pgm_jax.data.augment import Augmentation, _log_range, _spatial

# TensorFloat and bfloat16 products would move points by tenths of a pixel.
_EXACT = jax.lax.Precision.HIGHEST


def affine(rotation_degrees, scale_range=(1.0, 1.0), translation=0.0) -> Augmentation:
    """Rotates, scales and shifts an image about its centre; see `warp` for the interpolation.

    The angle is uniform in [-rotation_degrees, rotation_degrees], in 3-D about a uniform random axis; the
    scale is log-uniform, the shift uniform along each axis.

    Args:
        rotation_degrees: largest angle in degrees. Voxels count as cubes: resample anisotropic volumes first.
        scale_range: smallest and largest magnification.
        translation: largest shift along each axis, in pixels.

    Returns:
        `(key, x) -> x` of the same shape, for x (*spatial, channel) with two or three spatial axes.

    Raises:
        ValueError: if the scales are not positive and rising, or another bound is negative.
    """
    low, high = _log_range(scale_range, "affine: scale_range")
    if rotation_degrees < 0 or translation < 0:
        raise ValueError(f"affine: bounds {rotation_degrees} and {translation} must not be negative")

    def augment(key, x):
        dimensions = len(_spatial(x, "affine"))
        uniform_key, axis_key = jax.random.split(key)
        turn, share, *shift = jax.random.uniform(uniform_key, (2 + dimensions,), minval=-1.0)
        axis = jax.random.normal(axis_key, (3,)) if dimensions == 3 else None
        scale = jnp.exp(low + (high - low) * (1 + share) / 2)
        matrix = scale * rotation(math.radians(rotation_degrees) * turn, axis)
        return warp(x, matrix, translation * jnp.stack(shift))

    return augment


def rotation(angle, axis=None):
    """Builds the matrix that turns coordinates by an angle.

    In 2-D it turns the first axis towards the second. In 3-D it is Rodrigues' formula
    `R = I + sin(a) K + (1 - cos(a)) K^2`, K the cross-product matrix of the unit axis.

    Args:
        angle: scalar in radians.
        axis: (3,) axis of a rotation in space, of any length but 0; None is a rotation in the plane.

    Returns:
        (2, 2) or (3, 3) matrix.
    """
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    if axis is None:
        return jnp.stack([jnp.stack([cos, -sin]), jnp.stack([sin, cos])])
    axis = axis / jnp.linalg.norm(axis)
    cross = jnp.cross(axis[None, :], jnp.eye(3)).T
    return jnp.eye(3) + sin * cross + (1 - cos) * jnp.matmul(cross, cross, precision=_EXACT)


def warp(x, matrix, shift):
    """Moves every point p of an image to `matrix p + shift`, p counted from the centre (n - 1) / 2.

    Linear interpolation (`map_coordinates`, order 1); beyond the border the nearest pixel is repeated, which
    is right in any unit. Interpolating smooths: halfway between pixels an axis' highest frequency is lost
    and a frequency of f cycles a pixel keeps cos(pi f) of its amplitude, and white noise a half (2-D: a
    quarter) of its variance.

    Args:
        x: (*spatial, channel) image, real floating or complex.
        matrix: (d, d) invertible matrix over the d spatial axes, in pixels.
        shift: (d,) shift in pixels.

    Returns:
        Image of the same shape and dtype, differentiable in all three.

    Raises:
        ValueError: if x does not have two or three spatial axes.
    """
    spatial = _spatial(x, "warp")
    centre = (jnp.asarray(spatial, jnp.float32) - 1) / 2
    grid = jnp.stack(jnp.meshgrid(*map(jnp.arange, spatial), indexing="ij"), axis=-1)
    moved = grid - jnp.expand_dims(centre + shift, tuple(range(len(spatial))))
    points = jnp.einsum("ij,...j->i...", jnp.linalg.inv(matrix), moved, precision=_EXACT)
    points = list(points + jnp.expand_dims(centre, tuple(range(1, 1 + len(spatial)))))
    take = lambda channel: jax.scipy.ndimage.map_coordinates(channel, points, order=1, mode="nearest")
    return jax.vmap(take, in_axes=-1, out_axes=-1)(x)

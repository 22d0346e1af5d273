"""Halving and doubling of images of 1 to 3 dimensions, and space-to-depth.

Written with reshapes and shifted adds: XLA's grouped convolutions are far slower on CPU.
"""

import jax
import jax.numpy as jnp


def halve_average(x):
    """Halves every spatial axis by the mean of 2^dims voxels.

    Args:
        x: (b, *spatial, c), spatial sizes even.

    Returns:
        (b, *spatial / 2, c).
    """
    return jnp.mean(x.reshape(_paired(x.shape)), axis=tuple(range(2, 2 * x.ndim - 3, 2)))


def double_nearest(x):
    """Doubles every spatial axis by repetition: 2^dims times the adjoint of `halve_average`.

    Args:
        x: (b, *spatial, c).

    Returns:
        (b, *2 spatial, c).
    """
    for axis in range(1, x.ndim - 1):
        # Not `repeat`, whose transpose is a reduction: on CPU it takes ten times a sum of slices.
        x = _interleaved(x, x, axis)
    return x


def halve_fir(x):
    """Halves every spatial axis behind the filter [1, 3, 3, 1] / 8, with zeros beyond the border.

    Along an axis `y[i] = (x[2i - 1] + 3 x[2i] + 3 x[2i + 1] + x[2i + 2]) / 8`: less aliasing than the mean
    (Zhang 2019; NCSN++, Song et al. 2021, section 4.1).

    Args:
        x: (b, *spatial, c), spatial sizes even.

    Returns:
        (b, *spatial / 2, c).
    """
    for axis in range(1, x.ndim - 1):
        pairs = x.reshape(*x.shape[:axis], x.shape[axis] // 2, 2, *x.shape[axis + 1 :])
        even, odd = (jax.lax.index_in_dim(pairs, place, axis + 1, keepdims=False) for place in (0, 1))
        x = (3 * (even + odd) + _shifted(odd, axis, 1) + _shifted(even, axis, -1)) / 8
    return x


def double_fir(x):
    """Doubles every spatial axis with the filter [1, 3, 3, 1] / 4: 2^dims times the adjoint of `halve_fir`.

    Along an axis `y[2i] = (x[i - 1] + 3 x[i]) / 4`, `y[2i + 1] = (3 x[i] + x[i + 1]) / 4`.

    Args:
        x: (b, *spatial, c).

    Returns:
        (b, *2 spatial, c).
    """
    for axis in range(1, x.ndim - 1):
        even, odd = (3 * x + _shifted(x, axis, 1)) / 4, (3 * x + _shifted(x, axis, -1)) / 4
        x = _interleaved(even, odd, axis)
    return x


HALVE = {"average": halve_average, "fir": halve_fir}
DOUBLE = {"average": double_nearest, "fir": double_fir}


def space_to_depth(x, patch):
    """Gathers patch^dims voxels into channels; the channel index is (place in the patch, row-major; channel).

    Args:
        x: (b, *spatial, c), spatial sizes multiples of patch.
        patch: side of a patch.

    Returns:
        (b, *spatial / patch, patch^dims c).
    """
    dims, places = x.ndim - 2, tuple(range(2, 2 * x.ndim - 3, 2))
    split = x.reshape(_paired(x.shape, patch))
    order = (0, *range(1, 2 * dims, 2), *places, 2 * dims + 1)
    coarse = tuple(n // patch for n in x.shape[1:-1])
    return split.transpose(order).reshape(x.shape[0], *coarse, -1)


def depth_to_space(x, patch):
    """The inverse of `space_to_depth`.

    Args:
        x: (b, *spatial, patch^dims c).
        patch: side of a patch.

    Returns:
        (b, *patch spatial, c).
    """
    dims = x.ndim - 2
    split = x.reshape(*x.shape[:-1], *[patch] * dims, -1)
    order = (0, *(axis for d in range(dims) for axis in (1 + d, 1 + dims + d)), 1 + 2 * dims)
    return split.transpose(order).reshape(x.shape[0], *(patch * n for n in x.shape[1:-1]), -1)


def _paired(shape, patch=2):
    return (shape[0], *(size for n in shape[1:-1] for size in (n // patch, patch)), shape[-1])


def _interleaved(even, odd, axis):
    shape = (*even.shape[:axis], 2 * even.shape[axis], *even.shape[axis + 1 :])
    return jnp.stack([even, odd], axis + 1).reshape(shape)


def _shifted(x, axis, step):
    """Moves x by one voxel along an axis, a zero coming in."""
    n = x.shape[axis]
    zero = jnp.zeros_like(jax.lax.slice_in_dim(x, 0, 1, axis=axis))
    if step > 0:
        return jnp.concatenate([zero, jax.lax.slice_in_dim(x, 0, n - 1, axis=axis)], axis)
    return jnp.concatenate([jax.lax.slice_in_dim(x, 1, n, axis=axis), zero], axis)

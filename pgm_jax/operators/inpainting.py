"""Masks that keep the known voxels of an image."""

import jax.numpy as jnp
import numpy as np

from pgm_jax.operators.elementary import Diagonal


def inpainting(mask, shape) -> Diagonal:
    """Builds the operator that keeps the known voxels and sets the others to 0, `A x = mask x`.

    Args:
        mask: host array that broadcasts against the shape, True or above 0 where a voxel is known; a value
            between 0 and 1 is its weight.
        shape: shape of the image, such as (height, width, channel).

    Returns:
        `Diagonal`.

    Raises:
        ValueError: if the mask does not broadcast to the shape, keeps nothing, or holds negative or non-finite
            numbers.
    """
    values = np.asarray(mask, float)
    try:
        values = np.broadcast_to(values, tuple(shape))
    except ValueError:
        raise ValueError(
            f"a mask of shape {np.shape(mask)} does not broadcast to the image {shape}"
        ) from None
    if not np.isfinite(values).all() or values.min() < 0:
        raise ValueError("a mask needs finite numbers >= 0: 1 for a known voxel, 0 for a missing one")
    if not values.any():
        raise ValueError("the mask keeps no voxel: give 1 where the image is known")
    return Diagonal(jnp.asarray(values, jnp.result_type(float)))

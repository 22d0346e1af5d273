"""Linear interpolation as the projectors in three dimensions use it: the same weight both ways."""

from typing import NamedTuple

import jax.numpy as jnp

from pgm_jax.operators.ct.cone_tables import SLACK


class Sizes(NamedTuple):
    """Static sizes of a projector in three dimensions.

    Attributes:
        shape: (nz, ny, nx) of the volume.
        spacing: (dz, dy, dx), mm.
        rows, columns: of the detector.
        taps: largest number of columns and of rows whose rays weigh one voxel in one plane; for the strip footprint
            also of voxels across and along z that a beam meets there.
    """

    shape: tuple
    spacing: tuple
    rows: int
    columns: int
    taps: tuple


def hat(t):
    """The weight of linear interpolation at distance t, `max(0, 1 - |t|)`."""
    return jnp.maximum(0, 1 - jnp.abs(t))


def below(position, size):
    """Splits positions on an axis that is padded by one zero before and two after.

    Returns:
        (index of the padded neighbour below, distance to it); a position outside meets zeros.
    """
    position = jnp.clip(position, -1, size)
    floor = jnp.floor(position)
    return floor.astype(jnp.int32) + 1, position - floor


def pad(array, *axes):
    """Pads axes by one zero before and two after, for `below`."""
    return jnp.pad(array, [(1, 2) if axis in axes else (0, 0) for axis in range(array.ndim)])


def first_candidate(position, half_width, size, taps):
    """Computes the first of the pixels within half_width of a position, as int32 in reach of the detector."""
    start = jnp.ceil(position - (half_width + SLACK))
    return jnp.clip(start, -taps, size).astype(jnp.int32)


def interpolate_rows(array, position):
    """Interpolates along axis 0 at positions (k,), whole rows at a time."""
    index, distance = below(position, array.shape[0] - 3)
    lower, upper = (array.at[i].get(mode="promise_in_bounds") for i in (index, index + 1))
    return (1 - distance)[:, None, None] * lower + distance[:, None, None] * upper


def interpolate_each(array, position):
    """Interpolates along axis 1 at positions (k, l) that differ from row to row."""
    index, distance = below(position, array.shape[1] - 3)
    lower, upper = (take_each(array, i) for i in (index, index + 1))
    return (1 - distance)[:, :, None] * lower + distance[:, :, None] * upper


def take_each(array, index):
    """Takes entries (k, l, slices) of axis 1 at indices (k, l) that differ from row to row."""
    return jnp.take_along_axis(array, index[:, :, None], 1, mode="promise_in_bounds")

"""Joseph's method along single lines in 2-D or 3-D, with an optional time-of-flight kernel on each line.

Along the image axis that a line crosses most often it steps from plane to plane of pixel centres, and
interpolates linearly across. Forward and adjoint evaluate the same weights; the forward map gathers, the
adjoint adds into the image.

Source: P. M. Joseph, An improved algorithm for reprojecting rays through pixel images, IEEE TMI 1 (1982).
"""

from itertools import product
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Lines(NamedTuple):
    """Lines in pixels of an image, float64 on the host.

    Attributes:
        axis: image axis that each line steps along, int32 (lines,).
        base: pixel position on the other axes at plane n // 2 of that axis, whole part, int32 (lines, axes - 1).
        fraction: its fractional part in [0, 1).
        slope: pixels across per step, (lines, axes - 1), at most 1 in size.
        length: length of line per step in mm, (lines,).
        direction: mm along the line per pixel of each image axis, stepping axis first, (lines, axes).
        midpoint: position of the middle of the end points along the line in mm, from the foot of the centre
            of the image, (lines,).
    """

    axis: np.ndarray
    base: np.ndarray
    fraction: np.ndarray
    slope: np.ndarray
    length: np.ndarray
    direction: np.ndarray
    midpoint: np.ndarray


def trace_lines(starts, ends, shape, spacing) -> Lines:
    """Finds the stepping axis, position and slope of every line.

    Args:
        starts: one end point of each line in mm, (lines, 2) as (x, y) or (lines, 3) as (x, y, z), from the
            centre of the image.
        ends: the other end point.
        shape: pixels of the image, (height, width) or (depth, height, width).
        spacing: pixel size in mm along the same axes.

    Returns:
        `Lines`.

    Raises:
        ValueError: if the points do not fit the image, are not finite, or two of a line are the same.
    """
    starts, ends = (np.asarray(points, np.float64) for points in (starts, ends))
    axes = len(shape)
    if starts.shape != ends.shape or starts.ndim != 2 or starts.shape[1] != axes:
        raise ValueError(
            f"an image with {axes} axes needs end points of shape (lines, {axes}), got {starts.shape} and "
            f"{ends.shape}: give (x, y) for a slice and (x, y, z) for a volume, in mm"
        )
    direction = (ends - starts)[:, ::-1]
    extent = np.linalg.norm(direction, axis=1)
    if not (np.isfinite(starts).all() and np.isfinite(ends).all() and np.all(extent > 0)):
        raise ValueError("some lines have end points that are not finite, or the same twice: leave them out")
    spacing, size = np.asarray(spacing, np.float64), np.asarray(shape)
    origin, step = starts[:, ::-1] / spacing + (size - 1) / 2, direction / spacing
    axis = np.argmax(np.abs(step), axis=1)
    order = np.array([[a, *(b for b in range(axes) if b != a)] for a in range(axes)])[axis]
    along, across = (np.take_along_axis(values, order, 1) for values in (step, origin))
    reach = (size[axis] // 2 - across[:, 0]) / along[:, 0]
    position = across[:, 1:] + reach[:, None] * along[:, 1:]
    unit = direction / extent[:, None]
    return Lines(
        axis.astype(np.int32),
        np.floor(position).astype(np.int32),
        position - np.floor(position),
        along[:, 1:] / along[:, :1],
        extent / np.abs(along[:, 0]),
        np.take_along_axis(unit * spacing, order, 1),
        np.sum((starts + ends)[:, ::-1] / 2 * unit, axis=1),
    )


def time_of_flight_share(offset, std, half_width):
    """Computes the share of a normal kernel that falls in a bin, `Phi((s + w) / std) - Phi((s - w) / std)`.

    Args:
        offset: s, distance of the bin's centre from the point of emission along the line, in mm.
        std: standard deviation of the position along the line, in mm.
        half_width: w, half the width of the bin, in mm.

    Returns:
        Array like offset, in [0, 1]; over bins side by side it adds up to 1.
    """
    scale = 1 / (np.sqrt(2).astype(offset.dtype) * std)
    upper, lower = (jax.lax.erf((offset + side * half_width) * scale) for side in (1, -1))
    return 0.5 * (upper - lower)


def lines_forward(tables, x, *, shape):
    """Integrates images along lines.

    Args:
        tables: (axis, base, fraction, slope, weight), see `Lines`, weight being length times efficiency; with
            time of flight also (direction, position, std, half_width) in mm.
        x: images (pixels, slices), pixels in C order.
        shape: pixels of the image along each axis.

    Returns:
        Integrals (lines, slices).
    """

    def body(total, step):
        for index, weight in _corners(tables, shape, step):
            total = total + weight[:, None] * x[index]
        return total, None

    start = jnp.zeros((tables[0].shape[0], x.shape[-1]), x.dtype)
    return jax.lax.scan(body, start, jnp.arange(max(shape)))[0]


def lines_adjoint(tables, y, *, shape):
    """Adds numbers into images along lines, the exact transpose of `lines_forward`.

    Args:
        tables: see `lines_forward`.
        y: numbers (lines, slices).
        shape: pixels of the image along each axis.

    Returns:
        Images (pixels, slices).
    """

    def body(image, step):
        for index, weight in _corners(tables, shape, step):
            image = image.at[index].add(weight[:, None] * y)
        return image, None

    start = jnp.zeros((int(np.prod(shape)), y.shape[-1]), y.dtype)
    return jax.lax.scan(body, start, jnp.arange(max(shape)))[0]


def _corners(tables, shape, step):
    """Yields the pixels and weights with which each line reads plane `step` of its stepping axis."""
    axis, base, fraction, slope, length, *tof = tables
    size, stride = np.asarray(shape), np.cumprod([1, *shape[:0:-1]])[::-1]
    order = np.array([[a, *(b for b in range(len(shape)) if b != a)] for a in range(len(shape))])
    size, stride = (jnp.asarray(values[order], jnp.int32)[axis] for values in (size, stride))
    across = fraction + slope * (step - size[:, :1] // 2).astype(slope.dtype)
    whole = jnp.floor(across)
    upper, first = across - whole, base + whole.astype(jnp.int32)
    for corner in product((0, 1), repeat=len(shape) - 1):
        chosen = np.asarray(corner)[None]
        pixel = jnp.concatenate([jnp.full_like(axis, step)[:, None], first + chosen], axis=1)
        weight = length * jnp.prod(jnp.where(chosen == 1, upper, 1 - upper), axis=1)
        if tof:
            direction, position, std, half_width = tof
            centred = pixel.astype(direction.dtype) - (size - 1).astype(direction.dtype) / 2
            offset = jnp.sum(direction * centred, axis=1) - position
            weight = weight * time_of_flight_share(offset, std, half_width)
        inside = jnp.all((pixel >= 0) & (pixel < size), axis=1)
        index = jnp.where(inside, jnp.sum(pixel * stride, axis=1), 0)
        yield index, jnp.where(inside, weight, 0.0)

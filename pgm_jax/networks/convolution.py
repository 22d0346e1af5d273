"""Convolutions and pointwise maps that are fast, with their derivatives, on one CPU device.

XLA's CPU convolution runs some shapes on one thread and computes the kernel's gradient at half the speed of a matrix
product. Here the first are moved to its other, threaded form by one row of padding more than they need, and the
second is a sum of matrix products over bands of rows that stay in cache. The choice is made at trace time by platform
and static shape: elsewhere (GPU, TPU, several devices, small or narrow images, one or three dimensions) all is
`jax.lax.conv_general_dilated`.

Only the derivative along the kernel is rewritten, as a linear map whose automatic transpose is that sum. So `jvp`,
`vmap`, `grad` and their compositions work as for any JAX function.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

_AXES = {1: "W", 2: "HW", 3: "DHW"}
# Below these sizes XLA's own forms are as fast.
_LEAST_CHANNELS, _LEAST_SIDE, _LEAST_ROWS = 32, 16, 1024
# Multiply-adds of a tap over one row up to which XLA's convolution with equal padding keeps to one thread
# (jaxlib 0.10, two cores, 4 x 64 x 64 pixels, 64 channels: 225 GFLOP/s, and 375 in its other form).
_ONE_THREAD = 1 << 18
# Pixels of a band, and channels below which two bands are one batched product, which then runs on two threads.
_BAND, _PAIRED = 1024, 48
# Numbers of an array below which to compute it twice costs less than a loop.
_LEAST_SETTLED = 1 << 14


def conv(x, kernel):
    """Convolves with zeros beyond the border, at stride 1: `y[p] = sum_q x[p + q - centre] kernel[q]`.

    Args:
        x: (b, *spatial, inputs) with 1 to 3 spatial axes.
        kernel: (*size, inputs, outputs), every size odd.

    Returns:
        (b, *spatial, outputs), in the dtype of x.
    """
    if all(size == 1 for size in kernel.shape[:-2]):
        return pointwise(x, kernel.reshape(kernel.shape[-2:]))
    form = form_of(x.shape, kernel.shape) if on_one_cpu() else Form()
    return formed_conv(x, kernel, form) if any(form) else plain_conv(x, kernel)


def pointwise(x, kernel):
    """Maps the last axis, `y = x kernel`.

    Args:
        x: (..., inputs).
        kernel: (inputs, outputs).

    Returns:
        (..., outputs), in the dtype of x.
    """
    rows = x.size // x.shape[-1]
    if on_one_cpu() and rows >= _LEAST_ROWS:
        return tall_product(x.reshape(rows, x.shape[-1]), kernel).reshape(*x.shape[:-1], -1)
    return jnp.einsum("...i,io->...o", x, kernel)


def settled(x):
    """Returns x, of which the cotangent is computed once and stored.

    For the end of a residual block. The cotangent of a residual stream is a sum over all later blocks; XLA's CPU
    fusion computes that sum again inside every use of it, in each earlier block (a fifth of the time of a U-Net's
    training step). Elsewhere than on one CPU device this is the identity.

    Args:
        x: an array.

    Returns:
        x.
    """
    return settled_halves(x) if on_one_cpu() and x.size >= _LEAST_SETTLED and x.size % 2 == 0 else x


def on_one_cpu():
    """Returns whether programs traced now run on a single CPU device (loops here would gather a sharded batch)."""
    return jax.default_backend() == "cpu" and jax.device_count() == 1


class Form(NamedTuple):
    """How a convolution and its derivatives are computed; all zero is lax.

    Attributes:
        extra: rows of padding beyond "SAME" of the convolution.
        extra_back: the same of its transpose along x.
        rows: rows of a band of the derivative along the kernel, a divisor of the height.
    """

    extra: int = 0
    extra_back: int = 0
    rows: int = 0


def form_of(x_shape, kernel_shape):
    """Returns the fastest `Form` on one CPU device.

    Args:
        x_shape: (b, *spatial, inputs).
        kernel_shape: (*size, inputs, outputs).

    Returns:
        `Form`.
    """
    back = (*kernel_shape[:-2], kernel_shape[-1], kernel_shape[-2])
    return Form(
        extra_rows(x_shape, kernel_shape), extra_rows(x_shape, back), band_rows(x_shape, kernel_shape)
    )


def band_rows(x_shape, kernel_shape):
    """Returns how many image rows the kernel's gradient takes at a time; 0 where XLA's own is as fast.

    Args:
        x_shape: (b, *spatial, inputs).
        kernel_shape: (*size, inputs, outputs).

    Returns:
        A divisor of the height, or 0.
    """
    if len(kernel_shape) != 4 or kernel_shape[:2] != (3, 3):
        return 0
    height, width = x_shape[1:3]
    if min(kernel_shape[2:]) < _LEAST_CHANNELS or min(height, width) < _LEAST_SIDE:
        return 0
    pixels = _BAND if min(kernel_shape[2:]) >= _PAIRED else 2 * _BAND
    most = max(1, min(height, pixels // width))
    return next(rows for rows in range(most, 0, -1) if height % rows == 0)


def extra_rows(x_shape, kernel_shape):
    """Returns how many rows of padding a convolution on CPU gets beyond "SAME", to run on all threads.

    Args:
        x_shape: (b, *spatial, inputs).
        kernel_shape: (*size, inputs, outputs).

    Returns:
        1, or 0 where equal padding is as fast.
    """
    *_, inputs, outputs = kernel_shape
    if len(kernel_shape) != 4 or min(inputs, outputs) < _LEAST_CHANNELS or x_shape[2] < _LEAST_SIDE:
        return 0
    most = 2 * _ONE_THREAD if x_shape[2] <= 64 or inputs < outputs else _ONE_THREAD
    return int(x_shape[2] * inputs * outputs <= most)


def plain_conv(x, kernel):
    """Convolves by `jax.lax.conv_general_dilated`; arguments and result as `conv`."""
    return _padded_conv(x, kernel, 0)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def formed_conv(x, kernel, form):
    """Convolves as `plain_conv` in a chosen form.

    Args:
        x: (b, height, width, inputs).
        kernel: (*size, inputs, outputs); 3 by 3 where `form.rows` is not 0.
        form: `Form`.

    Returns:
        (b, height, width, outputs).
    """
    return _padded_conv(x, kernel, form.extra)[:, : x.shape[1]]


@functools.partial(formed_conv.defjvp, symbolic_zeros=True)
def _formed_conv_jvp(form, primals, tangents):
    x, kernel = primals
    # With the extra rows on the side of x, it is the transpose that pads by more than it needs.
    below = ((0, 0), (0, form.extra_back), (0, 0), (0, 0))
    along_x = lambda dx: _padded_conv(jnp.pad(dx, below), kernel, -form.extra_back)
    along_kernel = lambda dkernel: (
        _conv_in_bands(x, dkernel, form.rows) if form.rows else plain_conv(x, dkernel)
    )
    y = _padded_conv(x, kernel, form.extra)[:, : x.shape[1]]
    return y, _sum_of((along_x, along_kernel), tangents, y)


def _padded_conv(x, kernel, extra):
    axes = _AXES[x.ndim - 2]
    numbers = (f"N{axes}C", f"{axes}IO", f"N{axes}C")
    padding = [(size // 2, size // 2) for size in kernel.shape[:-2]]
    padding[0] = (padding[0][0], padding[0][1] + extra)
    return jax.lax.conv_general_dilated(x, kernel, (1,) * len(axes), padding, dimension_numbers=numbers)


@jax.custom_jvp
def tall_product(x, kernel):
    """Returns `x kernel` of many rows; the derivative along the kernel contracts a transposed copy of x.

    Args:
        x: (rows, inputs).
        kernel: (inputs, outputs).

    Returns:
        (rows, outputs).
    """
    return x @ kernel


@functools.partial(tall_product.defjvp, symbolic_zeros=True)
def _tall_product_jvp(primals, tangents):
    x, kernel = primals
    along = (lambda dx: dx @ kernel), (lambda dkernel: jax.checkpoint(_product_by_columns)(x, dkernel))
    y = x @ kernel
    return y, _sum_of(along, tangents, y)


@jax.custom_jvp
def settled_halves(x):
    """Returns x; its tangent and cotangent pass through a loop over its two halves, which ends every fusion.

    Args:
        x: an array of even size.

    Returns:
        x.
    """
    return x


@settled_halves.defjvp
def _settled_halves_jvp(primals, tangents):
    (x,), (tangent,) = primals, tangents
    # A factor that XLA cannot know: it removes a loop that only copies, and optimization_barrier before it fuses.
    one = 1 + 0 * jax.lax.stop_gradient(x[(0,) * x.ndim])
    return x, jax.lax.map(lambda half: half * one, tangent.reshape(2, -1)).reshape(x.shape)


def _sum_of(maps, tangents, like):
    parts = [
        one(tangent)
        for one, tangent in zip(maps, tangents, strict=True)
        if not isinstance(tangent, jax.custom_derivatives.SymbolicZero)
    ]
    return sum(parts[1:], parts[0]) if parts else jnp.zeros_like(like)


def _conv_in_bands(x, kernel, rows):
    """The convolution as a linear map of the kernel, whose transpose is the fast gradient.

    Columns are shifted on the side of x and rows on the side of the result, so one product of (3 inputs, pixels)
    and (pixels, 3 outputs) holds the nine taps of a band with three copies of each side instead of nine of one.
    """
    b, height, width, inputs = x.shape
    outputs, bands = kernel.shape[-1], height // rows
    # (column, input) by (row, output).
    matrix = kernel.transpose(1, 2, 0, 3).reshape(3 * inputs, 3 * outputs)

    together = 2 if min(inputs, outputs) < _PAIRED and b * bands % 2 == 0 else 1

    # Else the shifted and transposed copies of all bands would be kept from the forward pass.
    @jax.checkpoint
    def some(x, matrix):
        padded = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))
        shifted = jnp.concatenate([padded[:, :, j : j + width] for j in range(3)], axis=-1)
        product = _products(shifted.reshape(together, rows * width, 3 * inputs), matrix)
        parts = jnp.split(product.reshape(together, rows, width, 3 * outputs), 3, axis=-1)
        total = sum(jnp.pad(part, ((0, 0), (2 - i, i), (0, 0), (0, 0))) for i, part in enumerate(parts))
        # Each band reaches one row beyond its ends.
        return total[:, 0], total[:, 1:-1], total[:, -1]

    groups = x.reshape(b * bands // together, together, rows, width, inputs)
    above, inside, below = jax.lax.map(lambda x: some(x, matrix), groups)
    y = inside.reshape(b, bands, rows, width, outputs)
    above, below = (edge.reshape(b, bands, width, outputs) for edge in (above, below))
    y = y.at[:, :-1, -1].add(above[:, 1:]).at[:, 1:, 0].add(below[:, :-1])
    return y.reshape(b, height, width, outputs)


def _products(x, kernel):
    if x.shape[0] == 1:
        return _product_by_columns(x[0], kernel)[None]
    # One kernel a member, so that the transpose is a batch of products and not one long one.
    return jax.lax.dot_general(
        x, jnp.broadcast_to(kernel, (len(x), *kernel.shape)), (((2,), (1,)), ((0,), (0,)))
    )


def _product_by_columns(x, kernel):
    # Without the barriers XLA folds the transposition into the product, which then runs at a third of the speed.
    columns = jax.lax.optimization_barrier(jax.lax.optimization_barrier(x).T)
    return jax.lax.dot_general(columns, kernel, (((0,), (0,)), ((), ())))

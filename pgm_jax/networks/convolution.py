"""Convolutions and pointwise maps whose derivatives are fast on one CPU device.

On CPU, XLA runs the forward pass and the input gradient of a convolution at the speed of the machine's matrix
product, and the kernel's gradient at about half of it. Here the kernel's gradient is a sum of matrix products over
bands of rows that stay in cache. The choice is made at trace time by platform and static shape: elsewhere (GPU, TPU,
several devices, small or narrow images, one or three dimensions) all is `jax.lax.conv_general_dilated`.

Only the derivative along the kernel is rewritten, as a linear map whose automatic transpose is that sum. So `jvp`,
`vmap`, `grad` and their compositions work as for any JAX function.
"""

import functools

import jax
import jax.numpy as jnp

_AXES = {1: "W", 2: "HW", 3: "DHW"}
# Measured on one core (AVX-512, 1 MB of cache): below these sizes XLA's own kernel gradient is as fast.
_LEAST_CHANNELS, _LEAST_SIDE, _LEAST_ROWS = 48, 16, 1024
# Pixels of a band.
_BAND = 1024
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
    rows = band_rows(x.shape, kernel.shape) if on_one_cpu() else 0
    return banded_conv(x, kernel, rows) if rows else plain_conv(x, kernel)


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
    most = max(1, min(height, _BAND // width))
    return next(rows for rows in range(most, 0, -1) if height % rows == 0)


def plain_conv(x, kernel):
    """Convolves by `jax.lax.conv_general_dilated`; arguments and result as `conv`."""
    axes = _AXES[x.ndim - 2]
    numbers = (f"N{axes}C", f"{axes}IO", f"N{axes}C")
    return jax.lax.conv_general_dilated(x, kernel, (1,) * len(axes), "SAME", dimension_numbers=numbers)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def banded_conv(x, kernel, rows):
    """Convolves as `plain_conv`; the derivative along the kernel is computed in bands of rows.

    Args:
        x: (b, height, width, inputs).
        kernel: (3, 3, inputs, outputs).
        rows: rows of a band, a divisor of the height.

    Returns:
        (b, height, width, outputs).
    """
    return plain_conv(x, kernel)


@functools.partial(banded_conv.defjvp, symbolic_zeros=True)
def _banded_conv_jvp(rows, primals, tangents):
    x, kernel = primals
    along = (lambda dx: plain_conv(dx, kernel)), (lambda dkernel: _conv_in_bands(x, dkernel, rows))
    y = plain_conv(x, kernel)
    return y, _sum_of(along, tangents, y)


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

    # Else the shifted and transposed copies of all bands would be kept from the forward pass.
    @jax.checkpoint
    def band(x, matrix):
        padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0)))
        shifted = jnp.concatenate([padded[:, j : j + width] for j in range(3)], axis=-1)
        product = _product_by_columns(shifted.reshape(rows * width, 3 * inputs), matrix)
        parts = jnp.split(product.reshape(rows, width, 3 * outputs), 3, axis=-1)
        return sum(jnp.pad(part, ((2 - i, i), (0, 0), (0, 0))) for i, part in enumerate(parts))

    xs = x.reshape(b * bands, rows, width, inputs)
    ys = jax.lax.map(lambda x: band(x, matrix), xs).reshape(b, bands, rows + 2, width, outputs)
    # Each band reaches one row beyond its ends.
    total = jnp.zeros((b, height + 2, width, outputs), x.dtype)
    for n in range(bands):
        total = total.at[:, n * rows : (n + 1) * rows + 2].add(ys[:, n])
    return total[:, 1:-1]


def _product_by_columns(x, kernel):
    # Without the barriers XLA folds the transposition into the product, which then runs at a third of the speed.
    columns = jax.lax.optimization_barrier(jax.lax.optimization_barrier(x).T)
    return jax.lax.dot_general(columns, kernel, (((0,), (0,)), ((), ())))

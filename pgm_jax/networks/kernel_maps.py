"""Convolutions as linear maps of the kernel, of which the automatic transpose is a fast gradient on a CPU, and the
gradient for which lax's convolution is as fast.

The values are those of `jax.lax.conv_general_dilated`; no derivative along x is meant to be taken of them.
"""

import jax
import jax.numpy as jnp

_AXES = {1: "W", 2: "HW", 3: "DHW"}
# Channels below which two bands are one batched product, which then runs on two threads.
PAIRED = 48


def lax_conv(x, kernel, padding):
    """Convolves by `jax.lax.conv_general_dilated`, channels last, at stride 1.

    Args:
        x: (b, *spatial, inputs).
        kernel: (*size, inputs, outputs).
        padding: pairs of rows of zeros, one pair a spatial axis.

    Returns:
        (b, *result, outputs).
    """
    axes = _AXES[x.ndim - 2]
    numbers = (f"N{axes}C", f"{axes}IO", f"N{axes}C")
    return jax.lax.conv_general_dilated(x, kernel, (1,) * len(axes), padding, dimension_numbers=numbers)


def kernel_by_exchange(x, y, size):
    """Returns lax's transpose along the kernel, `kernel[q] = sum_p x[p + q - centre] y[p]`.

    It is the convolution whose images are the inputs and whose channels are the images. lax says so by dimension
    numbers, which XLA's CPU backend turns into its fast form at the top of a program only: in the body of a loop
    such a convolution takes up to fifty times as long. Here the arrays themselves are turned.

    Args:
        x: (b, *spatial, inputs).
        y: (b, *spatial, outputs).
        size: sizes of the kernel, odd.

    Returns:
        (*size, inputs, outputs).
    """
    images, filters = jnp.swapaxes(x, 0, -1), jnp.moveaxis(y, 0, -2)
    kernel = lax_conv(images, filters, [(length // 2, length // 2) for length in size])
    return jnp.moveaxis(kernel, 0, -2)


def conv_by_taps(x, kernel):
    """Convolves by one matrix product for all taps, the few planes of which are then shifted and added.

    For kernels of few outputs; XLA's gradient of such a kernel takes ten times as long.

    Args:
        x: (b, height, width, inputs).
        kernel: (*size, inputs, outputs), sizes odd.

    Returns:
        (b, height, width, outputs).
    """
    b, height, width, inputs = x.shape
    above, left = (size // 2 for size in kernel.shape[:2])
    matrix = kernel.transpose(0, 1, 3, 2).reshape(-1, inputs)
    planes = jnp.einsum("ti,pi->tp", matrix, x.reshape(-1, inputs))
    planes = planes.reshape(*kernel.shape[:2], -1, b, height, width)
    planes = jnp.pad(planes, ((0, 0),) * 4 + ((above, above), (left, left)))
    shifted = (
        planes[row, column, :, :, row : row + height, column : column + width]
        for row in range(kernel.shape[0])
        for column in range(kernel.shape[1])
    )
    return sum(shifted).transpose(1, 2, 3, 0)


def conv_in_bands(x, kernel, rows):
    """Convolves by matrix products over bands of rows that stay in cache.

    Columns are shifted on the side of x and rows on the side of the result, so one product of (3 inputs, pixels)
    and (pixels, 3 outputs) holds the nine taps of a band with three copies of each side instead of nine of one.

    Args:
        x: (b, height, width, inputs).
        kernel: (3, 3, inputs, outputs).
        rows: rows of a band, a divisor of the height.

    Returns:
        (b, height, width, outputs).
    """
    b, height, width, inputs = x.shape
    outputs, bands = kernel.shape[-1], height // rows
    # (column, input) by (row, output).
    matrix = kernel.transpose(1, 2, 0, 3).reshape(3 * inputs, 3 * outputs)
    together = 2 if min(inputs, outputs) < PAIRED and b * bands % 2 == 0 else 1

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
        return product_by_columns(x[0], kernel)[None]
    # One kernel a member, so that the transpose is a batch of products and not one long one.
    return jax.lax.dot_general(
        x, jnp.broadcast_to(kernel, (len(x), *kernel.shape)), (((2,), (1,)), ((0,), (0,)))
    )


def product_by_columns(x, kernel):
    """Returns `x kernel` by way of a transposed copy of x, which the transpose along the kernel then contracts.

    Args:
        x: (rows, inputs).
        kernel: (inputs, outputs).

    Returns:
        (rows, outputs).
    """
    return jax.lax.dot_general(_columns(x), kernel, (((0,), (0,)), ((), ())))


def columns_product(x, y):
    """Returns `x^T y` by a transposed copy of x.

    Args:
        x: (rows, inputs).
        y: (rows, outputs).

    Returns:
        (inputs, outputs).
    """
    return _columns(x) @ y


def _columns(x):
    # Without the barriers XLA folds the transposition into the product, which then runs at a third of the speed.
    return jax.lax.optimization_barrier(jax.lax.optimization_barrier(x).T)

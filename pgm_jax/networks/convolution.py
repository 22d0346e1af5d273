"""Convolutions and pointwise maps that are fast, with their derivatives, on one CPU device.

XLA's CPU convolution runs some shapes on one thread and computes the kernel's gradient at half the speed of a
matrix product. Here many channels take Winograd's form (`winograd`); of the rest, the first are moved to XLA's
other, threaded form by one row of padding more than they need, and the second is a sum of matrix products over
bands of rows that stay in cache. The choice is made at trace time by platform, dtype and static shape
(`convolution_form`): elsewhere (GPU, TPU, several devices, inside `shard_map`) all is
`jax.lax.conv_general_dilated`.

The derivatives are chosen too: convolutions are bilinear primitives (`bilinear`), whose transpose along the image
is a convolution of the turned kernel and along the kernel the transpose of a linear map that is fast, or a
convolution of images and channels exchanged (`kernel_maps`). So `jvp`, `vmap`, `grad` and their compositions work
as for any JAX function.
"""

import jax
import jax.numpy as jnp

from pgm_jax.networks.bilinear import bilinear, images_together, turned, varying
from pgm_jax.networks.convolution_form import form_of
from pgm_jax.networks.kernel_maps import (
    columns_product,
    conv_by_taps,
    conv_in_bands,
    kernel_by_exchange,
    lax_conv,
)
from pgm_jax.networks.winograd import winograd

# Rows below which XLA's own product is as fast.
_LEAST_ROWS = 1024
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
    if not on_one_cpu() or varying(x, kernel):
        return plain_conv(x, kernel)
    form = form_of(x, kernel)
    return winograd(x, kernel) if form.winograd else formed_conv(x, kernel, form)


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


def plain_conv(x, kernel):
    """Convolves by `jax.lax.conv_general_dilated`; arguments and result as `conv`."""
    return _padded_conv(x, kernel, 0)


def formed_conv(x, kernel, form):
    """Convolves as `plain_conv` in a chosen form.

    Args:
        x: (b, *spatial, inputs).
        kernel: (*size, inputs, outputs); 3 by 3 where `form.rows` is not 0.
        form: `Form`.

    Returns:
        (b, *spatial, outputs).
    """
    return _formed.bind(x, kernel, form=form)


def _formed_conv(x, kernel, *, form):
    return _padded_conv(x, kernel, form.extra)[:, : x.shape[1]]


def _along_x(y, x, kernel, *, form):
    # lax's own transpose exchanges the channels of the kernel by its dimension numbers only, for which XLA's CPU
    # backend has a loop without threads or vectors wherever the convolution stands in the body of a scan.
    back = form._replace(extra=form.extra_back, extra_back=form.extra)
    return _formed.bind(y, turned(kernel), form=back)


def _back_along_kernel(y, x, kernel, *, form):
    if not form.gradient and not form.rows:
        return kernel_by_exchange(x, y, kernel.aval.shape[:-2])
    shape = jax.ShapeDtypeStruct(kernel.aval.shape, kernel.aval.dtype)
    return jax.linear_transpose(lambda kernel: _along_kernel(x, kernel, form), shape)(y)[0]


_formed = bilinear("formed_conv", _formed_conv, (_along_x, _back_along_kernel), images_together)


def _along_kernel(x, dkernel, form):
    if form.gradient:
        return {"taps": conv_by_taps, "winograd": winograd}[form.gradient](x, dkernel)
    return conv_in_bands(x, dkernel, form.rows)


def _padded_conv(x, kernel, extra):
    padding = [(size // 2, size // 2) for size in kernel.shape[:-2]]
    padding[0] = (padding[0][0], padding[0][1] + extra)
    return lax_conv(x, kernel, padding)


def tall_product(x, kernel):
    """Returns `x kernel` of many rows; the derivative along the kernel contracts a transposed copy of x.

    Args:
        x: (rows, inputs).
        kernel: (inputs, outputs).

    Returns:
        (rows, outputs).
    """
    return _product.bind(x, kernel)


_product = bilinear(
    "tall_product",
    jnp.matmul,
    (
        lambda y, x, kernel: _product.bind(y, turned(kernel)),
        lambda y, x, kernel: columns_product(x, y),
    ),
    images_together,
)


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

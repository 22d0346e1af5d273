"""The choice of the fastest form of a convolution and of its derivatives on one CPU device, by shape and dtype."""

from typing import NamedTuple

import jax.numpy as jnp

from pgm_jax.networks.kernel_maps import PAIRED

# Below these sizes XLA's own forms are as fast.
_LEAST_CHANNELS, _LEAST_SIDE = 32, 16
# Channels and tiles of 4 by 4 pixels from which Winograd's form is faster; for the kernel's gradient alone, the
# channels of the narrower side.
_WINOGRAD_CHANNELS, _WINOGRAD_LESS, _WINOGRAD_TILES = 64, 32, 32
# Multiply-adds of a tap over one row up to which XLA's convolution with equal padding keeps to one thread
# (jaxlib 0.10, two cores, 4 x 64 x 64 pixels, 64 channels: 225 GFLOP/s, and 375 in its other form). Of few inputs,
# up to three times as many (256 x 256 pixels, 16 to 64 channels: 5.7 ms and 3.8; 32 to 96: 16.7 and 9.7).
_ONE_THREAD = 1 << 18
_FEW_INPUTS, _LEAST_EXTRA = 32, 16
# Pixels of a band.
_BAND = 1024
# Outputs up to which the kernel's gradient is taken tap by tap.
_FEW = 4


class Form(NamedTuple):
    """How a convolution and its derivatives are computed; all zero is lax.

    Attributes:
        extra: rows of padding beyond "SAME" of the convolution.
        extra_back: the same of its transpose along x.
        rows: rows of a band of the derivative along the kernel, a divisor of the height.
        gradient: another form of that derivative, "taps" or "winograd".
        winograd: whether the convolution itself takes Winograd's form, and with it all derivatives.
    """

    extra: int = 0
    extra_back: int = 0
    rows: int = 0
    gradient: str = ""
    winograd: bool = False


def form_of(x, kernel):
    """Returns the fastest `Form` on one CPU device.

    Args:
        x: (b, *spatial, inputs), an array or its shape and dtype.
        kernel: (*size, inputs, outputs).

    Returns:
        `Form`.
    """
    *size, inputs, outputs = kernel.shape
    back = (*size, outputs, inputs)
    form = Form(
        extra_rows(x.shape, kernel.shape), extra_rows(x.shape, back), band_rows(x.shape, kernel.shape)
    )
    if len(size) == 2 and outputs <= _FEW and inputs >= _LEAST_CHANNELS:
        return form._replace(gradient="taps")
    if max(inputs, outputs) < _WINOGRAD_CHANNELS or not allows_winograd(x, kernel):
        return form
    return form._replace(gradient="winograd", winograd=min(inputs, outputs) >= _WINOGRAD_CHANNELS)


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
    pixels = _BAND if min(kernel_shape[2:]) >= PAIRED else 2 * _BAND
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
    if len(kernel_shape) != 4 or min(inputs, outputs) < _LEAST_EXTRA or x_shape[2] < _LEAST_SIDE:
        return 0
    if inputs <= _FEW_INPUTS:
        most = 3 * _ONE_THREAD
    elif outputs < _LEAST_CHANNELS:
        most = 0
    else:
        most = 2 * _ONE_THREAD if x_shape[2] <= 64 or inputs < outputs else _ONE_THREAD
    return int(x_shape[2] * inputs * outputs <= most)


def allows_winograd(x, kernel):
    """Returns whether Winograd's form is possible and exact enough, with enough tiles and channels to gain.

    Args:
        x: (b, *spatial, inputs).
        kernel: (*size, inputs, outputs).

    Returns:
        A bool.
    """
    if x.ndim != 4 or kernel.shape[:2] != (3, 3) or not x.dtype == kernel.dtype == jnp.float32:
        return False
    tiles = x.shape[0] * (x.shape[1] // 4) * (x.shape[2] // 4)
    return min(kernel.shape[2:]) >= _WINOGRAD_LESS and tiles >= _WINOGRAD_TILES

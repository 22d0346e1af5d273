"""The layers every network is built from: linear, convolution, group norm, dropout.

Parameters keep `precision.param`; a layer casts them and its input to `precision.compute`. Statistics are
float32 whatever is chosen. Arrays are channels-last: (b, *spatial, c) with 1 to 3 spatial axes.

    Linear     kernel (in, out), bias (out,)
    Conv       kernel (*size, in, out), bias (out,)
    GroupNorm  scale (c,), bias (c,)
"""

import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx

from pgm_jax.core.precision import FULL
from pgm_jax.networks.convolution import conv, pointwise
from pgm_jax.networks.normalisation import group_norm, groups_of


class Linear(nnx.Module):
    """An affine map of the last axis, `y = x kernel + bias`.

    Args:
        inputs, outputs: sizes of the last axis.
        rngs: `nnx.Rngs`.
        zero: starts at zero instead of uniform with variance 2 / (inputs + outputs).
        precision: dtypes of the parameters and of the product.
    """

    def __init__(self, inputs, outputs, rngs, *, zero=False, precision=FULL):
        self.precision = precision
        self.kernel = nnx.Param(_kernel(rngs, (inputs, outputs), zero, precision))
        self.bias = nnx.Param(jnp.zeros(outputs, precision.param))

    def __call__(self, x):
        kernel, bias = _computed(self)
        return affine(x.astype(self.precision.compute), kernel, bias)


class Conv(nnx.Module):
    """A convolution that keeps the image size: odd kernel, stride 1, zeros beyond the border.

    Args:
        inputs, outputs: channels.
        dims: spatial axes, 1 to 3.
        rngs: `nnx.Rngs`.
        size: kernel size along every axis, odd.
        zero: starts at zero instead of uniform with variance 2 / (size^dims (inputs + outputs)).
        precision: dtypes of the parameters and of the product.
    """

    def __init__(self, inputs, outputs, dims, rngs, *, size=3, zero=False, precision=FULL):
        self.precision = precision
        self.kernel = nnx.Param(_kernel(rngs, (size,) * dims + (inputs, outputs), zero, precision))
        self.bias = nnx.Param(jnp.zeros(outputs, precision.param))

    def __call__(self, x):
        kernel, bias = _computed(self)
        return conv(x.astype(self.precision.compute), kernel) + along_channels(bias, x.ndim)


class GroupNorm(nnx.Module):
    """Group normalisation with learned scale and bias; statistics in float32 (Wu and He 2018, Eq. 1, 7).

    The groups are at most 32, of at least 4 channels each where there are as many, and divide the channels.

    Args:
        channels: channels of the input.
        precision: dtypes of the parameters and of the result.
    """

    def __init__(self, channels, *, precision=FULL):
        self.precision, self.groups = precision, groups_of(channels)
        self.scale = nnx.Param(jnp.ones(channels, precision.param))
        self.bias = nnx.Param(jnp.zeros(channels, precision.param))

    def __call__(self, x, gain=None, shift=None, *, silu=False):
        """Returns `norm(x)` of x (b, *spatial, c), `norm(x) (1 + gain) + shift` with both (b, c), or SiLU of it."""
        scale, bias = self.scale.get_value()[None], self.bias.get_value()[None]
        if gain is not None:
            scale, bias = scale * (1 + gain), bias * (1 + gain) + shift
        return group_norm(x, self.groups, scale, bias, silu=silu).astype(self.precision.compute)


def affine(x, kernel, bias):
    """Returns `x kernel + bias` over the last axis.

    Args:
        x: (..., inputs).
        kernel: (inputs, outputs).
        bias: (outputs,).

    Returns:
        (..., outputs), in the dtype of x.
    """
    return pointwise(x, kernel) + along_channels(bias, x.ndim)


def dropout(key, x, rate, train):
    """Sets values to zero with probability rate and divides the others by 1 - rate; the identity unless training.

    Sample i draws from `fold_in(key, i)`, so that a larger batch repeats the draws of a smaller one.

    Args:
        key: one key, or one for each sample (b,), which is then used as it is.
        x: (b, ...).
        rate: probability, a Python number in [0, 1).
        train: whether to drop.

    Returns:
        An array like x.

    Raises:
        ValueError: when training at a rate above 0 without a key.
    """
    if not train or rate == 0:
        return x
    if key is None:
        raise ValueError(f"dropout of {rate} in training needs a key: call apply(..., key=key, train=True)")
    keys = key if key.ndim else jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(x.shape[0]))
    kept = jax.vmap(lambda k: jax.random.bernoulli(k, 1 - rate, x.shape[1:]))(keys)
    return jnp.where(kept, x / (1 - rate), 0).astype(x.dtype)


def fold_key(key, number):
    """Returns the key of a numbered layer, for one key, one key for each sample, or none.

    Args:
        key: typed key of shape () or (b,), or None.
        number: an integer that differs between layers.

    Returns:
        A key of the same shape, or None.
    """
    if key is None or not key.ndim:
        return None if key is None else jax.random.fold_in(key, number)
    return jax.vmap(lambda k: jax.random.fold_in(k, number))(key)


def along_channels(vector, ndim):
    """Reshapes (c,) to (1, ..., 1, c).

    Args:
        vector: (c,).
        ndim: axes of the result.

    Returns:
        The vector with ndim axes.
    """
    return vector.reshape((1,) * (ndim - 1) + (-1,))


def _computed(layer):
    dtype = layer.precision.compute
    return layer.kernel.get_value().astype(dtype), layer.bias.get_value().astype(dtype)


def _kernel(rngs, shape, zero, precision):
    """Draws uniform on +-sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010, Eq. 16), or zeros."""
    if zero:
        return jnp.zeros(shape, precision.param)
    size = math.prod(shape)
    # A power of two: kernels of many shapes share few compiled draws, and compiling them is the cost of init.
    drawn = jax.random.uniform(rngs.params(), (max(4096, 1 << (size - 1).bit_length()),), minval=-1.0)
    return _scaled(drawn, shape, precision.param)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _scaled(drawn, shape, dtype):
    fans = math.prod(shape[:-2]) * (shape[-2] + shape[-1])
    return (math.sqrt(6 / fans) * drawn[: math.prod(shape)].reshape(shape)).astype(dtype)

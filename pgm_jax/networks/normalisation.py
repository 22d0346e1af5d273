"""Group and layer normalisation of channels-last arrays (b, *spatial, c), statistics in float32.

A network's backward pass reads what the forward pass kept, and on a CPU that traffic costs as much as the
convolutions. Left to automatic differentiation, a group norm and its activation keep three arrays of the input's
size; the derivative below keeps the input alone and computes the others again, on the way.
"""

from functools import partial

import jax
import jax.numpy as jnp


def groups_of(channels):
    """Returns the number of groups of a group norm: the largest divisor of channels up to channels / 4 and 32.

    Args:
        channels: channels of the input.

    Returns:
        The number of groups, at least 1.
    """
    most = max(1, min(32, channels // 4))
    return next(groups for groups in range(most, 0, -1) if channels % groups == 0)


def group_norm(x, groups, scale, bias, *, silu=False, epsilon=1e-6):
    """Returns `u = (x - mean) / sqrt(variance + epsilon) scale + bias`, or `silu(u) = u / (1 + exp(-u))`.

    The moments are those of each sample and group of channels. Channel sums come first and are joined into groups
    of the small (b, c) array, so that no large array is reshaped (spatial sharding stays where it is) and the
    result is one multiply-add a value. The variance is that of the centred values: it survives a mean a thousand
    times larger. Forward and reverse mode of any order are defined; the first reverse pass keeps x, its moments,
    scale and bias alone.

    Args:
        x: (b, *spatial, c).
        groups: number of groups, a divisor of c.
        scale, bias: (b or 1, c).
        silu: whether the activation follows.
        epsilon: added to the variance.

    Returns:
        (b, *spatial, c), float32.
    """
    return _normalised(groups, silu, epsilon, x, scale, bias)


def layer_norm(x, epsilon=1e-6):
    """Normalises the last axis to mean 0 and variance 1, in float32, without parameters.

    Args:
        x: (..., c).
        epsilon: added to the variance.

    Returns:
        (..., c), float32.
    """
    x = x.astype(jnp.float32)
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + epsilon)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def _normalised(groups, silu, epsilon, x, scale, bias):
    u = _affine(x, *_moments(groups, epsilon, x), scale, bias)
    return jax.nn.silu(u) if silu else u


@_normalised.defjvp
def _derived(groups, silu, epsilon, primals, tangents):
    x, scale, bias = primals
    mean, inverse = _moments(groups, epsilon, x)
    u = _affine(x, mean, inverse, scale, bias)
    # The checkpoint makes the linear part, and so its transpose, start from x again.
    linear = jax.checkpoint(partial(_tangent, groups, silu))
    return jax.nn.silu(u) if silu else u, linear(tangents, x, mean, inverse, scale, bias)


def _tangent(groups, silu, tangents, x, mean, inverse, scale, bias):
    """`inverse scale (dx - <dx> - c inverse^2 <c dx>) + inverse c dscale + dbias`, c = x - mean; times silu'."""
    dx, of_scale, of_bias = tangents
    dx, centred, gain = dx.astype(jnp.float32), x - _spread(mean, x.ndim), scale * inverse
    along = inverse**2 * _grouped(groups, dx * centred)
    constant = of_bias - gain * _grouped(groups, dx)
    spread = partial(_spread, ndim=x.ndim)
    du = spread(gain) * dx + spread(inverse * of_scale - gain * along) * centred + spread(constant)
    if not silu:
        return du
    u = _affine(x, mean, inverse, scale, bias)
    bent = jax.nn.sigmoid(u)
    return bent * (1 + u * (1 - bent)) * du


def _moments(groups, epsilon, x):
    """Returns mean and 1 / sqrt(variance + epsilon) of each sample and group, spread over its channels (b, c)."""
    x = x.astype(jnp.float32)
    mean = _grouped(groups, x)
    return mean, jax.lax.rsqrt(_grouped(groups, jnp.square(x - _spread(mean, x.ndim))) + epsilon)


def _affine(x, mean, inverse, scale, bias):
    gain = scale * inverse
    return (x - _spread(mean, x.ndim)) * _spread(gain, x.ndim) + _spread(bias, x.ndim)


def _grouped(groups, x):
    """Means over the voxels and the channels of each group, spread over its channels (b, c)."""
    means = jnp.mean(x, range(1, x.ndim - 1))
    return jnp.repeat(jnp.mean(means.reshape(x.shape[0], groups, -1), -1), x.shape[-1] // groups, axis=-1)


def _spread(vectors, ndim):
    return vectors.reshape(vectors.shape[0], *[1] * (ndim - 2), vectors.shape[1])

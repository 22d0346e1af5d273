"""Random changes of one image that keep it plausible: pure functions `(key, x) -> x`.

An image is (*spatial, channel), real or complex, of two or three spatial axes; a batch is `vmap` over keys and
images. Nothing here knows a sample's number: give it `fold_in(key, number)`, and the draw does not depend on
the batch or the devices.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

Augmentation = Callable[..., jax.Array]
"""`(key, x) -> x` for one image x (*spatial, channel)."""


def compose(*augmentations: Augmentation) -> Augmentation:
    """Applies augmentations one after another, number i with the key `fold_in(key, i)`.

    Args:
        *augmentations: functions `(key, x) -> x`; the first is applied first.

    Returns:
        `(key, x) -> x`; without augmentations the identity.
    """

    def augment(key, x):
        for i, augmentation in enumerate(augmentations):
            x = augmentation(jax.random.fold_in(key, i), x)
        return x

    return augment


def flip(axes: Sequence[int], probability=0.5) -> Augmentation:
    """Mirrors an image along each of the given axes, independently.

    Args:
        axes: spatial axes, from 0; leave out those along which anatomy is not symmetric.
        probability: chance of each flip.

    Returns:
        `(key, x) -> x` for x (*spatial, channel). It raises a ValueError if an axis is not a spatial axis of x.

    Raises:
        ValueError: if the probability is not in [0, 1].
    """
    axes = tuple(axes)
    if not 0 <= probability <= 1:
        raise ValueError(f"flip: probability {probability} is not in [0, 1]")

    def augment(key, x):
        spatial = _spatial(x, "flip")
        if not set(axes) <= set(range(len(spatial))):
            raise ValueError(
                f"flip: axes {axes} for an image of shape {x.shape}: use 0 to {len(spatial) - 1}"
            )
        for axis, flipped in zip(axes, jax.random.bernoulli(key, probability, (len(axes),)), strict=True):
            x = jnp.where(flipped, jnp.flip(x, axis), x)
        return x

    return augment


def crop(size: Sequence[int]) -> Augmentation:
    """Cuts a window out of an image, every position being equally likely.

    Args:
        size: spatial shape of the window.

    Returns:
        `(key, x) -> x` from (*spatial, channel) to (*size, channel). It raises a ValueError if the window has
        another rank than the image or is larger.
    """
    size = tuple(size)

    def augment(key, x):
        spatial = _spatial(x, "crop")
        if len(size) != len(spatial) or any(not 1 <= s <= n for s, n in zip(size, spatial, strict=True)):
            raise ValueError(f"crop: cannot cut {size} out of an image of shape {x.shape}: pad it first")
        last = jnp.asarray(spatial) - jnp.asarray(size)
        start = jax.random.randint(key, (len(size),), 0, last + 1)
        return jax.lax.dynamic_slice(x, (*start, 0), (*size, x.shape[-1]))

    return augment


def intensity(scale_range, gamma_range=(1.0, 1.0)) -> Augmentation:
    """Changes gain and contrast: `gain |x|^gamma x / |x|`, which keeps sign and phase.

    Args:
        scale_range: smallest and largest gain; log-uniform.
        gamma_range: smallest and largest exponent; log-uniform. A magnitude of 1 stays.

    Returns:
        `(key, x) -> x` for real or complex x (*spatial, channel) in units in which 1 is a usual maximum.

    Raises:
        ValueError: if a range is not positive and rising.
    """
    gain_low, gain_high = _log_range(scale_range, "intensity: scale_range")
    gamma_low, gamma_high = _log_range(gamma_range, "intensity: gamma_range")

    def augment(key, x):
        shares = jax.random.uniform(key, (2,))
        log_gain = gain_low + (gain_high - gain_low) * shares[0]
        gamma = jnp.exp(gamma_low + (gamma_high - gamma_low) * shares[1])
        # |x|^2 rather than |x|, and never log(0): gradients stay finite on an empty background.
        power = jnp.real(x * jnp.conj(x))
        log_power = jnp.log(jnp.where(power > 0, power, 1.0))
        return x * jnp.exp(log_gain + 0.5 * (gamma - 1) * log_power).astype(power.dtype)

    return augment


def _spatial(x, name):
    if x.ndim not in (3, 4):
        raise ValueError(
            f"{name}: an image of shape {x.shape} is not (*spatial, channel) with two or three spatial axes; "
            "a batch is vmap"
        )
    return x.shape[:-1]


def _log_range(bounds, name):
    low, high = bounds
    if not 0 < low <= high:
        raise ValueError(f"{name} {tuple(bounds)}: give two positive numbers, the smaller first")
    return math.log(low), math.log(high)

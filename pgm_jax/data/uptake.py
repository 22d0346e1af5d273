"""Random changes of an image of activity that keep it plausible: smooth variation of the uptake, and lesions."""

import jax
import jax.numpy as jnp

from pgm_jax.data.augment import Augmentation, _log_range, _spatial

# TensorFloat and bfloat16 products would make steps in a smooth field.
_EXACT = jax.lax.Precision.HIGHEST


def regional_uptake(strength=0.15, waves=4, cycles=1.5) -> Augmentation:
    """Multiplies an image by a smooth random field, `exp(s f)`.

    `f` is a sum of plane waves of Normal amplitude whose frequencies are uniform in [-cycles, cycles] periods of
    the image along each axis, of unit variance; s is uniform in [0, strength].

    Args:
        strength: largest standard deviation of the logarithm of the uptake.
        waves: number of plane waves.
        cycles: largest number of periods across the image.

    Returns:
        `(key, x) -> x` for real x (*spatial, channel).

    Raises:
        ValueError: if strength or cycles is negative, or there is no wave.
    """
    if strength < 0 or cycles < 0 or waves < 1:
        raise ValueError(
            f"regional_uptake: strength {strength}, cycles {cycles}, waves {waves}: give at least 0, 0 and 1"
        )

    def augment(key, x):
        spatial = _spatial(x, "regional_uptake")
        amplitude_key, wave_key, phase_key, share_key = jax.random.split(key, 4)
        amplitudes = jax.random.normal(amplitude_key, (waves,)) * (2 / waves) ** 0.5
        turns = jax.random.uniform(wave_key, (len(spatial), waves), minval=-cycles, maxval=cycles)
        last = (*[1] * len(spatial), waves)
        angle = jax.random.uniform(phase_key, last)
        for axis, size in enumerate(spatial):
            line = jnp.linspace(0.0, 1.0, size).reshape([size if a == axis else 1 for a in range(x.ndim)])
            angle = angle + line * turns[axis].reshape(last)
        field = jnp.tensordot(jnp.cos(2 * jnp.pi * angle), amplitudes, 1, precision=_EXACT)
        share = strength * jax.random.uniform(share_key)
        return (x * jnp.exp(share * field)[..., None]).astype(x.dtype)

    return augment


def lesions(count=2, chance=0.35, radius=(1.5, 5.0), hot=(1.2, 2.0), cold=(0.05, 0.7)) -> Augmentation:
    """Replaces the activity within random ellipses by another one: hot lesions or cold ones, at equal chance.

    Centres are drawn among pixels with activity, the more likely the higher it is. Borders are a pixel wide.

    Args:
        count: largest number of lesions.
        chance: chance of each.
        radius: smallest and largest half axis in pixels; log-uniform.
        hot: lowest and highest activity of a hot lesion in units of the image, where 1 is grey matter; log-uniform.
        cold: likewise for a cold one.

    Returns:
        `(key, x) -> x` for real x (height, width, channel) >= 0. It raises a ValueError for volumes.

    Raises:
        ValueError: for a chance outside [0, 1], or a range that is not positive and rising.
    """
    if not 0 <= chance <= 1 or count < 1:
        raise ValueError(f"lesions: chance {chance} is not in [0, 1] or count {count} below 1")
    sizes = _log_range(radius, "lesions: radius")
    levels = jnp.asarray([_log_range(hot, "lesions: hot"), _log_range(cold, "lesions: cold")])

    def one(key, x):
        place_key, share_key = jax.random.split(key)
        shares = jax.random.uniform(share_key, (6,))
        low, high = levels[(shares[0] < 0.5).astype(int)]
        level = jnp.exp(low + (high - low) * shares[1])
        logits = jnp.where(x[..., 0] > 0.1, jnp.log(jnp.maximum(x[..., 0], 1e-3)), -jnp.inf)
        # An image without activity has nowhere to put a lesion.
        some = jnp.any(jnp.isfinite(logits))
        place = jax.random.categorical(place_key, jnp.where(some, logits, 0.0).ravel())
        row, column = place // x.shape[1], place % x.shape[1]
        y, z = jnp.arange(x.shape[0])[:, None] - row, jnp.arange(x.shape[1])[None, :] - column
        turn, axes = jnp.pi * shares[2], jnp.exp(sizes[0] + (sizes[1] - sizes[0]) * shares[3:5])
        u, v = jnp.cos(turn) * y + jnp.sin(turn) * z, jnp.cos(turn) * z - jnp.sin(turn) * y
        away = jnp.sqrt((u / axes[0]) ** 2 + (v / axes[1]) ** 2) - 1
        mask = jnp.clip(0.5 - away * jnp.min(axes), 0.0, 1.0)[..., None]
        mask = jnp.where(some & (shares[5] < chance), mask, 0.0)
        return (x + mask * (level - x)).astype(x.dtype)

    def augment(key, x):
        if len(_spatial(x, "lesions")) != 2:
            raise ValueError(
                f"lesions: an image of shape {x.shape} is not (height, width, channel): use slices"
            )
        for number in range(count):
            x = one(jax.random.fold_in(key, number), x)
        return x

    return augment

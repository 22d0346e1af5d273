"""How far two batches of images are apart: `(a, b) -> (batch,)`, the distances of consistency objectives.

Any function of that form will do, such as one on the features of a network that is at hand; `pyramid` is a
perceptual one that needs no weights.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from pgm_jax.core import real_size, split_complex
from pgm_jax.training.objectives.residual import mean_square

Distance = Callable[..., jax.Array]
"""`(a, b) -> (batch,)`, real and differentiable where a = b."""

# Improved consistency training's c is this times the root of the number of components.
_HUBER = 0.00054


def squared(a, b):
    """Returns the mean over components of |a - b|^2.

    Args:
        a: (batch, ...), real or complex.
        b: as a.

    Returns:
        (batch,).
    """
    return mean_square(a - b)


def pseudo_huber(c=None) -> Distance:
    """Makes `sqrt(|a - b|^2 + c^2) - c` of the whole image's norm (Song and Dhariwal 2024, Eq. 7).

    Args:
        c: where it turns from a square into a norm; .00054 sqrt(N) by default, N the real components.

    Returns:
        `(a, b) -> (batch,)`.

    Raises:
        ValueError: unless c > 0: without it the gradient at a = b is not defined.
    """
    if c is not None and not c > 0:
        raise ValueError(f"pseudo_huber needs c > 0, got {c}: use a small one for nearly the plain norm.")

    def distance(a, b):
        size = real_size(a) // a.shape[0]
        # Scaled by the size, so that float32 keeps |a - b|^2 << c^2.
        bend = _HUBER * math.sqrt(size) if c is None else c
        total = size * mean_square(a - b)
        # sqrt(v + c^2) - c without cancellation.
        return total / (jnp.sqrt(total + bend**2) + bend)

    return distance


def pyramid(levels: int = 4, c: float = 1e-3) -> Distance:
    """Makes a distance that weighs edges and structures of several sizes alike, without a trained network.

    At each of some halvings of the resolution (means of two by two pixels), the mean over places of
    `sqrt(|d|^2 + c^2) - c` of the difference d and of its finite differences along each axis: what is wrong at a
    large scale counts at every level, and what is wrong with an edge or a texture also by its slope.

    Args:
        levels: number of resolutions; sides are odd from some level on, where it stops.
        c: where it turns from a square into an absolute value.

    Returns:
        `(a, b) -> (batch,)` for images (batch, *spatial, channels).

    Raises:
        ValueError: for fewer than one level or c not above 0.
    """
    if levels < 1 or not c > 0:
        raise ValueError(f"pyramid needs levels >= 1 and c > 0, got {levels} and {c}.")

    def distance(a, b):
        d, total = split_complex(a - b), 0.0
        for level in range(levels):
            spatial = range(1, d.ndim - 1)
            total += _bent(d, c) + sum(_bent(jnp.diff(d, axis=axis), c) for axis in spatial)
            if level + 1 == levels or any(d.shape[axis] % 2 or d.shape[axis] < 4 for axis in spatial):
                break
            for axis in spatial:
                d = d.reshape(*d.shape[:axis], -1, 2, *d.shape[axis + 1 :]).mean(axis + 1)
        return total

    return distance


def _bent(d, c):
    square = d**2
    return jnp.mean(square / (jnp.sqrt(square + c**2) + c), axis=tuple(range(1, d.ndim)))

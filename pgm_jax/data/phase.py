"""Smooth random phase, as receive coils and field inhomogeneity give it to magnetic resonance images."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax.data.augment import Augmentation, _spatial

_DEGREE = 3
# TensorFloat and bfloat16 products would make steps in a smooth field.
_EXACT = jax.lax.Precision.HIGHEST


def smooth_phase(turns=1.0, terms=3) -> Augmentation:
    """Multiplies an image by `exp(i phi)`, phi a smooth random field.

    `phi / 2 pi = offset + span f`: offset uniform in [0, 1), span uniform in [0, turns], and f scaled to a
    range of one. With coordinates u in [-1, 1] along each axis, f is a polynomial of total degree 3 whose
    monomials of degree k weigh a Normal number over k!, plus `terms` plane waves `cos(pi w . u + b)`, with w
    uniform in [-1, 1] along each axis (at most one period across the image), b uniform, and a Normal
    weight of standard deviation 1 / 2.

    Args:
        turns: largest range of the phase over the image, in turns; smaller for patches of an image.
        terms: number of plane waves.

    Returns:
        `(key, x) -> x` for real or complex x (*spatial, channel); the result is complex64, and all channels
        have the same phase.

    Raises:
        ValueError: if turns or terms is negative.
    """
    if turns < 0 or terms < 0:
        raise ValueError(f"smooth_phase: turns {turns} and terms {terms} must not be negative")

    def augment(key, x):
        spatial = _spatial(x, "smooth_phase")
        powers = (_DEGREE + 1) ** len(spatial)
        normal_key, uniform_key = jax.random.split(key)
        normal = jax.random.normal(normal_key, (powers + terms,))
        uniform = jax.random.uniform(uniform_key, (2 + terms * (1 + len(spatial)),))
        offset, share, uniform = uniform[0], uniform[1], uniform[2:].reshape(terms, -1)
        field = _polynomial(normal[:powers], spatial)
        field += _plane_waves(0.5 * normal[powers:], 2 * uniform[:, 1:] - 1, uniform[:, 0], spatial)
        extent = field.max() - field.min()
        cycles = offset + turns * share * field / jnp.where(extent > 0, extent, 1.0)
        phase = 2 * jnp.pi * cycles[..., None]
        return (x * jax.lax.complex(jnp.cos(phase), jnp.sin(phase))).astype(jnp.complex64)

    return augment


def _polynomial(normal, spatial):
    """Sums the monomials of total degree 1 to 3 in coordinates in [-1, 1], weighed by normal / degree!."""
    degree = np.indices((_DEGREE + 1,) * len(spatial)).sum(0)
    taylor = [1 / math.factorial(k) if 1 <= k <= _DEGREE else 0.0 for k in degree.ravel().tolist()]
    field = (normal * np.array(taylor, np.float32)).reshape(degree.shape)
    for line in _coordinates(spatial):
        # The powers of the first axis give way to its pixels, which become the last axis.
        powers = np.vander(line, _DEGREE + 1, increasing=True)
        field = jnp.tensordot(field, powers, ((0,), (1,)), precision=_EXACT)
    return field


def _plane_waves(weights, waves, shifts, spatial):
    """Sums weights (n,) times `cos(pi waves . u + 2 pi shifts)`, waves (n, d) and shifts (n,)."""
    angle = 2 * jnp.pi * jnp.expand_dims(shifts, tuple(range(1, 1 + len(spatial))))
    for axis, line in enumerate(_coordinates(spatial)):
        others = [1 + other for other in range(len(spatial)) if other != axis]
        angle += jnp.pi * jnp.expand_dims(waves[:, axis, None] * line[None], others)
    return jnp.tensordot(weights, jnp.cos(angle), 1, precision=_EXACT)


def _coordinates(spatial):
    return [np.linspace(-1.0, 1.0, n, dtype=np.float32) for n in spatial]

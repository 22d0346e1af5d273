"""The evidence of a Fourier-diagonal Gaussian as a sum over frequencies, kept exact in float32."""

import jax
import jax.numpy as jnp
import numpy as np

# Decades around the mean energy, then around the best candidate, in which the noise variance is looked for.
_SCANS = ((-10.0, 1.0), (-0.46, 0.46))
_NODES = 25


def multiplicity(shape, is_complex: bool, dtype):
    """Counts the real components that each kept frequency stands for.

    A complex image keeps all frequencies, two components each. A real one keeps w // 2 + 1 of the last
    spatial axis, and all but the first (and the last, for even w) stand for their mirror image too.

    Args:
        shape: shape of the image, (..., w, channel).
        is_complex: whether the image is complex.
        dtype: real dtype.

    Returns:
        Array (1, ..., kept, 1) that broadcasts against the kept frequencies.
    """
    width = shape[-2]
    k = np.arange(width if is_complex else width // 2 + 1)
    single = (not is_complex) & ((k == 0) | (2 * k == width))
    return jnp.asarray(np.where(single, 1.0, 2.0), dtype).reshape((1,) * (len(shape) - 2) + (-1, 1))


def likely_variance(energy, signal, weighted):
    """Finds a noise variance near the maximum of the evidence, by two scans.

    It is a reference level from which float32 evidence is measured, a constant to derivatives: results
    depend on it by rounding only.

    Args:
        energy: squared modulus per real component at each frequency.
        signal: variance of the signal at each frequency.
        weighted: `terms -> sum` over frequencies.

    Returns:
        Positive real scalar.
    """
    energy, signal = jax.lax.stop_gradient((energy, signal))
    evidence = jax.vmap(lambda v: -weighted(energy / (signal + v) + jnp.log(signal + v)))
    centre = jnp.mean(energy) + jnp.finfo(energy.dtype).tiny
    for decades in _SCANS:
        candidates = centre * jnp.logspace(*decades, _NODES, dtype=energy.dtype)
        centre = candidates[jnp.argmax(evidence(candidates))]
    return centre

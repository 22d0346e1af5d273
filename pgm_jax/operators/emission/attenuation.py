"""Attenuation maps of emission scans: their check, and the survival of photon pairs along lines."""

import jax
import jax.numpy as jnp
import numpy as np

# Bone has 0.03/mm at 140 keV and 0.017/mm at 511 keV, water in 1/cm 0.15 and 0.096.
_HIGHEST_MEAN = 0.05


def require_attenuation(attenuation, shape):
    """Checks an attenuation map; its numbers on the host only, outside of `jit`.

    Args:
        attenuation: map of the shape of the image, in 1/mm.
        shape: that shape.

    Returns:
        The map as an array.

    Raises:
        ValueError: for another shape, numbers that are negative or not finite, or such as no body has in 1/mm.
    """
    if np.shape(attenuation) != tuple(shape):
        raise ValueError(
            f"attenuation needs the shape {tuple(shape)} of the image, got {np.shape(attenuation)}: resample it"
        )
    if isinstance(attenuation, jax.core.Tracer):
        return attenuation
    attenuation = np.asarray(attenuation)
    if not np.all(np.isfinite(attenuation)) or np.any(attenuation < 0):
        raise ValueError("attenuation needs finite numbers >= 0 in 1/mm: convert HU first, and clip air to 0")
    present = attenuation[attenuation > 0]
    if present.size and present.mean() > _HIGHEST_MEAN:
        raise ValueError(
            f"attenuation has a mean of {present.mean():.3g}, too much for a body in 1/mm: divide by 10 if it "
            "is in 1/cm"
        )
    return attenuation


def survival(projector, attenuation):
    """Computes the share of photon pairs that leave the body along every line, `exp(-int mu dl)`.

    Both photons of a pair cross the whole line between them, so it does not depend on where they started.

    Args:
        projector: projector in mm, such as `ParallelBeam`.
        attenuation: map of the shape of `projector.domain`, in 1/mm at 511 keV.

    Returns:
        Array of the shape of `projector.range`, in (0, 1].

    Raises:
        ValueError: see `require_attenuation`.
    """
    attenuation = require_attenuation(attenuation, projector.domain.shape)
    return jnp.exp(-projector(jnp.asarray(attenuation, projector.domain.dtype)))

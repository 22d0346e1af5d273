"""What a guidance needs of its likelihood, checked when it is built."""

import jax

from pgm_jax.operators import GaussianLikelihood


def require_gaussian(likelihood, name: str, weights: bool = True) -> None:
    """Checks that a guidance got one linear Gaussian measurement.

    Args:
        likelihood: what was given.
        name: name of the guidance.
        weights: False if the guidance would ignore relative precisions.

    Raises:
        ValueError: for another kind of likelihood, a sum of several, or weights that would be ignored.
    """
    if not isinstance(likelihood, GaussianLikelihood):
        raise ValueError(
            f"{name} needs one GaussianLikelihood, got {type(likelihood).__name__}: stack several measurements "
            "into one, or use dds or moment_matching for a sum, dps for another noise model."
        )
    if not weights and likelihood.weights is not None:
        raise ValueError(
            f"{name} would ignore the weights of its likelihood: keep only measured entries in place of weights."
        )


def require_noise(likelihood, name: str) -> None:
    """Checks that no noise level by which a guidance divides is 0; a traced level is let through.

    Args:
        likelihood: a likelihood, or a sum of them.
        name: name of the guidance.

    Raises:
        ValueError: if a noise_std is 0.
    """
    for part in getattr(likelihood, "parts", (likelihood,)):
        level = getattr(part, "noise_std", None)
        if level is not None and not isinstance(level, jax.core.Tracer) and float(level) == 0:
            raise ValueError(
                f"{name} divides by the noise level, and noise_std is 0: give the level of the measurement, or "
                "a small positive one."
            )

"""Simulated emission scans: trues of a given number, scatter, randoms and Poisson counts."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from pgm_jax.operators.counts import sample_counts
from pgm_jax.operators.emission.collimator import band, blur, collimator_kernels


class EmissionScan(NamedTuple):
    """A simulated scan.

    Attributes:
        y: counts, like a measurement.
        background: expected scatter and randoms, like y.
        scale: factor on the activity, so that `y ~ Poisson(A (scale x) + background)`.
    """

    y: Any
    background: Any
    scale: Any


def simulate_scan(key, operator, activity, trues, *, scatter=0.3, randoms=0.5) -> EmissionScan:
    """Draws the counts of a scan of given statistics.

    Scatter is the trues spread over the detector by a normal law of half its width, randoms are uniform. A
    brain scan in 3-D has 1e7 to 1e9 trues, a slice of it 1e5 to 1e6. Simulate on a finer grid than the
    reconstruction, or with another projector, lest the model be its own proof.

    Args:
        key: random key.
        operator: linear operator A to sinograms (views, bins, ...), such as `PET`.
        activity: image x of the shape of `operator.domain`, any unit.
        trues: expected number of true coincidences.
        scatter: expected scattered over true coincidences, in total.
        randoms: expected random over true coincidences, in total.

    Returns:
        `EmissionScan`.
    """
    projected = operator(activity)
    scale = trues / jnp.sum(projected)
    mean = scale * projected
    bins = projected.shape[1]
    kernel = jnp.asarray(collimator_kernels(np.zeros(()), bins / 2, 0.0, 1.0), mean.dtype)
    spread = blur(mean, band(kernel, bins), 1)
    background = scatter * spread * (trues / jnp.sum(spread)) + randoms * trues / projected.size
    return EmissionScan(sample_counts(key, mean + background), background, scale)

"""Distances between sets of samples, and how often truth lies where samples say."""

import jax
import jax.numpy as jnp

from pgm_jax.core import split_complex


def _mean_distance(a, b):
    def row(point):
        square = jnp.sum((point[None] - b) ** 2, axis=1)
        # Not `> 0`: NaN must stay NaN.
        positive = square != 0
        return jnp.mean(jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1.0)), 0.0))

    # One row at a time: the full table of differences would be n x m x size.
    return jnp.mean(jax.lax.map(row, a))


def _flat(samples):
    return split_complex(jnp.reshape(samples, (samples.shape[0], -1)))


def energy_distance(a, b):
    """Computes the energy distance `2 E|a - b| - E|a - a'| - E|b - b'|` of two sets of samples.

    Means run over all pairs, a sample with itself included (the V-statistic), so the result is >= 0 and 0
    only for equal sets; for equal laws it is about (1/n + 1/m) E|a - a'| rather than 0.

    Source: G. J. Szekely and M. L. Rizzo, Energy statistics, J. Stat. Plan. Inference 143 (2013).

    Args:
        a: samples (n, ...), real or complex.
        b: samples (m, ...) of the same shape after the first axis.

    Returns:
        Real scalar in the unit of the samples.

    Raises:
        ValueError: if the sample shapes differ.
    """
    if jnp.shape(a)[1:] != jnp.shape(b)[1:]:
        raise ValueError(
            f"samples of shapes {jnp.shape(a)[1:]} and {jnp.shape(b)[1:]} cannot be compared: "
            "give sets (n, ...) and (m, ...) of one shape"
        )
    a, b = _flat(jnp.asarray(a)), _flat(jnp.asarray(b))
    return 2 * _mean_distance(a, b) - _mean_distance(a, a) - _mean_distance(b, b)


def coverage(samples, truth, level):
    """Computes the fraction of entries of the truth inside the central interval of the samples.

    The interval runs between the (1 - level) / 2 and (1 + level) / 2 quantiles of each entry (linear between
    order statistics). For n samples of the right law it is expected to hold about level (n - 1) / (n + 1).

    Args:
        samples: real samples (n, ...), in the unit of the truth.
        truth: real array (...).
        level: nominal probability in [0, 1].

    Returns:
        Real scalar in [0, 1].

    Raises:
        ValueError: if the shapes do not fit.
    """
    if jnp.shape(samples)[1:] != jnp.shape(truth):
        raise ValueError(
            f"samples of shape {jnp.shape(samples)} need a truth of shape {jnp.shape(samples)[1:]}, "
            f"got {jnp.shape(truth)}: give samples (n, ...) and truth (...)"
        )
    low, high = jnp.quantile(jnp.asarray(samples), jnp.asarray([(1 - level) / 2, (1 + level) / 2]), axis=0)
    return jnp.mean((truth >= low) & (truth <= high))

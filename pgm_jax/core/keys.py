"""Randomness per sample, then per step.

A draw depends on the run's key, the sample's index and the step's index, and on nothing else: not on the
batch size, the device count or the sharding.
"""

import jax

# Steps are numbered from 0; the prior's fold is the largest uint32, which no grid reaches.
_PRIOR = 0xFFFFFFFF


def sample_key(key, index):
    """Derives the key of one sample of a run: `fold_in(key, index)`.

    Args:
        key: PRNG key of the run.
        index: number of the sample, from 0.

    Returns:
        PRNG key.
    """
    return jax.random.fold_in(key, index)


def step_key(sample_key, step):
    """Derives the key of one step of one sample: `fold_in(sample_key, step)`.

    Args:
        sample_key: PRNG key of the sample.
        step: number of the step, from 0.

    Returns:
        PRNG key.
    """
    return jax.random.fold_in(sample_key, step)


def prior_key(sample_key):
    """Derives the key with which one sample draws its starting point.

    Args:
        sample_key: PRNG key of the sample.

    Returns:
        PRNG key.
    """
    return jax.random.fold_in(sample_key, _PRIOR)

"""Randomness per sample, then per step.

A draw depends on the run's key, the sample's index and the step's index, and on nothing else: not on the
batch size, the device count or the sharding.
"""

import jax

# Steps are numbered from 0; the prior's fold is the largest uint32, which no grid reaches.
_PRIOR = 0xFFFFFFFF


def sample_key(key, index):
    """Returns the key of sample number `index` of a run: `fold_in(key, index)`."""
    return jax.random.fold_in(key, index)


def step_key(sample_key, step):
    """Returns the key of step number `step` of one sample: `fold_in(sample_key, step)`."""
    return jax.random.fold_in(sample_key, step)


def prior_key(sample_key):
    """Returns the key with which one sample draws its starting point."""
    return jax.random.fold_in(sample_key, _PRIOR)

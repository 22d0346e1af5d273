"""Augmentation inside the step: the same random change to each image of a sample, before the objective."""

import jax

from pgm_jax.core import Objective, sample_key
from pgm_jax.training.objectives.pairs import indices


def augmented(augment, objective: Objective, on=("x0",)) -> Objective:
    """Makes an objective that first changes each sample at random.

    Every entry that is named gets the same key, so a flip or a crop moves an image and its condition alike.

    Args:
        augment: `(key, x) -> x` for one image, such as those of `data.augment`.
        objective: objective of the changed batch.
        on: entries of the batch to change, "/" before an inner key: `("x0", "x1", "cond/image")`.

    Returns:
        Objective. Sample i is changed with a key of `index[i]`, as `denoising` draws. It raises a ValueError if
        the batch has no entry of a given name.
    """

    def changed(params, carry, batch, key):
        key_augment, key_objective = jax.random.split(key)
        index = indices(batch)
        change = jax.vmap(lambda i, x: augment(sample_key(key_augment, i), x))
        for name in on:
            batch = _replaced(batch, name.split("/"), lambda x: change(index, x))
        return objective(params, carry, batch, key_objective)

    return changed


def _replaced(batch, path, change):
    name, *inner = path
    if not isinstance(batch, dict) or name not in batch:
        held = sorted(batch) if isinstance(batch, dict) else "no entries"
        raise ValueError(f"augmented: no entry {name!r} to change; there are {held}.")
    value = batch[name]
    return batch | {name: _replaced(value, inner, change) if inner else change(value)}

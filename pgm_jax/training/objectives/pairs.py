"""Training pairs: the noised image, its time, and what it was made of; and the metrics that name the worst one."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pgm_jax.core import Estimate, sample_key
from pgm_jax.training.objectives import levels as level_draws

# A time of exactly 0 leaves ratios of schedules undefined; this is below the smallest level of any use, and
# every weight is finite there in float32.
EARLIEST = 1e-10

# Samples are numbered from 0; this fold is the largest number, which no batch reaches.
_WHOLE_STEP = 0xFFFFFFFF
# Folds of a sample's own key, apart from the split that gives its time and its noise.
_CONDITION, _NETWORK = 2, 3


class Pairs(NamedTuple):
    """A batch of noised images and the coordinates of each on its path, every field with a leading batch axis.

    Attributes:
        x_t: noised images.
        t: (b,) times.
        x0: regression targets: the clean images, or posterior means.
        noise: unit noise for which `process.mix(Estimate(x0, noise, x1), t)` is x_t.
        x1: end points of a bridge, or None.
    """

    x_t: Any
    t: Any
    x0: Any
    noise: Any
    x1: Any = None


def draw_pairs(process, levels, batch, key, *, stratified=False) -> Pairs:
    """Draws a time and a noised image for every clean image, in float32 or complex64 (or wider).

    Sample i uses `fold_in(key, batch["index"][i])`, so a draw depends on the sample's number in the global
    batch and not on how the batch is laid out.

    Args:
        process: affine process.
        levels: `(process, u) -> t`, see `levels`.
        batch: dict with "x0", and "x1" for a bridge, and optionally "index" (b,).
        key: PRNG key of the step.
        stratified: spread the times evenly over the batch, see `levels.stratified`.

    Returns:
        `Pairs`.
    """
    index = indices(batch)
    images = {name: at_least_float32(batch[name]) for name in ("x0", "x1") if batch.get(name) is not None}

    def one(index, u, image):
        _, key_noise = jax.random.split(sample_key(key, index))
        t = jnp.maximum(levels(process, u), EARLIEST)
        x0, x1 = image["x0"], image.get("x1")
        # What process.perturb does with this key; the noise itself is needed for the target.
        noise = process.law.sample(key_noise, x0.shape, x0.dtype)
        return Pairs(process.mix(Estimate(x0, noise, x1), t), t, x0, noise, x1)

    return jax.vmap(one)(index, uniforms(key, index, stratified=stratified), images)


def uniforms(key, index, *, stratified=False):
    """Draws the quantile of each sample's time, the same whenever it is asked for.

    Args:
        key: PRNG key of the step.
        index: (b,) numbers of the samples.
        stratified: see `draw_pairs`.

    Returns:
        (b,) in (0, 1).
    """
    if stratified:
        whole = jax.random.fold_in(key, _WHOLE_STEP)
        return jax.vmap(lambda i: level_draws.stratified(whole, i))(index)
    return jax.vmap(lambda i: level_draws.independent(jax.random.split(sample_key(key, i))[0]))(index)


def indices(batch):
    """Returns the samples' numbers in the global batch: `batch["index"]`, or 0, 1, ... without it.

    Args:
        batch: dict of arrays with a leading batch axis.

    Returns:
        (b,) int32.

    Raises:
        ValueError: if the batch has no "x0", or its entries have different lengths.
    """
    if "x0" not in batch:
        raise ValueError(f'a batch needs "x0", the clean images; this one has {sorted(batch)}.')
    sizes = {leaf.shape[0] for leaf in jax.tree.leaves(batch)}
    if len(sizes) != 1:
        raise ValueError(f"the entries of the batch have leading axes {sorted(sizes)}: they must be equal.")
    return jnp.asarray(batch.get("index", jnp.arange(*sizes)), jnp.int32)


def drop_key(key, index):
    """Derives the key that decides whether sample `index` loses its condition.

    Args:
        key: PRNG key of the step.
        index: number of the sample.

    Returns:
        PRNG key.
    """
    return jax.random.fold_in(sample_key(key, index), _CONDITION)


def network_keys(key, index):
    """Derives the keys of the network's dropout, one for each sample.

    Args:
        key: PRNG key of the step.
        index: (b,) numbers of the samples.

    Returns:
        (b,) PRNG keys.
    """
    return jax.vmap(lambda i: jax.random.fold_in(sample_key(key, i), _NETWORK))(index)


def summary(losses, level):
    """Averages the losses and names the noise level of the worst: a non-finite one, else the largest.

    Only maxima are taken, so that under data parallelism two numbers cross devices and no vector is gathered.

    Args:
        losses: (b,) losses.
        level: (b,) noise levels.

    Returns:
        `(loss, metrics)` with "loss" and "worst_level".
    """
    loss = jnp.mean(losses)
    badness = jnp.where(jnp.isfinite(losses), losses, jnp.inf)
    worst = jnp.max(jnp.where(badness == jnp.max(badness), level, -jnp.inf))
    return loss, {"loss": loss, "worst_level": worst}


def at_least_float32(x):
    """Returns an array in float32 or complex64, or wider, where losses are computed whatever the images are.

    Args:
        x: real or complex array.

    Returns:
        Array.
    """
    x = jnp.asarray(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))

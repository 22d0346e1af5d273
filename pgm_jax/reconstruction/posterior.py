"""Draws from the posterior of an image given a measurement: one call, one compiled program."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pgm_jax.core import sample_key
from pgm_jax.reconstruction.posterior_plan import (
    GUIDES as GUIDES,
    over_draws,
    planned,
    sampling,
)
from pgm_jax.samplers import sample_one


class Posterior(NamedTuple):
    """What draws say of an image.

    Attributes:
        mean: pixel-wise mean of the draws, the estimate of least squared error.
        std: their pixel-wise standard deviation, per real component; 0 for one draw.
        draws: (draws, *image).
    """

    mean: jax.Array
    std: jax.Array
    draws: jax.Array


def posterior(
    key,
    prior,
    likelihood,
    *,
    method="dds",
    steps: int = 50,
    draws: int = 8,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    levels=None,
    start=None,
    process=None,
    sampler=None,
    cond=None,
    together: int | None = None,
    mesh=None,
    unit: str | None = None,
    **options,
) -> Posterior:
    """Draws images from `p(x | y) ~ p(y | x) p(x)` and returns their mean, standard deviation and the draws.

    Each draw descends the grid `karras(steps, sigma_min, sigma_max)` with the prior's denoiser under a guidance by
    the likelihood. All is one compiled program; a new measurement of the same shape, a new key, new weights or a
    new D do not compile again. Draw i depends on the key and on i alone.

    Args:
        key: PRNG key.
        prior: a trained prior (`load_prior`), or an exact prior of `pgm_jax.priors` with `process`.
        likelihood: p(y | x), in the units of the prior's images, such as `GaussianLikelihood.create(A, y, std)`.
        method: a name in `GUIDES`, or a function `likelihood -> guidance` of your own: define it once, since
            another function object compiles again.
        steps: steps of the grid; evaluations of the network for one draw, twice that with Heun.
        draws: number of draws. Mean and spread of few draws are rough: the mean's variance is (1 + 1/draws) times
            the posterior's.
        sigma_min: last noise level above 0, in units of the image.
        sigma_max: first noise level; with `start` a level at which its errors drown, such as 1.
        levels: falling noise levels at which the network is evaluated, in place of the grid of steps, sigma_min and
            sigma_max: two or four of them for a few-step prior, with "dds" (few-step DDS).
        start: image from which the draws start, perturbed to `sigma_max` (jump start), for example `fbp` or
            `cg_sense`; None starts from noise.
        process: process of the draws; by default the trained prior's own.
        sampler: function that makes a sampler, such as `heun`; by default the one of the method, `heun` for a
            function of your own.
        cond: condition of the denoiser.
        together: draws that are computed at once, a bound on memory; None is all.
        mesh: mesh whose devices share the draws; their number divides `draws`.
        unit: unit of the operator's images, compared with what a trained prior's card states; None trusts that it
            is the same. Data of an image in another unit are divided by the value c of that image that is 1 for
            the prior, and so is their noise: `GaussianLikelihood.create(A, y / c, noise_std / c)`.
        **options: options of the method, such as `gamma` of dds; numbers or functions that are kept. `cg` is the
            number of conjugate gradient steps of dds and diffpir at each evaluation.

    Returns:
        `Posterior`.

    Raises:
        ValueError: for an unknown method, a prior without a process, fewer than one draw, draws that the mesh or
            `together` do not divide, a prior or start that do not fit the operator's images, or what guidance,
            sampler and noise law refuse.
    """
    asked = (method, steps, draws, sigma_min, sigma_max, start, process, sampler)
    plan, process = planned(prior, likelihood, *asked, together, mesh, unit, options, levels)
    return _run(plan, key, prior, process, likelihood, start, cond)


@functools.partial(jax.jit, static_argnums=0)
def _run(plan, key, prior, process, likelihood, start, cond):
    sampled = sampling(plan, prior, process, likelihood, cond)

    def draw(index):
        key_start, key_sample = jax.random.split(sample_key(key, index))
        if start is None:
            return sample_one(
                key_sample, *sampled.arguments, **sampled.options, shape=plan.shape, dtype=plan.dtype
            )
        level = jnp.asarray(plan.grid[0], jnp.finfo(start.dtype).dtype)
        x_init = process.perturb(key_start, start, level)
        return sample_one(key_sample, *sampled.arguments, **sampled.options, x_init=x_init)

    images = over_draws(plan, draw)
    mean = jnp.mean(images, axis=0)
    return Posterior(mean, _spread(images, mean), images)


def _spread(images, mean):
    """Standard deviation of one real component: of complex images half the squares are each part's."""
    parts = 2 if jnp.iscomplexobj(images) else 1
    squares = jnp.sum(jnp.square(jnp.abs(images - mean[None])), axis=0)
    return jnp.sqrt(squares / (parts * max(1, len(images) - 1)))

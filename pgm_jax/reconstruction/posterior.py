"""Draws from the posterior of an image given a measurement: one call, one compiled program."""

import difflib
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax import guidance as guides
from pgm_jax.core import sample_key
from pgm_jax.parallel import batch_sharding
from pgm_jax.processes import karras
from pgm_jax.samplers import ddim, heun, sample_one


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


class Guide(NamedTuple):
    """A guidance by name.

    Attributes:
        make: `(likelihood, **options) -> guidance`.
        sampler: function that makes the sampler it is published or proved with, for every noise law.
        summary: what it is, in a few words.
    """

    make: Callable
    sampler: Callable
    summary: str


def _marginal():
    return ddim(1.0, of="marginal")


GUIDES = {
    "dds": Guide(guides.dds, _marginal, "conjugate gradients on the clean image (Chung et al. 2024)"),
    "diffpir": Guide(guides.diffpir, _marginal, "proximal step with annealed weight (Zhu et al. 2023)"),
    "moment_matching": Guide(guides.moment_matching, heun, "covariance from the denoiser's own Jacobian"),
    "pigdm": Guide(guides.pigdm, heun, "pseudo-inverse guidance (Song et al. 2023)"),
    "dps": Guide(guides.dps, heun, "gradient of the residual's norm (Chung et al. 2023)"),
}
"""Guidance of `posterior` by name."""


class _Plan(NamedTuple):
    """What is static of a run: hashed, so that a second call with the same plan does not compile."""

    guide: Any
    options: tuple
    sampler: Any
    grid: tuple
    draws: int
    together: int | None
    shape: tuple
    dtype: Any
    mesh: Any


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
    start=None,
    process=None,
    sampler=None,
    cond=None,
    together: int | None = None,
    mesh=None,
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
        start: image from which the draws start, perturbed to `sigma_max` (jump start), for example `fbp` or
            `cg_sense`; None starts from noise.
        process: process of the draws; by default the trained prior's own.
        sampler: function that makes a sampler, such as `heun`; by default the one of the method, `heun` for a
            function of your own.
        cond: condition of the denoiser.
        together: draws that are computed at once, a bound on memory; None is all.
        mesh: mesh whose devices share the draws; their number divides `draws`.
        **options: options of the method, such as `gamma` of dds; numbers or functions that are kept.

    Returns:
        `Posterior`.

    Raises:
        ValueError: for an unknown method, a prior without a process, fewer than one draw, draws that the mesh or
            `together` do not divide, or what guidance, sampler and noise law refuse.
    """
    guide, make_sampler = _chosen(method, sampler)
    process = _process_of(prior, process)
    domain = likelihood.operator.domain if start is None else start
    _require_draws(draws, together, mesh)
    grid = karras(steps, sigma_min, sigma_max, process=process)
    plan = _Plan(
        guide,
        tuple(sorted(options.items())),
        make_sampler,
        tuple(grid.tolist()),
        draws,
        together,
        tuple(domain.shape),
        jnp.dtype(domain.dtype),
        mesh,
    )
    return _run(plan, key, prior, process, likelihood, start, cond)


@functools.partial(jax.jit, static_argnums=0)
def _run(plan, key, prior, process, likelihood, start, cond):
    denoise = prior.denoiser() if hasattr(prior, "params") else prior.denoiser(process)
    guidance = plan.guide(likelihood, **dict(plan.options))
    grid = np.array(plan.grid)

    def draw(index):
        key_start, key_sample = jax.random.split(sample_key(key, index))
        x_init = (
            None
            if start is None
            else process.perturb(key_start, start, jnp.asarray(grid[0], jnp.finfo(start.dtype).dtype))
        )
        given = {"shape": plan.shape, "dtype": plan.dtype} if start is None else {"x_init": x_init}
        return sample_one(
            key_sample, plan.sampler(), denoise, process, grid, cond=cond, guidance=guidance, **given
        )

    indices = jnp.arange(plan.draws)
    if plan.mesh is not None:
        indices = jax.lax.with_sharding_constraint(indices, batch_sharding(plan.mesh))
    # `batch_size` of lax.map leaves the axis whole, which a mesh splits.
    images = (
        jax.vmap(draw)(indices)
        if plan.together is None
        else jax.lax.map(draw, indices, batch_size=plan.together)
    )
    mean = jnp.mean(images, axis=0)
    return Posterior(mean, _spread(images, mean), images)


def _spread(images, mean):
    """Standard deviation of one real component: of complex images half the squares are each part's."""
    parts = 2 if jnp.iscomplexobj(images) else 1
    squares = jnp.sum(jnp.square(jnp.abs(images - mean[None])), axis=0)
    return jnp.sqrt(squares / (parts * max(1, len(images) - 1)))


def _chosen(method, sampler):
    if callable(method):
        return method, sampler or heun
    if method not in GUIDES:
        near = difflib.get_close_matches(str(method), GUIDES, 1)
        hint = f"; did you mean {near[0]}?" if near else ":"
        raise ValueError(
            f"no posterior method {method!r}{hint} choose one of {', '.join(GUIDES)}, or give a function "
            "likelihood -> guidance"
        )
    return GUIDES[method].make, sampler or GUIDES[method].sampler


def _process_of(prior, process):
    if process is not None:
        return process
    if not hasattr(prior, "process"):
        raise ValueError(
            f"{type(prior).__name__} fits every process: say with which to draw, such as process=EDM()"
        )
    return prior.process


def _require_draws(draws, together, mesh):
    if draws < 1:
        raise ValueError(f"posterior draws {draws} images: ask for at least 1")
    if together is not None and mesh is not None:
        raise ValueError(
            "give together (draws at once on one device) or mesh (draws shared by devices), not both"
        )
    if together is not None and not 1 <= together <= draws:
        raise ValueError(f"together is {together}: give a number from 1 to the {draws} draws")
    if mesh is not None and draws % mesh.size:
        raise ValueError(
            f"{draws} draws cannot be shared by {mesh.size} devices: ask for a multiple of {mesh.size}"
        )

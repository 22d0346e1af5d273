"""What is fixed of a posterior run before it is compiled: method, grid, images and draws, checked."""

import difflib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax import guidance as guides
from pgm_jax.parallel import batch_sharding
from pgm_jax.processes import karras, subset
from pgm_jax.samplers import ddim, heun


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


def _dds(likelihood, *, cg=5, **options):
    return guides.dds(likelihood, steps=cg, **options)


def _diffpir(likelihood, *, cg=5, **options):
    return guides.diffpir(likelihood, steps=cg, **options)


GUIDES = {
    "dds": Guide(_dds, _marginal, "conjugate gradients on the clean image (Chung et al. 2024)"),
    "diffpir": Guide(_diffpir, _marginal, "proximal step with annealed weight (Zhu et al. 2023)"),
    "moment_matching": Guide(guides.moment_matching, heun, "covariance from the denoiser's own Jacobian"),
    "pigdm": Guide(guides.pigdm, heun, "pseudo-inverse guidance (Song et al. 2023)"),
    "dps": Guide(guides.dps, heun, "gradient of the residual's norm (Chung et al. 2023)"),
}
"""Guidance of `posterior` by name."""


class Plan(NamedTuple):
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


def planned(
    prior,
    likelihood,
    method,
    steps,
    draws,
    sigma_min,
    sigma_max,
    start,
    process,
    sampler,
    together,
    mesh,
    unit,
    options,
    levels=None,
):
    """Checks a request and fixes what is static of it; arguments as `reconstruction.posterior`.

    Returns:
        `(plan, process)`.

    Raises:
        ValueError: see `reconstruction.posterior`.
    """
    guide, make_sampler = _chosen(method, sampler)
    process = _process_of(prior, process)
    _require_draws(draws, together, mesh)
    image = image_of(likelihood, start)
    _require_kind(prior, image)
    _require_unit(prior, unit)
    # Built here too, where its checks see numbers: inside the program a noise level of 0 is not known.
    guide(likelihood, **options)
    grid = karras(steps, sigma_min, sigma_max, process=process) if levels is None else _grid(process, levels)
    options = tuple(sorted(options.items()))
    shape, dtype = tuple(image.shape), jnp.dtype(image.dtype)
    plan = Plan(guide, options, make_sampler, tuple(grid.tolist()), draws, together, shape, dtype, mesh)
    return plan, process


def _grid(process, levels):
    """Times of given noise levels, and the clean end."""
    levels = np.asarray(levels, np.float64)
    if levels.ndim != 1 or not levels.size or not np.all(np.isfinite(levels) & (levels > 0)):
        raise ValueError(f"levels are {levels}: give falling noise levels above 0, such as (1.0, 0.2)")
    return subset(np.append(np.asarray(process.time(levels), np.float64), 0.0))


class Sampling(NamedTuple):
    """What `sample_one` and `sample_in_parts` take behind the key."""

    arguments: tuple
    options: dict


def sampling(plan, prior, process, likelihood, cond) -> Sampling:
    """Builds sampler, denoiser and guidance of a plan, inside the program that uses them."""
    denoise = prior.denoiser() if hasattr(prior, "params") else prior.denoiser(process)
    guidance = plan.guide(likelihood, **dict(plan.options))
    return Sampling(
        (plan.sampler(), denoise, process, np.array(plan.grid)), {"cond": cond, "guidance": guidance}
    )


def over_draws(plan, draw):
    """Maps `draw(index)` over the draws of a plan: all at once, some at a time, or over a mesh."""
    indices = jnp.arange(plan.draws)
    if plan.mesh is not None:
        indices = jax.lax.with_sharding_constraint(indices, batch_sharding(plan.mesh))
    # `batch_size` of lax.map leaves the axis whole, which a mesh splits.
    if plan.together is None:
        return jax.vmap(draw)(indices)
    return jax.lax.map(draw, indices, batch_size=plan.together)


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


def image_of(likelihood, start):
    """Returns what tells the shape and dtype of the images of a likelihood: the start, else the operator's domain.

    Args:
        likelihood: a likelihood, or a sum of them.
        start: image to start from, or None.

    Returns:
        The start, or the domain.

    Raises:
        ValueError: for a start that does not fit the operator, and for none where no operator tells the shape.
    """
    operator = getattr(getattr(likelihood, "parts", (likelihood,))[0], "operator", None)
    if operator is None:
        if start is None:
            raise ValueError(f"{type(likelihood).__name__} does not tell the shape of an image: give a start")
        return start
    if start is not None and tuple(start.shape) != tuple(operator.domain.shape):
        raise ValueError(
            f"start has shape {tuple(start.shape)} and {type(operator).__name__} measures images of "
            f"{tuple(operator.domain.shape)}: give a start of that shape"
        )
    return operator.domain if start is None else start


def _require_kind(prior, image):
    channels = prior.card["network"][1].get("channels") if hasattr(prior, "params") else None
    is_complex = jnp.issubdtype(image.dtype, jnp.complexfloating)
    if channels not in (None, image.shape[-1] * (2 if is_complex else 1)):
        raise ValueError(
            f"the prior's network has {channels} channels and the images are {tuple(image.shape)} "
            f"{jnp.dtype(image.dtype)} (a complex one counts twice): use another prior"
        )


def _require_unit(prior, unit):
    known = getattr(prior, "unit", None)
    if unit is not None and known and unit != known:
        raise ValueError(
            f"the prior's images are in {known!r} and the operator's in {unit!r}: divide y and noise_std by the "
            "value that is 1 for the prior, and say its unit"
        )

"""Pairs of times t > s between which a consistency function shall not change: `(process, u, step) -> (t, s)`.

u is a uniform number in (0, 1) and step the traced number of the step. Levels are ratios `sigma / alpha`, turned
into times by `process.time`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr, ndtri

from pgm_jax.training.objectives import levels as level_laws
from pgm_jax.training.objectives.curricula import Curriculum, constant
from pgm_jax.training.objectives.residual import noise_level

Gaps = Callable[..., tuple]
"""`(process, u, step) -> (t, s)`."""


def on_grid(
    count: Curriculum | int, sigma_min=0.002, sigma_max=80.0, rho=7.0, *, emphasis=None, skip: int = 1
) -> Gaps:
    """Makes neighbours on Karras' grid of N levels (Song et al. 2023; improved: Song and Dhariwal 2024).

    `sigma_j = (sigma_min^(1/rho) + j / (N - 1) (sigma_max^(1/rho) - sigma_min^(1/rho)))^rho`, j rising; the pair is
    (j + 1, j), j uniform, or with `emphasis` (mean, std) as likely as a level of `ln sigma ~ N(mean, std^2)` falls
    between the two, which is improved training's law: a level is drawn and its neighbours looked up, so that
    nothing has the length of the grid.

    Args:
        count: levels N by the step, such as `curricula.doubling(total)`, or a number.
        sigma_min: lowest level, the boundary of the consistency function.
        sigma_max: highest level.
        rho: exponent.
        emphasis: mean and standard deviation of ln sigma, (-1.1, 2.0) in improved training; None is uniform.
        skip: how many levels lie between t and s, as for distillation; fewer near the clean end.

    Returns:
        `(process, u, step) -> (t, s)`.

    Raises:
        ValueError: unless 0 < sigma_min < sigma_max, and for skip below 1 or fewer than 2 levels.
    """
    if not 0 < sigma_min < sigma_max:
        raise ValueError(f"on_grid needs 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}.")
    if skip < 1 or (not callable(count) and count < 2):
        raise ValueError(f"on_grid needs at least 2 levels and skip >= 1, got {count} and {skip}.")
    count = count if callable(count) else constant(count)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)

    def gaps(process, u, step):
        intervals = count(step) - 1
        place = u
        if emphasis is not None:
            mean, std = emphasis
            ends = ndtr((jnp.log(jnp.asarray([sigma_min, sigma_max], u.dtype)) - mean) / std)
            level = jnp.exp(mean + std * ndtri(ends[0] + u * (ends[1] - ends[0])))
            place = (level ** (1 / rho) - low) / (high - low)
        lower = jnp.clip(jnp.floor(place * intervals), 0, intervals - 1)
        level = lambda j: (low + j / intervals * (high - low)) ** rho
        return process.time(level(lower + 1)), process.time(level(jnp.maximum(lower + 1 - skip, 0)))

    return gaps


def relative(levels=None, stage: Curriculum | None = None, q=2.0, k=8.0, b=1.0, floor=0.0) -> Gaps:
    """Makes easy consistency tuning's pairs, whose distance shrinks by stages (Geng et al. 2025, Sec. 4):

        s = t max(0, 1 - n(t) / q^(stage + 1)),   n(t) = 1 + k / (1 + e^(b t)),

    t and s levels. At stage 0 the clean end is plain denoising (s = 0), and towards q -> infinity t -> s. Then no
    pair ends at 0, and below the levels that are drawn nothing holds the function: small networks drift away there,
    and soon everywhere. With a floor, s below it is 0: near the clean end the function stays a denoiser, which at
    such levels is no blur.

    Args:
        levels: distribution of t; by default `levels.lognormal(-1.1, 2.0)`.
        stage: stage by the step, such as `curricula.stages(every)`; 0 by default.
        q: base of the shrinking; 256 and one stage is the one-hour run of the paper.
        k: how much wider the pairs are at the clean end.
        b: how fast that fades with the level.
        floor: level below which s is 0; the published pairs have none.

    Returns:
        `(process, u, step) -> (t, s)`.

    Raises:
        ValueError: unless q > 1, or for a floor below 0.
    """
    if not q > 1:
        raise ValueError(f"relative needs q > 1, got {q}.")
    if floor < 0:
        raise ValueError(f"relative needs a floor of 0 or more, got {floor}.")
    levels = level_laws.lognormal(-1.1, 2.0) if levels is None else levels
    stage = constant(0) if stage is None else stage

    def gaps(process, u, step):
        t = levels(process, u)
        level = noise_level(process, t)
        share = (1 + k * jax.nn.sigmoid(-b * level)) / q ** (stage(step) + 1.0)
        lower = level * jnp.maximum(0.0, 1 - share)
        return t, process.time(jnp.where(lower < floor, 0.0, lower))

    return gaps


def on_chain(times, skip) -> Gaps:
    """Makes pairs of a discrete chain: a solver's time and `skip` steps of the chain below it (Luo et al. 2023).

    Args:
        times: (K,) times of the chain that the solver visits, such as 20, 40, ..., 1000.
        skip: steps below, of the chain of training; 0 at the clean end.

    Returns:
        `(process, u, step) -> (t, s)`.

    Raises:
        ValueError: for times that are not positive and finite, or skip not above 0.
    """
    times = np.asarray(times, np.float64)
    if times.ndim != 1 or not times.size or not np.all(np.isfinite(times) & (times > 0)) or not skip > 0:
        raise ValueError(f"on_chain needs finite times > 0 and skip > 0, got {times} and {skip}.")
    draw = level_laws.discrete(times)

    def gaps(process, u, step):
        t = draw(process, u)
        return t, jnp.maximum(t - skip, 0)

    return gaps

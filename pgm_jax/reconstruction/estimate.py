"""How long a posterior run will take and how much memory it needs, measured on single steps before the run."""

import functools
import inspect
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pgm_jax.core import program_bytes, sample_key
from pgm_jax.reconstruction.posterior import posterior
from pgm_jax.reconstruction.posterior_plan import over_draws, planned, sampling
from pgm_jax.samplers import sample_in_parts


class Cost(NamedTuple):
    """What a posterior run costs.

    Attributes:
        seconds: the whole run, with its compilation.
        compile_seconds: compilation alone, once for all images of one shape.
        step_seconds: one step of all draws of one image, a mean over the grid.
        memory_bytes: arguments, results and scratch on one device, or None where XLA does not say.
    """

    seconds: float
    compile_seconds: float
    step_seconds: float
    memory_bytes: int | None


def posterior_cost(key, prior, likelihood, *, images: int = 1, **request) -> Cost:
    """Estimates what `posterior` will cost, from one step of all its draws compiled and run on the actual arrays.

    `seconds = compile + images steps (mean of one step)`. The step is the run's own, so a compilation takes about
    as long, and it is timed at the first, the middle and the last but one level, since solves to a tolerance take
    more iterations at high levels. The estimate itself costs a compilation and four steps.

    Args:
        key: PRNG key.
        prior: see `posterior`.
        likelihood: see `posterior`.
        images: images, such as slices, that will be drawn with the same request.
        **request: options of `posterior`.

    Returns:
        `Cost`.

    Raises:
        ValueError: what `posterior` refuses.
    """
    bound = inspect.signature(posterior).bind(key, prior, likelihood, **request)
    bound.apply_defaults()
    asked = {name: value for name, value in bound.arguments.items() if name not in ("key", "cond")}
    start, cond = asked["start"], bound.arguments["cond"]
    plan, process = planned(**asked)
    given = key, prior, process, likelihood, start, cond
    begun = time.perf_counter()
    program = _step.lower(plan, jnp.asarray(0), *given).compile()
    compile_seconds = time.perf_counter() - begun
    steps = len(plan.grid) - 1
    levels = sorted({0, (steps - 1) // 2, max(steps - 2, 0)})
    _timed(program, levels[0], given)
    step = sum(_timed(program, level, given) for level in levels) / len(levels)
    return Cost(compile_seconds + images * steps * step, compile_seconds, step, program_bytes(program))


@functools.partial(jax.jit, static_argnums=0)
def _step(plan, number, key, prior, process, likelihood, start, cond):
    """Step `number` of every draw, from a state at its level."""
    sampled = sampling(plan, prior, process, likelihood, cond)

    def draw(index):
        clean = jnp.zeros(plan.shape, plan.dtype) if start is None else start
        level = jnp.asarray(plan.grid, jnp.finfo(plan.dtype).dtype)[number]
        key_start, key_sample = jax.random.split(sample_key(key, index))
        x_init = process.perturb(key_start, clean, level)
        begin, advance, _ = sample_in_parts(key_sample, *sampled.arguments, **sampled.options, x_init=x_init)
        return advance(begin(), number).x

    images = over_draws(plan, draw)
    return images, jnp.mean(images, axis=0)


def _timed(program, number, given):
    begun = time.perf_counter()
    jax.block_until_ready(program(jnp.asarray(number), *given))
    return time.perf_counter() - begun

"""What every iterative solver is made of: a start, a step, and the numbers that say how far it has come.

A solver module gives `NAME_iteration(...) -> Iteration` and `NAME(...) -> (image, Trace)`, which is `run` of it.
The same iteration drives a compiled run, a run that stops by a rule, and one that shows progress.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class Trace(NamedTuple):
    """Progress of an iterative reconstruction, one number a step.

    Attributes:
        objective: the function that the solver minimises, real (steps,); its solver says which.
        residual: how far the image is from the data, or from optimality, real (steps,); its solver says which.
        taken: steps done before the rule stopped, int32; later entries of the others repeat the last.
    """

    objective: Array
    residual: Array
    taken: Array


class Iteration(NamedTuple):
    """An iterative method as four functions; its problem is closed over.

    Attributes:
        init: `() -> state`, the start, a pytree of arrays.
        step: `state -> state`, one iteration.
        image: `state -> image`.
        measure: `state -> (objective, residual)`, two real scalars; the state carries what makes them cheap.
    """

    init: Callable
    step: Callable
    image: Callable
    measure: Callable


class _Progress(NamedTuple):
    """A run part of the way; `first` is the measure of the start, `finished` says that the rule is met."""

    state: Any
    first: tuple
    trace: Trace
    finished: Array


def run(iteration: Iteration, steps: int, *, rtol: Any = 0.0):
    """Runs an iteration in one compiled loop.

    With rtol 0 it is a scan of exactly `steps` steps, which reverse mode differentiates. With rtol > 0 it is a
    while loop, forward mode only, that stops after the first step k for which

        r_k <= rtol r_0,   or   |r_k - r_(k-1)| <= rtol r_(k-1)  and  |f_k - f_(k-1)| <= rtol |f_(k-1)|

    with f the objective, r the residual and index 0 the start, or the first step where the start has no finite
    measure: the residual has vanished, or nothing changes any more. Under `vmap` each problem stops at its own
    step.

    Args:
        iteration: the method.
        steps: number of steps, the largest one if rtol > 0.
        rtol: tolerance of the stopping rule; the Python number 0 for none.

    Returns:
        (image, `Trace`).

    Raises:
        ValueError: if steps is negative.
    """
    _require_count("steps", steps, 0)
    if isinstance(rtol, (int, float)) and rtol == 0:
        return _scan(iteration, steps)
    progress = _advance(iteration, _start(iteration, steps), steps, rtol)
    return iteration.image(progress.state), progress.trace


def run_in_chunks(iteration: Iteration, steps: int, chunk: int, on_chunk: Callable, *, rtol: Any = 0.0):
    """Runs an iteration from the host, a chunk of steps at a time, to show progress or to save between them.

    One program, compiled once, takes every chunk; the arrays that the iteration closes over are its
    arguments, not constants of it. The numbers are those of `run`.

    Args:
        iteration: the method, closed over concrete arrays.
        steps: largest number of steps.
        chunk: steps between two calls of `on_chunk`; the last chunk may be shorter.
        on_chunk: called with the (image, `Trace`) so far after every chunk; `trace.taken` steps are done.
        rtol: tolerance of the stopping rule of `run`, or 0.

    Returns:
        (image, `Trace`).

    Raises:
        ValueError: if steps or chunk is below 1.
    """
    _require_count("steps", steps, 1)
    _require_count("chunk", chunk, 1)

    def advance(progress, until):
        progress = _advance(iteration, progress, until, rtol)
        return progress, iteration.image(progress.state)

    progress = _hoisted(lambda: _start(iteration, steps))()
    advance = _hoisted(advance, progress, jnp.int32(0))
    for until in range(chunk, steps + chunk, chunk):
        progress, image = advance(progress, jnp.int32(min(until, steps)))
        on_chunk(image, progress.trace)
        if progress.finished:
            break
    return image, progress.trace


def _scan(iteration, steps):
    def body(state, _):
        state = iteration.step(state)
        return state, iteration.measure(state)

    state, (objective, residual) = jax.lax.scan(body, iteration.init(), length=steps)
    return iteration.image(state), Trace(objective, residual, jnp.int32(steps))


def _start(iteration, steps):
    state = iteration.init()
    objective, residual = (jnp.asarray(value) for value in iteration.measure(state))
    trace = Trace(jnp.full(steps, objective), jnp.full(steps, residual), jnp.int32(0))
    return _Progress(state, (objective, residual), trace, jnp.bool_(False))


def _advance(iteration, progress, until, rtol):
    """Steps until `trace.taken` reaches `until`, or until the rule is met."""

    def body(progress):
        trace = progress.trace
        state = iteration.step(progress.state)
        new = iteration.measure(state)
        last = [
            _last(values, trace.taken, first) for values, first in zip(trace, progress.first, strict=False)
        ]
        # All later entries are written too, so that a run that stops early repeats its last numbers.
        later = jnp.arange(trace.objective.size) >= trace.taken
        filled = [jnp.where(later, value, old) for value, old in zip(new, trace, strict=False)]
        finished = _is_met(new, last, progress.first, rtol)
        first = tuple(
            jnp.where(jnp.isfinite(old), old, value) for old, value in zip(progress.first, new, strict=True)
        )
        return _Progress(state, first, Trace(*filled, trace.taken + 1), finished)

    def unfinished(progress):
        return (progress.trace.taken < until) & ~progress.finished

    return jax.lax.while_loop(unfinished, body, progress)


def _last(values, taken, first):
    return jnp.where(taken > 0, values[jnp.maximum(taken - 1, 0)], first)


def _is_met(new, last, first, rtol):
    vanished = jnp.isfinite(first[1]) & (new[1] <= rtol * first[1])
    still = [
        jnp.isfinite(before) & (jnp.abs(value - before) <= rtol * jnp.abs(before))
        for value, before in zip(new, last, strict=True)
    ]
    # At rtol 0 a fixed point would count as still, where `run` goes on for all of its steps.
    return (vanished | (still[0] & still[1])) & (rtol > 0)


def _hoisted(function, *arguments):
    """Compiles a function with the arrays that it closes over as arguments of the program."""
    closed, shape = jax.make_jaxpr(function, return_shape=True)(*arguments)
    tree = jax.tree.structure(shape)
    program = jax.jit(lambda consts, leaves: jax.core.eval_jaxpr(closed.jaxpr, consts, *leaves))
    return lambda *given: jax.tree.unflatten(tree, program(closed.consts, jax.tree.leaves(given)))


def _require_count(name, value, least):
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")

"""Several optimiser steps as one call of a compiled program."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax.core.jaxprs import inner_jaxprs

PER_CALL = 8
"""Optimiser steps in one call of the compiled program, where nothing else is said."""


def program_of(step: Callable, state, batch, most: int = PER_CALL) -> tuple[Callable, int]:
    """Chooses the program that a training loop calls.

    Args:
        step: `(state, batch) -> (state, metrics)` of `train_step`.
        state, batch: its arguments.
        most: steps of a call that are wanted.

    Returns:
        `several_steps` and `most`; or `one_step` and 1 where one is wanted or the step is `slow_in_a_loop`.

    Raises:
        ValueError: for a `most` below 1.
    """
    if most < 1:
        raise ValueError(f"per_call is the number of steps of one call and at least 1, got {most}")
    step = jax.jit(step)
    if most > 1 and not slow_in_a_loop(step, state, batch):
        return several_steps(step), most
    return one_step(step), 1


def several_steps(step: Callable) -> Callable:
    """Makes `(state, batches, count) -> (state, metrics, taken)`: up to `count` steps in one program.

    The temporary arrays of a compiled call are made anew at each call, which on a CPU costs a fifth to a half
    of the step: the system clears every page before it hands it out. Steps of one call share them. On an
    accelerator the host is asked once a call.

    The loop ends after a step that is not finite. Its body is the same for any `count`, so a run that is split
    into calls in another way has the same numbers, bit for bit.

    Args:
        step: `(state, batch) -> (state, metrics)` of `train_step`; jitted, it is traced once.

    Returns:
        The function. `batches` is a sequence of equal batches, at least `count` of them; those beyond are not
        read. `count` is int32 () and may be traced; `metrics` are those of the last step taken (zeros for a
        count of 0) and `taken` int32 () is their number.
    """

    def run(state, batches, count):
        shapes = jax.eval_shape(step, state, batches[0])[1]
        metrics = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *batches)

        def going(carried):
            taken, _, metrics = carried
            return (taken < count) & ((taken == 0) | (metrics["finite"] > 0))

        def advance(carried):
            taken, state, _ = carried
            return taken + 1, *step(state, jax.tree.map(lambda leaf: leaf[taken], stacked))

        taken, state, metrics = jax.lax.while_loop(going, advance, (jnp.int32(0), state, metrics))
        return state, metrics, taken

    return run


def one_step(step: Callable) -> Callable:
    """Makes the program of `several_steps` that takes one step and has no loop; arguments and results as there."""

    def run(state, batches, count):
        return *step(state, batches[0]), jnp.ones_like(count)

    return run


def slow_in_a_loop(step: Callable, state, batch) -> bool:
    """Says whether a step is slower in a loop than by itself, so that a call should take one.

    XLA's CPU backend brings a convolution into the form of its fast code at the top of a program only; in the body
    of a loop one with other dimension numbers, as the derivatives of `jax.lax.conv_general_dilated` have, runs on
    one thread without vectors, up to fifty times as long. Those of `pgm_jax.networks` on one CPU device are free
    of such; networks of other libraries, and several CPU devices, are not.

    Args:
        step: jitted `(state, batch) -> (state, metrics)`.
        state, batch: its arguments.

    Returns:
        A bool; False on any other backend.
    """
    if jax.default_backend() != "cpu":
        return False
    return any(_needs_turning(equation) for equation in _equations(step.trace(state, batch).jaxpr.jaxpr))


def split(first: int, last: int, stops, most: int) -> list[range]:
    """Splits the steps from first to last into calls of at most `most`, none going past a multiple of a stop.

    Args:
        first, last: numbers of the first and the last step.
        stops: numbers of which every multiple ends a call.
        most: steps of a call.

    Returns:
        List of ranges of step numbers.
    """
    found = []
    while first <= last:
        ends = [-(-first // stop) * stop for stop in stops]
        found.append(range(first, min(first + most - 1, last, *ends) + 1))
        first = found[-1].stop
    return found


def _equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for inner in inner_jaxprs(equation.params.values()):
            yield from _equations(inner)


def _needs_turning(equation):
    if equation.primitive.name != "conv_general_dilated":
        return False
    numbers, rank = equation.params["dimension_numbers"], equation.invars[0].aval.ndim
    image = (0, rank - 1, *range(1, rank - 1))
    kernel = (rank - 1, rank - 2, *range(rank - 2))
    given = (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec)
    return not all(np.array_equal(a, b) for a, b in zip(given, (image, kernel, image), strict=True))

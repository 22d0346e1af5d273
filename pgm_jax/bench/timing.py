"""Timing: compile and run apart, and runs of several parties in turn in one process."""

import statistics
import time
from collections.abc import Callable, Mapping


def compile_apart(function: Callable, *arguments):
    """Compiles a jitted function for given arguments and times it.

    Where JAX's persistent compilation cache is switched on and holds the program, this is the time to read it.

    Args:
        function: a function made by `jax.jit`.
        *arguments: its arguments, or `jax.ShapeDtypeStruct`s of them.

    Returns:
        `(compiled, seconds)`; the compiled program takes the same arguments.
    """
    begun = time.perf_counter()
    compiled = function.lower(*arguments).compile()
    return compiled, time.perf_counter() - begun


def interleaved(runs: Mapping[str, Callable], repeats: int, settle: int = 0) -> dict[str, float]:
    """Times several runs in turn, so that what else the machine does falls on all of them alike.

    Each is called once before, to warm up.

    Args:
        runs: functions without arguments by name, each of which returns once its result exists.
        repeats: number of rounds, at least 1.
        settle: calls of each run before its timed one in every round, for runs that follow each other in use:
            what a party left in caches, or gave back to the system, while the others ran is then not timed.

    Returns:
        Median seconds of each.

    Raises:
        ValueError: for fewer than 1 round.
    """
    if repeats < 1:
        raise ValueError(f"timing needs at least 1 repeat, got {repeats}")
    seconds = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(repeats):
        for name, run in runs.items():
            for _ in range(settle):
                run()
            begun = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begun)
    return {name: statistics.median(values) for name, values in seconds.items()}

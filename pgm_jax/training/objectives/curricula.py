"""Schedules of consistency training: how many levels the grid has, and how slowly a target follows, by the step.

Each is a function of the traced step that the objective's carry counts, so a run compiles once.
"""

from collections.abc import Callable

import jax.numpy as jnp

Curriculum = Callable[..., object]
"""`step -> number`, of a traced int32 step."""


def constant(value) -> Curriculum:
    """Makes the schedule that does not move, such as distillation's 18 or 40 levels and its rate of .95.

    Args:
        value: a number.

    Returns:
        `step -> value`.
    """
    return lambda step: jnp.asarray(value)


def progressive(total: int, first: int = 2, last: int = 150) -> Curriculum:
    """Makes consistency training's number of levels (Song et al. 2023, App. C, as its code counts):

        N(k) = ceil( sqrt( k / K ((last + 1)^2 - first^2) + first^2 ) - 1 ) + 1.

    Args:
        total: K, steps of the run.
        first: levels at the start.
        last: intervals at the end.

    Returns:
        `step -> levels`, real and whole, from `first` to `last + 1`.

    Raises:
        ValueError: unless total >= 1 and 2 <= first <= last.
    """
    _check(total, first, last, 2)

    def levels(step):
        share = jnp.clip(step / total, 0.0, 1.0)
        # Rounding before the ceiling keeps whole numbers whole.
        root = jnp.sqrt(share * ((last + 1) ** 2 - first**2) + first**2)
        return jnp.ceil(root - 1 - 1e-4) + 1

    return levels


def doubling(total: int, first: int = 10, last: int = 1280) -> Curriculum:
    """Makes improved consistency training's number of levels, doubled at even distances (Song and Dhariwal 2024):

        N(k) = min(first 2^floor(k / K'), last) + 1,   K' = floor(K / (floor(log2(last / first)) + 1)).

    Args:
        total: K, steps of the run.
        first: intervals at the start.
        last: largest number of intervals.

    Returns:
        `step -> levels`, real and whole.

    Raises:
        ValueError: unless total >= 1 and 1 <= first <= last, or if the run is shorter than its doublings.
    """
    _check(total, first, last, 1)
    doublings = (last // first).bit_length() - 1
    every = total // (doublings + 1)
    if every < 1:
        raise ValueError(
            f"doubling: {total} steps are too few to double {first} intervals {doublings} times."
        )

    def levels(step):
        return jnp.minimum(first * 2.0 ** jnp.floor(jnp.minimum(step // every, doublings + 1)), last) + 1

    return levels


def stages(every: int, most: int | None = None) -> Curriculum:
    """Makes easy consistency tuning's stage, `floor(step / every)` (Geng et al. 2025).

    Args:
        every: steps of a stage.
        most: last stage, or None.

    Returns:
        `step -> stage`, int32.

    Raises:
        ValueError: for fewer than one step a stage.
    """
    if every < 1:
        raise ValueError(f"stages needs every >= 1 step, got {every}.")
    return lambda step: step // every if most is None else jnp.minimum(step // every, most)


def following(levels: Curriculum, start: float = 0.9, first: int = 2) -> Curriculum:
    """Makes the rate of consistency training's averaged target (Song et al. 2023, App. C):

        mu(k) = exp( first ln(start) / (N(k) - 1) ).

    For consistency models as first published; improved training shows that no average is better (rate 0).

    Args:
        levels: N, as `progressive`.
        start: mu_0 in (0, 1).
        first: levels at the start.

    Returns:
        `step -> mu`.

    Raises:
        ValueError: unless 0 < start < 1.
    """
    if not 0 < start < 1:
        raise ValueError(f"following needs a start in (0, 1), got {start}.")
    return lambda step: jnp.exp(first * jnp.log(start) / jnp.maximum(levels(step) - 1, 1))


def _check(total, first, last, least):
    if total < 1 or not least <= first <= last:
        raise ValueError(
            f"a curriculum needs total >= 1 and {least} <= first <= last, got {total}, {first} and {last}."
        )

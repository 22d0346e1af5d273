"""Averages of the parameters along training: rules that a train state carries by name.

`average <- average + (1 - beta) (parameters - average)`, kept in float32 or wider whatever the parameters are.
Steps are counted after the optimiser's update, from 1.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pgm_jax.training.power_ema import post_hoc as post_hoc, power_exponent


class Rule(NamedTuple):
    """One average of the parameters.

    Attributes:
        name: its name in the train state.
        init: `(params) -> average`.
        update: `(average, params, step) -> average`, step the number of updates made, from 1.
    """

    name: str
    init: Callable
    update: Callable


def constant(decay) -> Rule:
    """Makes the exponential average with a constant `beta = decay`; DDPM's is .9999.

    It starts at the initial parameters, which fade within a few 1 / (1 - decay) steps.

    Args:
        decay: beta, in [0, 1).

    Returns:
        `Rule` named "constant_<decay>".

    Raises:
        ValueError: if decay is not in [0, 1).
    """
    if not 0 <= decay < 1:
        raise ValueError(f"constant needs a decay in [0, 1), got {decay}.")
    return Rule(f"constant_{decay:g}", _start, _towards(lambda step: 1 - decay))


def half_life(steps, rampup=0.05) -> Rule:
    """Makes EDM's exponential average, whose half-life is at most 5 % of the training so far.

    `beta = 2^(-1 / h)`, `h = min(steps, rampup step)` (Karras et al. 2022; NVlabs/edm
    training_loop.py, where it is counted in images).

    Args:
        steps: half-life in steps: images over batch size.
        rampup: largest half-life as a share of the steps made.

    Returns:
        `Rule` named "half_life_<steps>".

    Raises:
        ValueError: if an argument is not positive.
    """
    if not (steps > 0 and rampup > 0):
        raise ValueError(f"half_life needs steps > 0 and rampup > 0, got {steps} and {rampup}.")

    def share(step):
        return -jnp.expm1(-math.log(2.0) / jnp.minimum(steps, rampup * step))

    return Rule(f"half_life_{steps:g}", _start, _towards(share))


def power(std) -> Rule:
    """Makes EDM2's power-function average, `beta_t = (1 - 1 / t)^(gamma + 1)` (Karras et al. 2024, Sec. 3.1).

    The weight of step s at step t is exactly `(s^(gamma + 1) - (s - 1)^(gamma + 1)) / t^(gamma + 1)`; the
    initial parameters have none. Stored averages of two widths give any other: see `post_hoc`.

    Args:
        std: relative width, in (0, 0.2887): the average looks back over about this share of the training.

    Returns:
        `Rule` named "power_<std>".

    Raises:
        ValueError: for another width.
    """
    exponent = power_exponent(std) + 1

    def share(step):
        return -jnp.expm1(exponent * jnp.log1p(-1 / jnp.asarray(step, jnp.float32)))

    return Rule(f"power_{std:g}", _start, _towards(share))


def _start(params):
    def leaf(p):
        p = jnp.asarray(p)
        # A copy: a train step that donates its state may not hold one buffer twice.
        return jnp.array(p, jnp.promote_types(p.dtype, jnp.float32), copy=True)

    return jax.tree.map(leaf, params)


def _towards(share):
    def update(average, params, step):
        moved = share(step)
        return jax.tree.map(
            lambda a, p: a + (moved * (p.astype(a.dtype) - a)).astype(a.dtype), average, params
        )

    return update

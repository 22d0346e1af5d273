"""Few-step priors from a configuration: their start, their carry, and how they are sampled."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from pgm_jax.core import Network
from pgm_jax.networks import TARGET_FEATURES, Conditions, as_denoiser, as_jump_denoiser, grow
from pgm_jax.priors import JUMPS
from pgm_jax.processes import few_step_grid, karras
from pgm_jax.recipes import prior_config
from pgm_jax.recipes.generation import adversary
from pgm_jax.recipes.generation.few_step_objective import RATES, parameterisation_of
from pgm_jax.recipes.prior_config import MEASURED, PriorConfig
from pgm_jax.samplers import consistency, ctm, sample_one
from pgm_jax.training import objectives

FEW_STEPS = 2
"""Steps that a few-step prior takes where no number is asked for."""

# Objectives that distil the weights they start from; scm can do without.
DISTILLED = ("cd", "lcd", "ctm", "scm")
# What the weights that a run starts from must have been trained for.
_ALIKE = (
    "process",
    "D",
    "channels",
    "complex",
    "classes",
    "network",
    "options",
    "parameterisation",
    *MEASURED,
)


class Start(NamedTuple):
    """Weights that a run starts from.

    Attributes:
        config: the configuration they were trained with.
        params: the weights.
    """

    config: PriorConfig
    params: Any


def started(config: PriorConfig, start: PriorConfig | None) -> PriorConfig:
    """Takes over what the starting weights were trained for, and refuses what does not fit them.

    Args:
        config: the configuration; noise levels that it leaves open are those of the start.
        start: configuration of the start, or None.

    Returns:
        The configuration.

    Raises:
        ValueError: naming the first field that differs, with both values.
    """
    if start is None:
        return config
    open_fields = {name: getattr(start, name) for name in MEASURED if getattr(config, name) is None}
    config = dataclasses.replace(config, **open_fields)
    ours, theirs = prior_config.to_json(config), prior_config.to_json(start)
    for name in (*_ALIKE, "data") if config.classes else _ALIKE:
        if ours[name] != theirs[name]:
            raise ValueError(
                f"{config.start} was trained with {name} = {theirs[name]}, and this run has {name} = {ours[name]}: "
                "a student has its teacher's process, range and network"
            )
    return config


def start_config(config: PriorConfig) -> PriorConfig | None:
    """Reads the configuration of the weights that a run starts from.

    Args:
        config: the configuration.

    Returns:
        `PriorConfig`, or None for a run that starts from nothing.

    Raises:
        ValueError: if there is no run there.
    """
    if config.start is None:
        return None
    if not (Path(config.start) / "config.json").is_file():
        raise ValueError(
            f"start is {config.start}, which is no folder of `pgm train`: there is no config.json"
        )
    return prior_config.read(config.start)


def first_state(config: PriorConfig, network: Network, teacher: Network, start: Start | None):
    """Returns what `training.fit` starts from: the parameters, and the carry of the objective.

    Args:
        config: the configuration.
        network: the student.
        teacher: the network of the starting weights.
        start: the starting weights; None for a run that starts from nothing.

    Returns:
        `(params or init, carry)`.
    """
    params = network.init
    if start is not None:
        params = grow(jax.eval_shape(network.init, jax.random.key(config.seed)), start.params)
    if config.objective == "denoising":
        return params, ()
    shape = jax.eval_shape(network.init, jax.random.key(0)) if start is None else params
    target = shape if config.objective in RATES else None
    taught = jax.eval_shape(teacher.init, jax.random.key(0)) if start is None else start.params
    distilled = config.objective in DISTILLED and config.start is not None
    carry = objectives.carry_of(target, taught if distilled else None)
    return params, adversary.carried(config, carry) if config.adversarial else carry


def draw_one(
    config: PriorConfig, process, network: Network, plain: Callable, steps: int, condition: Callable
) -> Callable:
    """Makes the sampler of a few-step prior: multistep consistency, or jumps.

    The levels of multistep consistency are those of `processes.few_step_grid`; jumps go along Karras' grid to
    sigma_min.

    Args:
        config: the configuration.
        process: its process.
        network: its network.
        plain: the parameterisation of the configuration.
        steps: evaluations of the network.
        condition: `key -> cond` of an image, see `classes.asked`.

    Returns:
        `(key, params, shape, dtype) -> image`.

    Raises:
        ValueError: for fewer than one step.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}: give 1 or more")
    own = parameterisation_of(config, plain)
    if config.objective in JUMPS:
        grid = karras(steps + 1, config.sigma_min, config.sigma_max, process=process)[:-1]
        sampler, make = ctm(), as_jump_denoiser
    else:
        grid = few_step_grid(process, steps, config.sigma_max, sigma_min=config.sigma_min)
        sampler, make = consistency(), as_denoiser

    def draw(key, params, shape, dtype):
        return sample_one(
            key, sampler, make(network, params, process, own), process, grid, shape=shape, dtype=dtype,
            cond=condition(key),
        )  # fmt: skip

    return draw


def conditions_of(config: PriorConfig) -> Conditions:
    """Returns what the network is told: the target of a jump, the scale of a distilled guidance, the class.

    Args:
        config: the configuration.

    Returns:
        `networks.Conditions`.
    """
    told = TARGET_FEATURES if config.objective in (*JUMPS, "lcd") else 0
    return Conditions(vector=told, classes=len(config.data) if config.classes else 0)

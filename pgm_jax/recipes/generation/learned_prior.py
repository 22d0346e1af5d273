"""A learned prior from its configuration: process, network, objective and draw."""

import dataclasses
import inspect
from collections.abc import Callable

import jax
import jax.numpy as jnp

from pgm_jax import data, networks
from pgm_jax.core import Network, Precision, System, sample_key
from pgm_jax.processes import (
    EDM,
    VE,
    VP,
    FlowMatching,
    PFGMpp,
    precondition,
    predict_noise,
    predict_v,
    predict_velocity,
    predict_x0,
)
from pgm_jax.recipes.generation import classes, drawing, few_step_objective, few_steps
from pgm_jax.recipes.prior_config import MEASURED, PriorConfig, check
from pgm_jax.training import objectives
from pgm_jax.training.objectives import levels, weighting

_PROCESSES = {
    "edm": lambda config: EDM(),
    "pfgmpp": lambda config: PFGMpp(config.D),
    "vp": lambda config: VP(),
    "ve": lambda config: VE(config.sigma_min, config.sigma_max),
    "flow": lambda config: FlowMatching(),
}
_PARAMETERISATIONS = {
    "edm": lambda config: precondition.edm(config.sigma_data),
    "trigflow": lambda config: precondition.trigonometric(config.sigma_data),
    "noise": lambda config: predict_noise,
    "v": lambda config: predict_v,
    "x0": lambda config: predict_x0,
    "velocity": lambda config: predict_velocity,
}
_WEIGHTINGS = {
    "output": lambda config: None,
    "simple": lambda config: weighting.simple,
    "min_snr": lambda config: weighting.min_snr(),
    "v": lambda config: weighting.v,
    "edm": lambda config: weighting.edm(config.sigma_data),
    "x0": lambda config: weighting.x0,
    "likelihood": lambda config: weighting.likelihood,
}
_LEVELS = {
    "lognormal": lambda config: levels.lognormal(config.level_mean, config.level_std),
    # The likelihood's weight has no bound at t = 0.
    "uniform": lambda config: levels.uniform(1e-5, 1.0),
}
_UNET = networks.UNetOptions._field_defaults
_DRUNET = {
    p.name: p.default
    for p in inspect.signature(networks.drunet).parameters.values()
    if p.default is not p.empty
}
_NETWORKS = {
    "unet": (networks.unet, _UNET),
    "ddpmpp": (networks.ddpmpp, _UNET),
    "ncsnpp": (networks.ncsnpp, _UNET),
    "adm": (networks.adm, _UNET),
    "dit": (networks.dit, networks.DiTOptions._field_defaults),
    "drunet": (networks.drunet, _DRUNET),
}
# What the configuration itself says, and what an unconditional prior of slices does not have.
_FIXED = ("out_channels", "dims", "conditions", "precision", "outputs")


def build(
    config: PriorConfig,
    *,
    sampler: str | None = None,
    steps: int | None = None,
    label: str | None = None,
    guidance: float | None = None,
) -> System:
    """Builds the parts of a prior; nothing is compiled.

    Args:
        config: a configuration whose noise levels are given or `measured`.
        sampler: name of a sampler of `SAMPLERS`, for `draw`; by default heun, or what a few-step objective is for.
        steps: sampler steps of `draw`, on Karras' grid from sigma_max to sigma_min and 0; 18 by default, and 2 of
            a few-step prior, see `few_steps.draw_one`.
        label: entry of the data whose class is drawn, for a prior of classes; see `classes.asked`.
        guidance: scale of the guidance by it.

    Returns:
        `System` without a representation. `objective` takes batches of `image_batches`; `draw(key, params, None)`
        returns one image (*size, channels), float32, or complex64 where the configuration is complex.

    Raises:
        ValueError: for a field that is unknown or impossible, an option that the network does not have, a size
            of image that it cannot take, a sampler or number of steps that does not exist, or as `classes.asked`.
    """
    check(config)
    empty = [name for name in MEASURED if getattr(config, name) is None]
    if empty:
        raise ValueError(
            f"{', '.join(empty)} are not given: measure them with generation.measured(config, images)"
        )
    process, network = _PROCESSES[config.process](config), network_of(config)
    plain = _PARAMETERISATIONS[config.parameterisation](config)
    told = classes.asked(config, label, guidance)
    draw = drawing.image_draw(config, process, network, plain, sampler, steps, told)
    if config.objective == "denoising":
        law, weight = _LEVELS[config.levels](config), _WEIGHTINGS[config.weighting](config)
        dropped = (
            {"condition_dropout": classes.DROPPED, "null": classes.null(config)} if config.classes else {}
        )
        objective = objectives.denoising(process, network, plain, law, weight, stratified=True, **dropped)
    else:
        objective = few_step_objective.objective_of(config, process, network, teacher_of(config), plain)
    changes = _augmentations(config)
    if changes:
        objective = objectives.augmented(data.compose(*changes), objective)
    return System(process, network, objective, None, draw)


def teacher_of(config: PriorConfig) -> Network:
    """Builds the network of the weights that a few-step run starts from.

    Args:
        config: the configuration.

    Returns:
        `Network`: the student's, without what only the student is told.

    Raises:
        ValueError: as `network_of`.
    """
    return network_of(dataclasses.replace(config, objective="denoising"))


def draw_batch(system: System, count: int) -> Callable:
    """Makes the function that draws images `first` to `first + count - 1` of a run of draws.

    Image i depends on `fold_in(key, i)` alone: not on the count, the batches or the devices.

    Args:
        system: what `build` returned.
        count: images a call.

    Returns:
        `(key, params, first) -> (count, *size, channels)`, to be compiled.
    """

    def draw(key, params, first):
        one = lambda index: system.draw(sample_key(key, index), params, None)
        return jax.vmap(one)(first + jnp.arange(count))

    return draw


def network_of(config: PriorConfig) -> Network:
    """Builds the network of a prior, and asks it whether it takes the images.

    Args:
        config: the configuration.

    Returns:
        `Network` with the conditions of `few_steps.conditions_of`; complex images have two channels each.

    Raises:
        ValueError: for an option that the network does not have, or a size of image that it cannot take.
    """
    make, known = _NETWORKS[config.network]
    known = {name: default for name, default in known.items() if name not in _FIXED}
    chosen = {name: _option(config.network, name, value, known) for name, value in config.options.items()}
    compute = jnp.bfloat16 if config.precision == "bfloat16" else jnp.float32
    channels = channels_seen(config)
    conditions = few_steps.conditions_of(config)
    if any(conditions):
        chosen["conditions"] = conditions
    network = make(channels, precision=Precision(compute=compute), **chosen)
    _check_size(config, network, channels)
    return network


def channels_seen(config: PriorConfig) -> int:
    """Returns the channels that the network sees: a complex image has two for each of its own.

    Args:
        config: the configuration.

    Returns:
        The number.
    """
    return config.channels * (2 if config.complex else 1)


def _augmentations(config):
    """The random changes of a training image; those of the configuration's defaults are left out."""
    changes = []
    if config.flip:
        changes.append(data.flip(config.flip))
    if config.rotate or config.zoom != (1.0, 1.0):
        changes.append(data.affine(config.rotate, config.zoom))
    if (config.gain, config.gamma) != ((1.0, 1.0), (1.0, 1.0)):
        changes.append(data.intensity(config.gain, config.gamma))
    if config.complex:
        changes.append(data.smooth_phase())
    return changes


def _option(network, name, value, known):
    if name not in known:
        raise ValueError(f"{network} has no option {name!r}: choose from {', '.join(known)}")
    default = known[name]
    if isinstance(default, tuple):
        value = tuple(value) if isinstance(value, (tuple, list)) else (value,)
        right = all(type(item) is int for item in value)
        wanted = "whole numbers"
    else:
        # The one default without a type is a number of channels.
        wanted = int if default is None else type(default)
        right = type(value) is wanted or (wanted is float and type(value) is int)
        wanted = wanted.__name__
    if not right:
        raise ValueError(f"option {name} of {network} is {value!r}: give {wanted}")
    return value


def _check_size(config, network, channels):
    x = jax.ShapeDtypeStruct((1, *config.size, channels), jnp.float32)
    params = jax.eval_shape(network.init, jax.random.key(0))
    told = few_steps.conditions_of(config).vector
    cond = {"vector": jax.ShapeDtypeStruct((1, told), jnp.float32)} if told else None
    try:
        jax.eval_shape(network.apply, params, x, jax.ShapeDtypeStruct((1,), jnp.float32), cond)
    except ValueError as error:
        raise ValueError(f"{config.network} cannot take images of size {config.size}: {error}") from error

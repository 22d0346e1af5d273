"""Training a prior in a folder, and reading it back: config.json beside the checkpoints of `training.fit`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from pgm_jax import training
from pgm_jax.core import checkpoint
from pgm_jax.recipes import prior_config
from pgm_jax.recipes.generation import few_steps
from pgm_jax.recipes.generation.images import image_batches, measured, read_images
from pgm_jax.recipes.generation.learned_prior import build, teacher_of
from pgm_jax.recipes.generation.optimisation import devices, optimiser
from pgm_jax.recipes.prior_config import MAY_CHANGE, PriorConfig
from pgm_jax.training import TrainState, ema

CHECKPOINTS = "checkpoints"
"""Folder of the checkpoints inside the folder of a run."""

_AVERAGES = {"half_life": ema.half_life, "power": ema.power, "constant": ema.constant}


class Trained(NamedTuple):
    """The weights of a run.

    Attributes:
        config: its configuration.
        params: an average of the parameters, replicated over the mesh.
        average: name of the average.
        step: steps after which it was taken.
    """

    config: PriorConfig
    params: Any
    average: str
    step: int


def averages(config: PriorConfig) -> list[ema.Rule]:
    """Builds the averages that a configuration names.

    Args:
        config: the configuration.

    Returns:
        List of `training.ema.Rule`; a rule has the name that it is given there.

    Raises:
        ValueError: for a name that is not half_life_STEPS, power_STD or constant_DECAY.
    """
    return [_average(name) for name in config.ema]


def _average(name):
    kind, _, number = name.rpartition("_")
    try:
        value = float(number)
        make = _AVERAGES[kind]
    except (KeyError, ValueError):
        raise ValueError(
            f"ema is {name!r}: name averages half_life_STEPS, power_STD or constant_DECAY"
        ) from None
    return make(value)._replace(name=name)


def train(
    config: PriorConfig,
    folder=None,
    *,
    images: Sequence | None = None,
    hooks: Sequence[Callable] = (),
    save_every: int = 1000,
    keep: int = 3,
    log_every: int = 100,
    per_call: int = training.PER_CALL,
) -> TrainState:
    """Trains a prior, or goes on with the run in the folder; see `training.fit`.

    Args:
        config: the configuration; noise levels that it leaves open are measured.
        folder: folder of the run, for checkpoints; None saves nothing.
        images: what `read_images` returns; by default they are read.
        hooks: `(step, metrics, state) -> None`.
        save_every: steps between checkpoints.
        keep: checkpoints to keep.
        log_every: steps between calls of the hooks.
        per_call: the most steps of one call of the compiled program.

    Returns:
        The `TrainState` after `config.steps` steps.

    Raises:
        ValueError: for a configuration that is impossible or does not fit the data or the devices.
        CheckpointError: if the folder holds another run, none of its checkpoints can be read, or one cannot
            be written.
        Diverged: if the loss is not finite.
        Interrupted: if a signal came and the state was saved.
    """
    images = read_images(config) if images is None else images
    config = measured(few_steps.started(config, few_steps.start_config(config)), images)
    system = build(config)
    mesh, rules = devices(config)
    params, carry = few_steps.first_state(config, system.network, teacher_of(config), _start(config))
    return training.fit(
        system.objective,
        optimiser(config),
        params,
        image_batches(config, images),
        key=jax.random.key(config.seed),
        steps=config.steps,
        ema=averages(config),
        carry=carry,
        mesh=mesh,
        rules=rules,
        accumulate=config.accumulate,
        checkpoint=None if folder is None else Path(folder).resolve() / CHECKPOINTS,
        save_every=save_every,
        keep=keep,
        hooks=hooks,
        meta=_described(config, images),
        log_every=log_every,
        per_call=per_call,
    )


def load_run(folder, *, average: str | None = None, step: int | None = None, mesh=None) -> Trained:
    """Reads the configuration and an average of the parameters of a run.

    Args:
        folder: folder of the run.
        average: name of an average of the configuration; by default its first.
        step: step of the checkpoint; by default the latest complete one.
        mesh: mesh on which the parameters are replicated; by default this process's first device.

    Returns:
        `Trained`.

    Raises:
        ValueError: if the folder holds no run, or the run has no such average.
        CheckpointError: if there is no complete checkpoint or no such step, it is damaged, or it does not belong
            to the configuration.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} holds no run: there is no config.json, which `pgm train --out` writes")
    config = prior_config.read(folder)
    average = config.ema[0] if average is None else average
    if average not in config.ema:
        raise ValueError(
            f"the run in {folder} has no average {average!r}: choose from {', '.join(config.ema)}"
        )
    path = (folder / CHECKPOINTS).resolve()
    # A run of before a field existed has its default.
    saved = prior_config.to_json(prior_config.PriorConfig()) | checkpoint.read_meta(path, step)["meta"]
    for name, value in _described(config, ()).items():
        if name != "images" and saved.get(name) != value:
            raise checkpoint.CheckpointError(
                f"{path} was trained with {name} = {saved.get(name)}, and {folder / 'config.json'} says {value}: "
                "put the configuration of the run back"
            )
    network, rules = build(config).network, averages(config)
    _, carry = few_steps.first_state(config, network, teacher_of(config), None)
    abstract = training.abstract_state(
        jax.random.key(0), network.init, optimiser(config), ema=rules, carry=carry, mesh=mesh
    )
    state, _ = checkpoint.restore(path, abstract, step)
    return Trained(config, state.ema[average], average, int(state.step))


def _start(config):
    if config.start is None:
        return None
    run = load_run(config.start)
    return few_steps.Start(run.config, run.params)


def _described(config, images):
    """What a checkpoint says of its run, and what must be equal where it goes on."""
    held = {name: value for name, value in prior_config.to_json(config).items() if name not in MAY_CHANGE}
    return held | {"images": len(images)}

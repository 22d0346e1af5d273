"""The configuration of a learned prior: one frozen record, saved as JSON beside the weights. It needs no jax."""

import dataclasses
import difflib
import json
import math
import typing
from pathlib import Path

_CHOICES = {
    "framing": ("whole", "patches"),
    "process": ("edm", "pfgmpp", "vp", "ve", "flow"),
    "parameterisation": ("edm", "noise", "v", "x0", "velocity"),
    "weighting": ("output", "simple", "min_snr", "v", "edm", "x0", "likelihood"),
    "levels": ("lognormal", "uniform"),
    "network": ("unet", "ddpmpp", "ncsnpp", "adm", "dit", "drunet"),
    "precision": ("float32", "bfloat16"),
}
# What `generation.measured` fills in where it is None.
MEASURED = ("level_mean", "level_std", "sigma_data", "sigma_min", "sigma_max")
_POSITIVE = ("shrink", "channels", "batch", "steps", "accumulate", "rate", "clip", "mesh_fsdp")
_POSITIVE_IF_GIVEN = ("D", *(name for name in MEASURED if name != "level_mean"), "mesh_data")
# A run may be given more steps and other devices when it goes on; its numbers up to there stay what they were.
MAY_CHANGE = ("steps", "mesh_data", "mesh_fsdp")


@dataclasses.dataclass(frozen=True)
class PriorConfig:
    """What a prior is and how it is trained.

    Images are axial slices, scaled so that 0 and 1 are the ends of `window`; every noise level is in these units.

    Attributes:
        data: named data sets (`pgm data list`), or files and folders: NPY, NIfTI, NRRD, DICOM.
        size: height and width of an image in pixels, after `shrink`.
        framing: "whole" pads or crops each slice around its centre; "patches" cuts at random places.
        shrink: averages blocks of this many pixels a side.
        min_anatomy: least share of a slice that must be anatomy.
        window: values that become 0 and 1; None is 0 and the 99.5th percentile of each volume.
        channels: channels of an image; a complex one counts once.
        complex: multiply by random smooth phase; the network sees real and imaginary parts.
        process: edm, pfgmpp, vp, ve or flow.
        D: dimension of pfgmpp, such as 128; inf is edm.
        parameterisation: what the network predicts: edm (preconditioned), noise, v, x0 or velocity.
        weighting: output (unit weight on the network's output), simple, min_snr, v, edm, x0, likelihood.
        levels: law of the training levels: lognormal (of sigma / alpha) or uniform (in the time of vp, ve, flow).
        level_mean: mean of ln(sigma / alpha); None is measured.
        level_std: deviation of ln(sigma / alpha); None is 1.2.
        sigma_data: deviation of the data per real component; None is measured.
        sigma_min: smallest level of a sampler; None is measured.
        sigma_max: largest level of a sampler; None is measured.
        network: unet, ddpmpp, ncsnpp, adm, dit or drunet.
        options: options of the network, such as width=32 multipliers=1,2; they replace those of a file.
        precision: float32, or bfloat16 inside the network.
        rate: learning rate of Adam.
        warmup: steps over which the rate rises from 0.
        clip: largest norm of a gradient.
        batch: images a step.
        accumulate: parts into which a step's batch is split.
        steps: steps of the whole run.
        ema: averages of the weights: half_life_STEPS, power_STD or constant_DECAY; the first is sampled.
        seed: seed of weights, order and noise.
        mesh_data: devices that split the batch; None is all.
        mesh_fsdp: devices that split batch and weights.
    """

    data: tuple[str, ...] = ()
    size: tuple[int, int] = (64, 64)
    framing: str = "whole"
    shrink: int = 1
    min_anatomy: float = 0.1
    window: tuple[float, float] | None = None
    channels: int = 1
    complex: bool = False
    process: str = "edm"
    D: float | None = None
    parameterisation: str = "edm"
    weighting: str = "output"
    levels: str = "lognormal"
    level_mean: float | None = None
    level_std: float | None = None
    sigma_data: float | None = None
    sigma_min: float | None = None
    sigma_max: float | None = None
    network: str = "unet"
    options: dict = dataclasses.field(default_factory=dict)
    precision: str = "float32"
    rate: float = 5e-4
    warmup: int = 200
    clip: float = 1.0
    batch: int = 16
    accumulate: int = 1
    steps: int = 10000
    ema: tuple[str, ...] = ("half_life_500",)
    seed: int = 0
    mesh_data: int | None = None
    mesh_fsdp: int = 1


def check(config: PriorConfig) -> None:
    """Raises where a field has no meaning, alone or beside the others.

    Args:
        config: the configuration.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """
    for name, allowed in _CHOICES.items():
        value = getattr(config, name)
        if value not in allowed:
            raise ValueError(
                f"{name} is {value!r}: choose one of {', '.join(allowed)}{_near(value, allowed)}"
            )
    for name in (*_POSITIVE, *_POSITIVE_IF_GIVEN):
        value = getattr(config, name)
        if not (value is None and name in _POSITIVE_IF_GIVEN) and not value > 0:
            raise ValueError(f"{name} is {value}: give a positive number")
    if min(config.size) < 1 or config.warmup < 0 or config.seed < 0 or not 0 <= config.min_anatomy <= 1:
        raise ValueError("size must be positive, warmup and seed 0 or more, min_anatomy between 0 and 1")
    if config.window is not None and not config.window[0] < config.window[1]:
        raise ValueError(f"window is {config.window}: give the value that becomes 0, then a larger one")
    if not config.data:
        raise ValueError(
            "no data: give the names of data sets (`pgm data list`) or files, such as pycortex-s1"
        )
    if not config.ema:
        raise ValueError("ema is empty: name at least one average, such as half_life_500")
    _check_pairs(config)


def _check_pairs(config):
    if (config.process == "pfgmpp") != (config.D is not None):
        raise ValueError(
            f"process {config.process} and D {config.D}: pfgmpp needs a D, such as 128, and the others have none"
        )
    if config.complex and config.window is not None and config.window[0] != 0:
        raise ValueError(
            f"window {config.window} shifts values, which complex images do not allow: let it begin at 0"
        )
    if config.levels == "uniform" and config.process in ("edm", "pfgmpp"):
        raise ValueError(f"uniform levels need an end of time, which {config.process} has not: use lognormal")
    if config.weighting == "likelihood" and config.process == "pfgmpp" and math.isfinite(config.D):
        raise ValueError("likelihood weighting holds for Normal noise, not at a finite D: use output or edm")
    low, high = config.sigma_min, config.sigma_max
    if low is not None and high is not None and not low < high:
        raise ValueError(f"sigma_min {low} must be below sigma_max {high}")


def to_json(config: PriorConfig) -> dict:
    """Returns the configuration as JSON holds it: tuples as lists, an infinite D as "inf".

    Args:
        config: the configuration.

    Returns:
        Dict of JSON values by field.
    """
    return {name: _plain(value) for name, value in dataclasses.asdict(config).items()}


def from_json(values, source="the configuration") -> PriorConfig:
    """Reads a configuration; fields that are absent keep their defaults.

    Args:
        values: what `to_json` returned, or a part of it.
        source: name for the messages.

    Returns:
        The configuration.

    Raises:
        ValueError: for an unknown field, with the nearest, or a value of another type.
    """
    if not isinstance(values, dict):
        raise ValueError(
            f"{source}: holds {type(values).__name__}, not an object with the fields of PriorConfig"
        )
    hints = typing.get_type_hints(PriorConfig)
    for name in values:
        if name not in hints:
            raise ValueError(f"{source}: no field {name!r}{_near(name, hints)}; see `pgm train --help`")
    return PriorConfig(
        **{name: _typed(value, hints[name], f"{source}: {name}") for name, value in values.items()}
    )


def read(path) -> PriorConfig:
    """Reads a configuration file.

    Args:
        path: JSON file, or the folder of a run, which holds config.json.

    Returns:
        The configuration.

    Raises:
        ValueError: if there is no such file, it is not JSON, or as `from_json`.
    """
    path = Path(path)
    path = path / "config.json" if path.is_dir() else path
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(
            f"{path}: {error.strerror or error}; give a configuration file or the folder of a run"
        ) from None
    except ValueError:
        raise ValueError(f"{path}: not a JSON file; `pgm train` writes one as DIR/config.json") from None
    return from_json(values, path)


def continued(saved: PriorConfig, given: PriorConfig, where) -> PriorConfig:
    """Returns the configuration with which a run goes on: the given one, with what had been measured.

    Args:
        saved: configuration of the run so far.
        given: configuration asked for. None stands for any value of the fields `MEASURED`; `MAY_CHANGE` may differ.
        where: name of the run for the message.

    Returns:
        The configuration.

    Raises:
        ValueError: naming the first field that differs, with both values.
    """
    kept = {name: getattr(saved, name) for name in MEASURED if getattr(given, name) is None}
    given = dataclasses.replace(given, **kept)
    was, now = to_json(saved), to_json(given)
    for name in was:
        if name in MAY_CHANGE or was[name] == now[name]:
            continue
        raise ValueError(
            f"{where} holds a run with {name} = {_shown(was[name])}, and this one has {name} = "
            f"{_shown(now[name])}: give the saved value, or another folder"
        )
    return given


def _shown(value):
    return value if isinstance(value, str) else json.dumps(value)


def _plain(value):
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _typed(value, hint, what):
    """Returns a JSON value as the type that a field has; raises where it is another."""
    members = typing.get_args(hint)
    if type(None) in members:
        return None if value is None else _typed(value, members[0], what)
    if typing.get_origin(hint) is tuple:
        kinds = members[:1] * len(value) if members[-1] is ... and isinstance(value, list) else members
        if isinstance(value, list) and len(value) == len(kinds):
            return tuple(_typed(item, kind, what) for item, kind in zip(value, kinds, strict=True))
    elif hint is float and (value == "inf" or type(value) in (int, float)):
        return float(value)
    elif type(value) is hint:
        return {name: _tuples(item) for name, item in value.items()} if hint is dict else value
    name = getattr(hint, "__name__", str(hint)) if typing.get_origin(hint) is None else str(hint)
    raise ValueError(f"{what} is {json.dumps(value)}: give {name}")


def _tuples(value):
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _near(name, known):
    near = difflib.get_close_matches(str(name), list(known), 1)
    return f"; did you mean {near[0]}?" if near else ""

"""The configuration of a learned prior: one frozen record, saved as JSON beside the weights. It needs no jax."""

import dataclasses
import json
import typing
from pathlib import Path

from pgm_jax.recipes.prior_checks import MEASURED as MEASURED, check as check
from pgm_jax.recipes.typed_json import near, plain, shown, typed

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
        flip: axes along which images are mirrored at random: 0 up and down, 1 left and right.
        rotate: largest random rotation in degrees.
        zoom: smallest and largest random magnification.
        gain: smallest and largest random factor of the intensity.
        gamma: smallest and largest random exponent of the intensity.
        process: edm, pfgmpp, vp, ve or flow.
        D: dimension of pfgmpp, such as 128; inf is edm.
        parameterisation: what the network predicts: edm (preconditioned), trigflow, noise, v, x0 or velocity.
        weighting: output (unit weight on the network's output), simple, min_snr, v, edm, x0, likelihood.
        levels: law of the training levels: lognormal (of sigma / alpha) or uniform (in the time of vp, ve, flow).
        classes: tell the network of which entry of `data` an image is, nine times in ten; see `pgm sample --label`.
        objective: denoising; for few steps ect, ict, cd, lcd (with classes), ctm, scm (with trigflow) or meanflow.
        start: folder of the run whose weights are tuned (ect) or distilled (cd, lcd, ctm, scm); None is no run.
        stages: stages of ect, in each of which pairs of levels come twice as close.
        adversarial: adds a discriminator to ect, ict, cd or ctm: its gradient over theirs at the head; 0 is none.
        adversarial_start: step with which the discriminator begins.
        knots: levels of the grid of cd, lcd and ctm.
        guided: smallest and largest scale of guidance by the class that lcd distils.
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
        decay: constant, or cosine: from there the rate falls to a hundredth at the last step.
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
    flip: tuple[int, ...] = ()
    rotate: float = 0.0
    zoom: tuple[float, float] = (1.0, 1.0)
    gain: tuple[float, float] = (1.0, 1.0)
    gamma: tuple[float, float] = (1.0, 1.0)
    process: str = "edm"
    D: float | None = None
    parameterisation: str = "edm"
    weighting: str = "output"
    levels: str = "lognormal"
    classes: bool = False
    objective: str = "denoising"
    start: str | None = None
    stages: int = 8
    adversarial: float = 0.0
    adversarial_start: int = 0
    knots: int = 18
    guided: tuple[float, float] = (1.0, 4.0)
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
    decay: str = "constant"
    clip: float = 1.0
    batch: int = 16
    accumulate: int = 1
    steps: int = 10000
    ema: tuple[str, ...] = ("half_life_500",)
    seed: int = 0
    mesh_data: int | None = None
    mesh_fsdp: int = 1


def to_json(config: PriorConfig) -> dict:
    """Returns the configuration as JSON holds it: tuples as lists, an infinite D as "inf".

    Args:
        config: the configuration.

    Returns:
        Dict of JSON values by field.
    """
    return {name: plain(value) for name, value in dataclasses.asdict(config).items()}


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
            raise ValueError(f"{source}: no field {name!r}{near(name, hints)}; see `pgm train --help`")
    return PriorConfig(
        **{name: typed(value, hints[name], f"{source}: {name}") for name, value in values.items()}
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
    # A cosine and a curriculum end at the last step: with another one all steps so far would have been others.
    bound = given.decay == "cosine" or given.objective in ("ect", "ict")
    free = [name for name in MAY_CHANGE if name != "steps" or not bound]
    for name in was:
        if name in free or was[name] == now[name]:
            continue
        raise ValueError(
            f"{where} holds a run with {name} = {shown(was[name])}, and this one has {name} = "
            f"{shown(now[name])}: give the saved value, or another folder"
        )
    return given

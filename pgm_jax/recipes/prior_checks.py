"""What a prior's configuration may say, field by field and in pairs. It needs no jax."""

import math

from pgm_jax.recipes.typed_json import near

_CHOICES = {
    "framing": ("whole", "patches"),
    "process": ("edm", "pfgmpp", "vp", "ve", "flow"),
    "parameterisation": ("edm", "trigflow", "noise", "v", "x0", "velocity"),
    "weighting": ("output", "simple", "min_snr", "v", "edm", "x0", "likelihood"),
    "levels": ("lognormal", "uniform"),
    "objective": ("denoising", "ect", "ict", "cd", "lcd", "ctm", "scm", "meanflow"),
    "network": ("unet", "ddpmpp", "ncsnpp", "adm", "dit", "drunet"),
    "precision": ("float32", "bfloat16"),
    "decay": ("constant", "cosine"),
}
_RANGES = ("zoom", "gain", "gamma", "guided")
# What `generation.measured` fills in where it is None.
MEASURED = ("level_mean", "level_std", "sigma_data", "sigma_min", "sigma_max")
_POSITIVE = ("shrink", "channels", "batch", "steps", "stages", "accumulate", "rate", "clip", "mesh_fsdp")
_POSITIVE_IF_GIVEN = ("D", *(name for name in MEASURED if name != "level_mean"), "mesh_data")


def check(config) -> None:
    """Raises where a field has no meaning, alone or beside the others.

    Args:
        config: `PriorConfig`.

    Raises:
        ValueError: naming the field, its value and what is allowed.
    """
    for name, allowed in _CHOICES.items():
        value = getattr(config, name)
        if value not in allowed:
            raise ValueError(f"{name} is {value!r}: choose one of {', '.join(allowed)}{near(value, allowed)}")
    for name in (*_POSITIVE, *_POSITIVE_IF_GIVEN):
        value = getattr(config, name)
        if not (value is None and name in _POSITIVE_IF_GIVEN) and not value > 0:
            raise ValueError(f"{name} is {value}: give a positive number")
    if min(config.size) < 1 or config.warmup < 0 or config.seed < 0 or not 0 <= config.min_anatomy <= 1:
        raise ValueError("size must be positive, warmup and seed 0 or more, min_anatomy between 0 and 1")
    if config.window is not None and not config.window[0] < config.window[1]:
        raise ValueError(f"window is {config.window}: give the value that becomes 0, then a larger one")
    _check_augmentation(config)
    if config.decay == "cosine" and config.warmup >= config.steps:
        raise ValueError(f"warmup {config.warmup} leaves no step of {config.steps} for the cosine: lower it")
    if not config.data:
        raise ValueError(
            "no data: give the names of data sets (`pgm data list`) or files, such as pycortex-s1"
        )
    if not config.ema:
        raise ValueError("ema is empty: name at least one average, such as half_life_500")
    _check_pairs(config)


def _check_augmentation(config):
    for name in _RANGES:
        low, high = getattr(config, name)
        if not 0 < low <= high:
            raise ValueError(f"{name} is {low:g} {high:g}: give two positive numbers, the smaller first")
    if not set(config.flip) <= {0, 1} or config.rotate < 0:
        raise ValueError(
            f"flip is {config.flip} and rotate {config.rotate:g}: flip takes axes 0 and 1, rotate degrees from 0"
        )
    if config.window is not None and (config.gain, config.gamma) != ((1.0, 1.0), (1.0, 1.0)):
        raise ValueError("gain and gamma change values that a window has fixed, such as HU: leave one out")


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
    _check_classes(config)
    _check_few_steps(config)
    _check_adversarial(config)
    low, high = config.sigma_min, config.sigma_max
    if low is not None and high is not None and not low < high:
        raise ValueError(f"sigma_min {low} must be below sigma_max {high}")


def _check_classes(config):
    if config.classes and len(config.data) < 2:
        raise ValueError("classes tells entries of data apart, and there is one: give two or more")
    if config.classes != (config.objective == "lcd") and config.objective != "denoising":
        told = "needs" if config.objective == "lcd" else "does not know"
        raise ValueError(
            f"objective {config.objective} {told} classes: lcd distils a run of denoising with classes"
        )


def _check_few_steps(config):
    name, plain = config.objective, ("output", "lognormal")
    if name == "denoising":
        return
    needed = "trigflow" if name == "scm" else "edm"
    if config.process not in ("edm", "pfgmpp") or config.parameterisation != needed:
        raise ValueError(
            f"objective {name} with process {config.process} and parameterisation {config.parameterisation}: "
            f"it has process edm or pfgmpp and parameterisation {needed}"
        )
    if (config.weighting, config.levels) != plain:
        raise ValueError(
            f"objective {name} has its own weighting: leave weighting output and levels lognormal"
        )
    if name in ("ect", "cd", "lcd", "ctm") and config.start is None:
        raise ValueError(
            f"objective {name} needs trained weights: give start, the folder of a run of denoising"
        )
    if name == "ict" and config.steps < 8:
        raise ValueError(f"steps is {config.steps}: ict doubles its levels seven times, give at least 8")
    if config.knots < 6:
        raise ValueError(f"knots is {config.knots}: give 6 or more")


def _check_adversarial(config):
    known = ("ect", "ict", "cd", "ctm")
    if config.adversarial < 0 or config.adversarial_start < 0:
        raise ValueError(
            f"adversarial {config.adversarial:g} and adversarial_start {config.adversarial_start}: give 0 or more"
        )
    if config.adversarial and config.objective not in known:
        raise ValueError(
            f"adversarial is {config.adversarial:g} with objective {config.objective}: it is for {', '.join(known)}"
        )
    if config.adversarial and any(n % 4 for n in config.size):
        raise ValueError(
            f"adversarial needs a size that 4 divides, for its discriminator, and size is {config.size}"
        )

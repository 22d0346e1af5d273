"""Priors of several classes: an image is told the entry of `data` it comes from, and draws may be guided by it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pgm_jax.guidance import cfg
from pgm_jax.networks import told
from pgm_jax.recipes.prior_config import PriorConfig
from pgm_jax.recipes.typed_json import near

DROPPED = 0.1
"""Share of the images that are shown without their class in training (Ho and Salimans 2022, section 3)."""


class Asked(NamedTuple):
    """What a draw is told.

    Attributes:
        condition: `key -> cond` of one image.
        guidance: a guidance of the sampler, or None.
    """

    condition: Callable[[Any], Any]
    guidance: Any = None


def null(config: PriorConfig):
    """Returns the condition of one image that stands for no class, None for a prior without classes.

    Args:
        config: the configuration.

    Returns:
        `{"class": number of classes}`, or None.
    """
    return {"class": len(config.data)} if config.classes else None


def class_number(config: PriorConfig, label: str) -> int:
    """Finds the class of an entry of the data.

    Args:
        config: the configuration.
        label: the entry as it was given to the training, or its file's name without folder and ending.

    Returns:
        Its number.

    Raises:
        ValueError: for a prior without classes, or a label that is none of them.
    """
    if not config.classes:
        raise ValueError(f"label is {label!r}, and this prior was trained without classes: leave it out")
    if label in config.data:
        return config.data.index(label)
    names = [Path(entry).name.split(".")[0] for entry in config.data]
    if names.count(label) != 1:
        raise ValueError(
            f"label is {label!r}: choose one of {', '.join(config.data)}{near(label, config.data)}"
        )
    return names.index(label)


def asked(config: PriorConfig, label: str | None, scale: float | None) -> Asked:
    """Prepares what a draw is told: the class, and how strongly it is guided by it.

    A prior of denoising draws without a class where none is named, and by `guidance.cfg` at scales other than 1.
    One of lcd has the guidance in its weights: it is told the scale, the geometric mean of those distilled where
    none is given, and draws the class at random where none is named.

    Args:
        config: the configuration.
        label: see `class_number`; None names none.
        scale: scale of classifier-free guidance, see `guidance.cfg`; None is 1, or lcd's own.

    Returns:
        `Asked`.

    Raises:
        ValueError: as `class_number`; for a scale without a label, not above 0, or outside what was distilled.
    """
    number = None if label is None else class_number(config, label)
    if config.objective == "lcd":
        return Asked(_distilled(config, number, scale))
    if scale is not None and (number is None or not scale > 0):
        raise ValueError(
            f"guidance is {scale:g}: give a positive number, beside the label of a class that it guides to"
        )
    if number is None:
        return Asked(lambda key: None)
    free = {"class": jnp.int32(len(config.data))}
    return Asked(lambda key: {"class": jnp.int32(number)}, None if scale in (None, 1) else cfg(scale, free))


def _distilled(config, number, scale):
    low, high = config.guided
    scale = (low * high) ** 0.5 if scale is None else scale
    if not low <= scale <= high:
        raise ValueError(f"guidance is {scale:g}, and this prior was distilled at {low:g} to {high:g}")

    def condition(key):
        drawn = jax.random.randint(jax.random.fold_in(key, 1), (), 0, len(config.data))
        chosen = drawn if number is None else jnp.int32(number)
        return told({"class": chosen}, jnp.log(jnp.float32(scale)))

    return condition

"""Real patches of people that no shipped prior was trained on: what few-step priors are measured against."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from pgm_jax import data
from pgm_jax.recipes import ct, mri

# Slices of a person, spread over the anatomy.
_SLICES = 32
# A pixel counts as anatomy above this share of the 99.5th percentile.
_ANATOMY = 0.05


class Patches(NamedTuple):
    """Patches of images.

    Attributes:
        images: (n, height, width, channel), float32 or complex64.
        slices: (n,) number of the slice that each was cut from.
        source: what they are, in words.
    """

    images: np.ndarray
    slices: np.ndarray
    source: str


class Task(NamedTuple):
    """Where the images of a kind of prior come from.

    Attributes:
        unit: unit of the priors' cards.
        people: named data sets, used for validation only.
        images: `name -> (slices, height, width, 1)` in that unit.
    """

    unit: str
    people: tuple[str, ...]
    images: Callable


def _chest(name):
    """Slices at the pixels of the recipe's reconstructions."""
    fine = ct.chest_slices(name, _SLICES).fine
    count, height, width, _ = fine.shape
    return fine.reshape(count, height // 2, 2, width // 2, 2, 1).mean(axis=(2, 4))


def _brain(name):
    """Slices with a smooth phase each."""
    magnitude = mri.brain_slices(name, _SLICES // 2).magnitude
    height, width = magnitude.shape[1:3]
    phase = [mri.smooth_phase(jax.random.key(number), height, width) for number in range(len(magnitude))]
    return (magnitude * np.exp(1j * np.array(phase))[..., None]).astype(np.complex64)


TASKS = {
    "chest": Task("attenuation of water", ("lung1",), _chest),
    "brain": Task("99.5th percentile of the volume", ("brain1", "brain2"), _brain),
}
"""Tasks by name."""


def patches_for(prior, size, count: int, file=None) -> tuple[str, Patches]:
    """Cuts the patches that a prior is measured on.

    Args:
        prior: `LearnedPrior`.
        size: (height, width) of a patch.
        count: number of patches.
        file: NPY, NIfTI or other file that `data.read` reads, of images in the prior's unit; None takes the task of
            the prior's unit.

    Returns:
        `(name of the task, Patches)`.

    Raises:
        ValueError: if no task has the prior's unit and there is no file.
        DataError: if the images cannot be read or fetched, or are smaller than a patch.
    """
    if file is not None:
        return "images", cut(data.read(file).array, size, count, str(file))
    found = [name for name, task in TASKS.items() if task.unit == prior.unit]
    if not found:
        raise ValueError(
            f"no images are known in this prior's unit, {prior.unit!r}: give your own by --images FILE (known: "
            f"{', '.join(task.unit for task in TASKS.values())})"
        )
    task = TASKS[found[0]]
    share = -(-count // len(task.people))
    parts = [cut(task.images(name), size, share, name) for name in task.people]
    slices = [part.slices + number * _SLICES for number, part in enumerate(parts)]
    # People take turns, so that the first patches are of all of them.
    turns = np.arange(share * len(parts)).reshape(len(parts), share).T.ravel()[:count]
    images = np.concatenate([part.images for part in parts])[turns]
    return found[0], Patches(images, np.concatenate(slices)[turns], " and ".join(task.people))


def cut(images, size, count: int, source: str) -> Patches:
    """Cuts patches around random pixels of anatomy, slice after slice; the same for the same images.

    Args:
        images: (slices, height, width, channel), real or complex.
        size: (height, width) of a patch.
        count: number of patches.
        source: what the images are.

    Returns:
        `Patches`.

    Raises:
        DataError: if the images are smaller than a patch.
    """
    height, width = size
    if images.shape[1] < height or images.shape[2] < width:
        raise data.DataError(
            f"{source}: images of {images.shape[1:3]} pixels are smaller than the prior's {tuple(size)}: give "
            "larger ones"
        )
    random = np.random.default_rng(0)
    magnitude = np.abs(images).max(axis=-1)
    anatomy = magnitude > _ANATOMY * np.percentile(magnitude, 99.5)
    chosen, slices = [], np.arange(count) % len(images)
    for number in slices:
        places = np.argwhere(anatomy[number])
        place = places[random.integers(len(places))] if len(places) else np.array(images.shape[1:3]) // 2
        row, column = np.clip(place - np.array(size) // 2, 0, np.array(images.shape[1:3]) - size)
        chosen.append(images[number, row : row + height, column : column + width])
    dtype = np.complex64 if np.iscomplexobj(images) else np.float32
    return Patches(np.array(chosen, dtype), slices, source)

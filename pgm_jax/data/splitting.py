"""Training, validation and test sets: whole subjects on one side, then axial slices of each."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from pgm_jax.data.datasets import describe, load
from pgm_jax.data.errors import DataError
from pgm_jax.data.framing import pad_or_crop
from pgm_jax.data.volume import Volume


class Split(NamedTuple):
    """Names of data sets by side; no subject is on two sides.

    Attributes:
        train: names to fit on.
        validation: names to choose settings on.
        test: names that are only ever measured on.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


class Slices(NamedTuple):
    """Axial slices of one or more volumes.

    Attributes:
        array: (n, height, width, channel), in the units of the volumes after `transform`.
        name: (n,) name of the volume of each slice.
        subject: (n,) label of its subject.
        index: (n,) z index in its volume.
    """

    array: np.ndarray
    name: np.ndarray
    subject: np.ndarray
    index: np.ndarray


def split(names: Iterable[str], *, validation: Iterable[str] = (), test: Iterable[str] = ()) -> Split:
    """Splits data sets by subject.

    Args:
        names: data sets to split. Each goes to the role in its table row, unless named below.
        validation: those to move to the validation side.
        test: those to move to the test side.

    Returns:
        The three sides, each in the given order.

    Raises:
        DataError: for an unknown name, or if one subject would end up on two sides.
    """
    names, validation, test = tuple(names), set(validation), set(test)
    stray = (validation | test) - set(names)
    if stray or validation & test:
        wrong = sorted(stray or validation & test)
        raise DataError(f"split: {wrong} must be among names, and on one side only")
    sides: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    owner: dict[str, str] = {}
    for name in names:
        row = describe(name)
        side = "test" if name in test else "validation" if name in validation else row.role
        if owner.setdefault(row.subject, side) != side:
            raise DataError(
                f"split: subject '{row.subject}' would be in {owner[row.subject]} and, as '{name}', in "
                f"{side}: put all data sets of a subject on one side"
            )
        sides[side].append(name)
    return Split(*(tuple(sides[side]) for side in Split._fields))


def axial_slices(volume: Volume, min_anatomy: float = 0.1, step: int = 1) -> np.ndarray:
    """Finds the axial slices that show enough anatomy.

    A voxel counts as anatomy above a tenth of the way from the volume's minimum to its 99.5th percentile
    (of the first channel's magnitude if complex).

    Args:
        volume: volume (depth, height, width, channel).
        min_anatomy: least fraction of a slice's pixels that must be anatomy.
        step: keep every `step`-th of the slices found.

    Returns:
        (n,) z indices, increasing.

    Raises:
        DataError: if no slice has enough anatomy.
    """
    image = volume.array[..., 0]
    image = np.abs(image) if np.iscomplexobj(image) else image
    low, high = float(image.min()), float(np.percentile(image, 99.5))
    fraction = (image > low + 0.1 * (high - low)).mean(axis=(1, 2))
    found = np.flatnonzero(fraction >= min_anatomy)[::step]
    if not found.size:
        raise DataError(f"{volume.name}: no slice has {min_anatomy:.0%} anatomy: lower min_anatomy")
    return found


def slices(
    volumes: Sequence[str | Volume],
    shape: tuple[int, int] | None = None,
    *,
    min_anatomy: float = 0.1,
    step: int = 1,
    transform: Callable[[Volume], Volume] | None = None,
) -> Slices:
    """Stacks the axial slices with enough anatomy of several volumes.

    Args:
        volumes: names of data sets (fetched if missing) or volumes.
        shape: (height, width) to pad or crop to, around the centre, filled with the volume's minimum;
            None keeps the size, which must then be the same in all.
        min_anatomy: see `axial_slices`.
        step: see `axial_slices`.
        transform: applied to each volume first, to scale intensities or to resample.

    Returns:
        The slices in the order of the volumes, z increasing.

    Raises:
        DataError: if volumes have different units or sizes, or as in `load` and `axial_slices`.
    """
    loaded = [load(volume) if isinstance(volume, str) else volume for volume in volumes]
    loaded = [volume if transform is None else transform(volume) for volume in loaded]
    kinds = {(volume.units, volume.array.shape[1 if shape is None else 3 :]) for volume in loaded}
    if len(kinds) != 1:
        held = ", ".join(f"{volume.name} {volume.array.shape[1:]} {volume.units}" for volume in loaded)
        raise DataError(f"slices: cannot stack ({held}): give one kind of units, and a shape if sizes differ")
    parts, found = [], [axial_slices(volume, min_anatomy, step) for volume in loaded]
    for volume, index in zip(loaded, found, strict=True):
        part = volume.array[index]
        fill = 0.0 if np.iscomplexobj(part) else float(volume.array.min())
        parts.append(part if shape is None else pad_or_crop(part, shape, fill))
    counts = [len(index) for index in found]
    return Slices(
        array=np.concatenate(parts),
        name=np.repeat([volume.name for volume in loaded], counts),
        subject=np.repeat([volume.subject for volume in loaded], counts),
        index=np.concatenate(found),
    )

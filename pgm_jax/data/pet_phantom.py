"""A PET phantom of the brain from tissue maps: activity and attenuation on the grid of the maps."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pgm_jax.data.errors import DataError
from pgm_jax.data.volume import Volume

# Linear attenuation at 511 keV in 1/mm: water (and soft tissue), and skull as attenuation maps of PET give it.
_SOFT, _BONE = 0.0096, 0.0151
# Millimetres: gaps within the brain that are filled, thickness of the skull, thickness of the scalp.
_GAP, _SKULL, _SCALP = 8.0, 7.0, 5.0


class PETPhantom(NamedTuple):
    """Activity and attenuation on one grid.

    Attributes:
        activity: `Volume` in units of the activity of white matter.
        attenuation: `Volume` in "1/mm" at 511 keV.
    """

    activity: Volume
    attenuation: Volume


def pet_phantom(
    grey: Volume,
    white: Volume,
    *,
    ratio: float = 4.0,
    lesions: Sequence[tuple[Sequence[float], float, float]] = (),
) -> PETPhantom:
    """Makes a PET phantom of the brain from maps of grey and white matter, as of glucose.

    Activity is `ratio p_grey + p_white`, 0 in cerebrospinal fluid and outside. The maps hold no skull: the
    brain is closed over gaps of 8 mm, wrapped in 7 mm of bone and 5 mm of scalp without activity. So the
    activity follows real anatomy, and the head around it is made up. It is a phantom: the counts of a real
    scan are not known from it, see `simulate_scan`.

        phantom = pet_phantom(load("mni152-gm"), load("mni152-wm"))

    Args:
        grey: probability of grey matter in [0, 1], or times 255 if its units say so; with spacing.
        white: probability of white matter, on the same grid.
        ratio: activity of grey over white matter; about 4 for glucose.
        lesions: spheres ((z, y, x), radius, activity) with the centre in mm from the middle of the volume,
            the radius in mm, and the activity over that of white matter, which replaces that of the tissue.

    Returns:
        `PETPhantom`.

    Raises:
        DataError: if the maps lie on different grids, have no spacing, or are not probabilities.
    """
    if grey.array.shape != white.array.shape or grey.spacing is None or grey.spacing != white.spacing:
        raise DataError(
            f"pet_phantom: maps of shape {grey.array.shape} and {white.array.shape} with spacing {grey.spacing} "
            f"and {white.spacing}: give two maps on one grid with spacing, such as mni152-gm and mni152-wm"
        )
    tissue = [_probability(volume) for volume in (grey, white)]
    activity = ratio * tissue[0] + tissue[1]
    for centre, radius, level in lesions:
        activity[_distance_squared(activity.shape, grey.spacing, centre) <= radius**2] = level
    attenuation = _head(tissue[0] + tissue[1] > 0.5, grey.spacing)
    made = [
        grey._replace(array=array.astype(np.float32)[..., None], units=units, name=f"{name}-pet-phantom")
        for array, units, name in (
            (activity, "relative to white matter", "activity"),
            (attenuation, "1/mm", "attenuation"),
        )
    ]
    return PETPhantom(*made)


def _probability(volume):
    array = volume.array[..., 0].astype(np.float64)
    array = array / 255 if volume.units.endswith("x 255") else array
    if array.min() < 0 or array.max() > 1 + 1e-6:
        raise DataError(
            f"pet_phantom: {volume.name or 'a map'} has values from {array.min():g} to {array.max():g} in "
            f'"{volume.units}": give probabilities in [0, 1], or times 255 with units "probability x 255"'
        )
    return array


def _head(tissue, spacing):
    """Computes the attenuation of a head around the tissue."""
    brain = ~_grown(~_grown(tissue, _GAP, spacing), _GAP, spacing, outside=True)
    skull, scalp = (_grown(brain, width, spacing) for width in (_SKULL, _SKULL + _SCALP))
    return np.where(skull & ~brain, _BONE, np.where(scalp, _SOFT, 0.0))


def _grown(mask, radius, spacing, outside=False):
    """Grows a mask by a ball; `outside` says whether it goes on beyond the grid."""
    reach, axes = [int(radius // step) for step in spacing], (0, 1, 2)
    padded = np.pad(mask, [(r, r) for r in reach], constant_values=outside)
    ball = _distance_squared([2 * r + 1 for r in reach], spacing, (0.0, 0.0, 0.0)) <= radius**2
    spectrum = np.fft.rfftn(padded.astype(np.float32))
    spectrum *= np.fft.rfftn(ball.astype(np.float32), padded.shape, axes)
    touched = np.fft.irfftn(spectrum, padded.shape, axes) > 0.5
    # A corner of the ball lies at the origin, not its middle: what the padding wraps around is cut off.
    return touched[tuple(slice(2 * r, None) for r in reach)]


def _distance_squared(shape, spacing, centre):
    axes = [
        (np.arange(n) - (n - 1) / 2) * step - c for n, step, c in zip(shape, spacing, centre, strict=True)
    ]
    return axes[0][:, None, None] ** 2 + axes[1][None, :, None] ** 2 + axes[2][None, None, :] ** 2

"""A simulated multi-coil scan of a real magnitude image: coils, smooth phase, undersampling and noise.

No package ships raw multi-coil k-space, so the phase, the coils and the noise are simulated; the anatomy is real.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from pgm_jax import data
from pgm_jax.operators import NonCartesian, Sense, birdcage_maps, measure, radial, random_mask

COILS = 4
CENTRE_FRACTION = 0.08
NOISE_STD = 0.01
TASKS = ("4", "8", "radial")
"""Scans with tuned settings: accelerations, and spokes."""
# FFTs of these lengths are fast; slices are padded to the next multiple, never resampled.
_MULTIPLE = 32


class Scan(struct.PyTreeNode):
    """One undersampled slice with its truth.

    Attributes:
        truth: (height, width, 1) complex64 image; 1 is the volume's 99.5th percentile.
        operator: `Sense`, or `NonCartesian` for spokes.
        y: (coils, height, width) complex64 k-space, zero where it was not measured, or (coils, samples).
        noise_std: noise per real component of y.
    """

    truth: Any
    operator: Any
    y: Any
    noise_std: Any


class BrainSlices(NamedTuple):
    """Axial slices of one volume, scaled and padded.

    Attributes:
        magnitude: (n, height, width, 1) float32; 1 is the volume's 99.5th percentile.
        index: (n,) z indices.
        spacing: (row, column) in mm.
        size: (height, width) before padding.
    """

    magnitude: np.ndarray
    index: np.ndarray
    spacing: tuple
    size: tuple


def brain_slices(name, count=None, min_anatomy=0.25, progress=None):
    """Takes evenly spaced axial slices of a named brain data set.

    Args:
        name: name of the data set, see `pgm data list`.
        count: number of slices; None takes all with enough anatomy.
        min_anatomy: least fraction of a slice that must be anatomy.
        progress: optional function of a line, told about a download.

    Returns:
        `BrainSlices`.

    Raises:
        DataError: if the data set is unknown, cannot be fetched or has too few such slices.
    """
    volume = data.load(name, progress=progress)
    found = data.axial_slices(volume, min_anatomy)
    if count is not None:
        if not 1 <= count <= len(found):
            raise data.DataError(
                f"{name} has {len(found)} slices with enough anatomy: ask for 1 to {len(found)}, not {count}"
            )
        found = (
            found[np.linspace(0, len(found) - 1, count + 2).round().astype(int)[1:-1]]
            if count < len(found) - 1
            else found[:count]
        )
    scale = float(np.percentile(volume.array, 99.5))
    chosen = np.maximum(volume.array[found] / scale, 0.0).astype(np.float32)
    size = chosen.shape[1:3]
    padded = tuple(-(-n // _MULTIPLE) * _MULTIPLE for n in size)
    return BrainSlices(data.pad_or_crop(chosen, padded), found, tuple(volume.spacing[1:]), size)


def unpad(image, size):
    """Crops a padded slice back to the size of its volume.

    Args:
        image: (height, width, ...) array.
        size: (height, width) before padding.

    Returns:
        Array of that size.
    """
    return data.pad_or_crop(image, size)


def smooth_phase(key, height, width, terms=4):
    """Draws a smooth phase map: a random sum of the lowest 2-D cosines, of about one turn across the field.

    Args:
        key: PRNG key.
        height: number of rows.
        width: number of columns.
        terms: cosines along each axis.

    Returns:
        (height, width) phase in radians.
    """
    coefficients = jax.random.normal(key, (terms, terms))
    order = jnp.arange(terms)
    decay = 1 / (1 + order[:, None] ** 2 + order[None, :] ** 2)
    rows = jnp.cos(jnp.pi * order[:, None] * jnp.linspace(0, 1, height)[None, :])
    columns = jnp.cos(jnp.pi * order[:, None] * jnp.linspace(0, 1, width)[None, :])
    return 2 * jnp.einsum("ab,ah,bw->hw", coefficients * decay, rows, columns)


def undersampled_scan(key, magnitude, acceleration, mask_seed=0):
    """Simulates the scan of one slice: `y_c = M F (S_c x) + noise`.

    Four normalised birdcage coils, whole columns of k-space at random with 8 % centre, and noise of 0.01 (of
    the 99.5th percentile) per real component.

    Args:
        key: PRNG key of the phase and the noise.
        magnitude: (height, width, 1) magnitude, 1 at the volume's 99.5th percentile.
        acceleration: full over measured lines.
        mask_seed: integer seed of the lines.

    Returns:
        `Scan`.
    """
    key_phase, key_noise = jax.random.split(key)
    truth, maps = _truth(key_phase, magnitude)
    width = magnitude.shape[1]
    mask = jnp.asarray(random_mask(mask_seed, width, acceleration, CENTRE_FRACTION))
    operator = Sense(maps, mask)
    y = measure(key_noise, operator, truth, NOISE_STD, weights=mask)
    return Scan(truth, operator, y, jnp.asarray(NOISE_STD, jnp.float32))


def radial_scan(key, magnitude, spokes=48):
    """Simulates a radial scan of one slice: spokes at the golden angle, coils, phase and noise as above.

    Args:
        key: PRNG key of the phase and the noise.
        magnitude: (height, width, 1) magnitude, 1 at the volume's 99.5th percentile.
        spokes: spokes of twice as many samples as the slice has rows; full sampling needs about 1.6 a row.

    Returns:
        `Scan`.
    """
    key_phase, key_noise = jax.random.split(key)
    truth, maps = _truth(key_phase, magnitude)
    height, width = magnitude.shape[:2]
    points = radial(spokes, 2 * height, (height, width), golden=True).points
    operator = NonCartesian.create(maps, points)
    y = measure(key_noise, operator, truth, NOISE_STD)
    return Scan(truth, operator, y, jnp.asarray(NOISE_STD, jnp.float32))


def simulated_scan(key, magnitude, task, mask_seed=0):
    """Simulates the scan of a task: `undersampled_scan` of an acceleration, or `radial_scan`.

    Args:
        key: PRNG key of the phase and the noise.
        magnitude: (height, width, 1) magnitude, 1 at the volume's 99.5th percentile.
        task: one of `TASKS`; accelerations may be numbers.
        mask_seed: integer seed of the lines; spokes have none.

    Returns:
        `Scan`.

    Raises:
        ValueError: for an unknown task.
    """
    if str(task) not in TASKS:
        raise ValueError(f"Unknown task {task!r}: choose one of {', '.join(TASKS)}.")
    if task == "radial":
        return radial_scan(key, magnitude)
    return undersampled_scan(key, magnitude, int(task), mask_seed)


def _truth(key, magnitude):
    """The complex image with its smooth phase, and the coils' maps."""
    height, width = magnitude.shape[:2]
    phase = smooth_phase(key, height, width)[..., None]
    truth = (magnitude * jnp.exp(1j * phase)).astype(jnp.complex64)
    return truth, jnp.asarray(birdcage_maps(COILS, height, width))

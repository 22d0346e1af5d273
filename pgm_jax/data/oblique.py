"""Patches of oblique slices through volumes: many different 2-D images out of few people."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pgm_jax.data.batches import Batches, process_rows

# Planes with less anatomy than this are drawn again.
_LEAST_ANATOMY = 0.1
_TRIES = 20


class Source(NamedTuple):
    """One volume to cut patches from.

    Attributes:
        array: (slice, row, column) magnitude, 1 a usual maximum, isotropic voxels, slices from the feet up
            and rows from the front to the back.
        weight: relative chance of the volume.
        step: smallest and largest distance of a patch's pixels in voxels; log-uniform.
    """

    array: np.ndarray
    weight: float = 1.0
    step: tuple = (0.8, 1.25)


def oblique_patches(
    sources: Sequence[Source],
    size: int,
    patch: int,
    *,
    seed: int,
    tilts: int = 4,
    largest_tilt: float = 25.0,
    rotation: float = 20.0,
    axial: float = 0.7,
    anatomy: float = 0.05,
    process_index: int | None = None,
    process_count: int | None = None,
) -> Batches:
    """Iterates over square patches of slices with random tilt, direction, rotation, scale, stretch and mirror.

    Every volume is kept upright and in `tilts` copies rotated about random axes; a sample cuts a slice out
    of one of these (axial, or coronal or sagittal with equal chance), and samples a patch around a random place
    of the anatomy by cubic splines, once, so that nothing is smoothed twice. Sample number g of the run is a
    pure function of (seed, g). Volumes are held as float16.

    Args:
        sources: the volumes.
        size: rows of the global batch.
        patch: side of a patch in pixels.
        seed: seed of tilts and draws.
        tilts: rotated copies of each volume.
        largest_tilt: largest rotation of a copy about each axis, in degrees.
        rotation: largest rotation in the plane, in degrees.
        axial: chance of an axial slice.
        anatomy: magnitude above which a voxel counts as anatomy.
        process_index: number of this process; by default `jax.process_index()`.
        process_count: number of processes; by default `jax.process_count()`.

    Returns:
        `Batches`, an iterator of `{"x0": (size / process_count, patch, patch, 1)}` float32.

    Raises:
        ValueError: if there is no source, one is not a volume with anatomy, or a weight or step is not positive.
    """
    if not sources:
        raise ValueError("oblique_patches: no volumes; give at least one Source")
    for number, source in enumerate(sources):
        _check(number, source, anatomy)
    turns = np.random.default_rng((seed, 0)).uniform(-largest_tilt, largest_tilt, (len(sources), tilts, 3))
    copies = [
        [source.array.astype(np.float16), *(_tilted(source.array, angles) for angles in turns[number])]
        for number, source in enumerate(sources)
    ]
    bounds = np.cumsum([source.weight for source in sources]) / sum(source.weight for source in sources)

    def cut(number):
        random = np.random.Generator(np.random.Philox(key=np.array([seed, number], np.uint64)))
        chosen = int(min(np.searchsorted(bounds, random.random(), side="right"), len(sources) - 1))
        volume = copies[chosen][random.integers(tilts + 1)]
        plane = _plane(random, volume, axial, anatomy)
        return _patch(random, plane, patch, sources[chosen].step, rotation, anatomy)

    draw = lambda numbers: {"x0": np.stack([cut(number) for number in numbers])[..., None]}
    return Batches(draw, size, process_rows(size, process_index, process_count), size)


def _check(number, source, anatomy):
    array, (low, high) = np.asarray(source.array), source.step
    if array.ndim != 3 or not np.isfinite(array).all() or not (array > anatomy).any():
        raise ValueError(
            f"oblique_patches: source {number} of shape {array.shape} is not a finite volume with anatomy "
            f"above {anatomy}: give (slice, row, column), scaled so that 1 is a usual maximum"
        )
    if not (source.weight > 0 and 0 < low <= high):
        raise ValueError(
            f"oblique_patches: source {number} has weight {source.weight} and steps {source.step}: "
            "give a positive weight and two positive steps, the smaller first"
        )


def _tilted(array, angles):
    from scipy import ndimage
    from scipy.spatial.transform import Rotation

    turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    centre = (np.array(array.shape) - 1) / 2
    tilted = ndimage.affine_transform(array.astype(np.float32), turn, centre - turn @ centre, order=3)
    return np.maximum(tilted, 0).astype(np.float16)


def _plane(random, volume, axial, anatomy):
    rest = (1 - axial) / 2
    for _ in range(_TRIES):
        axis = int(random.choice(3, p=(axial, rest, rest)))
        plane = volume.take(random.integers(volume.shape[axis]), axis=axis).astype(np.float32)
        if np.mean(plane > anatomy) > _LEAST_ANATOMY:
            break
    # Rows of coronal and sagittal slices run from the head down.
    plane = plane[::-1] if axis else plane
    return plane[:, ::-1] if random.random() < 0.5 else plane


def _patch(random, plane, size, step, rotation, anatomy):
    from scipy import ndimage

    angle = np.deg2rad(random.uniform(-rotation, rotation))
    scale = np.exp(random.uniform(*np.log(step)))
    stretch = np.exp(random.uniform(-0.07, 0.07))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = scale * turn @ np.diag([stretch, 1 / stretch])
    places = np.argwhere(plane[::4, ::4] > anatomy) * 4
    place = places[random.integers(len(places))] if len(places) else np.array(plane.shape) / 2
    centre = place + random.uniform(-0.1, 0.1, 2) * size
    half = np.full(2, (size - 1) / 2)
    # Only the part of the plane under the patch is prefiltered; the spline forgets within 8 voxels.
    reach = np.abs(matrix) @ half
    low, high = (np.floor(centre - reach).astype(int) - 8, np.ceil(centre + reach).astype(int) + 9)
    window = _window(plane, low, high)
    offset = centre - low - matrix @ half
    cut = ndimage.affine_transform(window, matrix, offset, output_shape=(size, size), order=3, mode="nearest")
    return np.maximum(cut, 0).astype(np.float32)


def _window(plane, low, high):
    padding = [(max(0, -a), max(0, b - n)) for a, b, n in zip(low, high, plane.shape, strict=True)]
    padded = np.pad(plane, padding)
    start = [a + before for a, (before, _) in zip(low, padding, strict=True)]
    return padded[tuple(slice(s, s + b - a) for s, a, b in zip(start, low, high, strict=True))]

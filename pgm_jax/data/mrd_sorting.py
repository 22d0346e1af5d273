"""ISMRMRD acquisitions into arrays."""

import logging
from typing import NamedTuple

import numpy as np

from pgm_jax.data.errors import DataError

_log = logging.getLogger("pgm_jax.data")
_REVERSED = np.uint64(1 << 21)
_BLOCK = 512  # acquisitions read at once


class Sorted(NamedTuple):
    """Sorted samples.

    Attributes:
        array: complex64, like `KSpace.array`.
        mask: bool (slices, ky, kx) or (kz, ky, kx), or None.
        trajectory: like `KSpace.trajectory`, or None.
        averages: mean number of measurements of a measured sample.
    """

    array: np.ndarray
    mask: np.ndarray | None
    trajectory: np.ndarray | None
    averages: float


def sorted_cartesian(records, heads, used, numbers, coils, header, path) -> Sorted:
    """Adds every readout at its place in the grid and divides by how often each sample was measured.

    Args:
        records: data set of acquisitions.
        heads: their headers.
        used: bool, which acquisitions to take.
        numbers: counters of the slices in the order wanted.
        coils: number of coils.
        header: `Header` of the file.
        path: path for messages.

    Returns:
        The `Sorted` k-space.

    Raises:
        DataError: if a readout does not fit the encoded grid, or is damaged.
    """
    nx, ny, nz = header.encoded
    depth = nz if nz > 1 else len(numbers)
    total = np.zeros((depth, coils, ny, nx), np.complex64)
    count = np.zeros((depth, ny, nx), np.float32)
    rank = {number: n for n, number in enumerate(numbers.tolist())}
    for head, samples in _readouts(records, heads, used, coils, path):
        row = _line(head["idx"]["kspace_encode_step_1"], header.centres[0], ny, "line", path)
        if nz > 1:
            plane = _line(head["idx"]["kspace_encode_step_2"], header.centres[1], nz, "partition", path)
        else:
            plane = rank[int(head["idx"]["slice"])]
        samples, first = _centred(head, samples, nx, path)
        columns = slice(first, first + samples.shape[1])
        total[plane, :, row, columns] += samples
        count[plane, row, columns] += 1
    total /= np.maximum(count, 1)[:, None]
    array = total.swapaxes(0, 1) if nz > 1 else total
    return Sorted(np.ascontiguousarray(array), count > 0, None, float(count[count > 0].mean()))


def sorted_readouts(records, heads, used, numbers, coils, header, path) -> Sorted:
    """Stacks the readouts of every slice in the order measured, with their trajectory; see `sorted_cartesian`.

    Returns:
        The `Sorted` k-space, with the trajectory of the first slice, which the others must share.

    Raises:
        DataError: if readouts differ in length, slices in their trajectory, or its unit is unknown.
    """
    lines, points = {number: [] for number in numbers.tolist()}, {number: [] for number in numbers.tolist()}
    places = records.fields("traj")[:]
    readouts = _readouts(records, heads, used, coils, path)
    for n, (head, samples) in zip(np.flatnonzero(used), readouts, strict=True):
        size, axes = int(head["number_of_samples"]), int(head["trajectory_dimensions"])
        place = np.asarray(places[n], np.float64)
        if axes == 0 or place.size != size * axes:
            raise DataError(f"{path}: acquisition {n} has no or half a trajectory: convert the scan again")
        place = place.reshape(size, axes)[int(head["discard_pre"]) : size - int(head["discard_post"])]
        lines[int(head["idx"]["slice"])].append(samples)
        points[int(head["idx"]["slice"])].append(place)
    shapes = {line.shape for held in (*lines.values(), *points.values()) for line in held}
    if len(shapes) > 2 or len({len(held) for held in lines.values()}) > 1:
        raise DataError(
            f"{path}: readouts or slices have different numbers of samples: read one slice at a time"
        )
    stacked = [np.stack(held) for held in points.values()]
    if not all(np.array_equal(stacked[0], other) for other in stacked[1:]):
        raise DataError(
            f"{path}: slices have different trajectories: read one slice at a time, slices=range(n, n + 1)"
        )
    trajectory = _per_field_of_view(stacked[0], header, path)
    array = np.stack([np.stack(held, axis=1) for held in lines.values()])
    if header.encoded[2] > 1:
        array = array[0]
    return Sorted(array, None, trajectory, 1.0)


def noise_covariance(records, heads, used, coils, path):
    """Estimates `E n n^H` from noise acquisitions, with its mean taken as zero.

    Args:
        records: data set of acquisitions.
        heads: their headers.
        used: bool, which acquisitions are noise.
        coils: number of coils of the image.
        path: path for messages.

    Returns:
        complex128 (coils, coils), or None if there are fewer samples than coils or the coils are others.
    """
    if not used.any():
        return None
    total, count = np.zeros((coils, coils), np.complex128), 0
    if np.any(heads["active_channels"][used] != coils):
        _log.warning("%s: its noise scan has other coils than the image and is left out", path)
        return None
    for _, samples in _readouts(records, heads, used, coils, path):
        samples = samples.astype(np.complex128)
        total += samples @ samples.conj().T
        count += samples.shape[1]
    if count < coils:
        _log.warning("%s: %d noise samples of %d coils are too few and are left out", path, count, coils)
        return None
    if not np.all(np.isfinite(total)):
        raise DataError(f"{path}: its noise scan holds NaN or infinite samples: convert the scan without it")
    return total / count


def _readouts(records, heads, used, coils, path):
    """Yields header and samples (coils, samples) of the acquisitions, without those to discard."""
    stored = records.fields("data")
    for start in range(0, len(heads), _BLOCK):
        marked = np.flatnonzero(used[start : start + _BLOCK])
        block = stored[start : start + _BLOCK] if marked.size else ()
        for n in marked:
            head, values = heads[start + n], np.asarray(block[n], np.float32)
            size = int(head["number_of_samples"])
            if values.size != 2 * coils * size or size == 0:
                raise DataError(
                    f"{path}: acquisition {start + n} has {values.size} numbers, not 2 x {coils} coils x {size} "
                    f"samples: the file is damaged, convert the scan again"
                )
            samples = values.view(np.complex64).reshape(coils, size)
            yield head, samples[:, int(head["discard_pre"]) : size - int(head["discard_post"])]


def _line(index, centre, size, what, path):
    place = int(index) + (0 if centre is None else size // 2 - centre)
    if not 0 <= place < size:
        raise DataError(
            f"{path}: {what} {index} falls outside the encoded grid of {size}: its header does not fit"
        )
    return place


def _centred(head, samples, size, path):
    """Turns a reversed readout and returns it with its first column, so that its centre comes to size // 2."""
    count = samples.shape[1]
    centre = int(head["center_sample"]) - int(head["discard_pre"])
    if head["flags"] & _REVERSED:
        samples, centre = samples[:, ::-1], count - 1 - centre
    # A readout that fills the grid has one place; converters often leave its centre at 0.
    first = 0 if count == size else size // 2 - centre
    if first < 0 or first + count > size:
        raise DataError(
            f"{path}: a readout of {count} samples with centre {centre} does not fit the encoded grid of {size}: "
            f"its header does not fit"
        )
    return samples, first


def _per_field_of_view(points, header, path):
    """Brings a trajectory (kx, ky[, kz]) to cycles per field of view, rows first.

    ISMRMRD does not fix the unit. Cycles a pixel never pass 1/2, and cycles a field of view that do not would make
    an image of one pixel, so the two cannot be mistaken.
    """
    dimensions = 3 if header.encoded[2] > 1 else 2
    if points.shape[-1] < dimensions:
        raise DataError(
            f"{path}: its trajectory has {points.shape[-1]} of {dimensions} coordinates: convert it again"
        )
    points = points[..., :dimensions][..., ::-1]
    sizes = np.array(header.encoded[:dimensions][::-1], float)
    reach = np.abs(points).max(axis=(0, 1))
    if not np.isfinite(reach).all():
        raise DataError(f"{path}: its trajectory holds NaN or infinite points: convert the scan again")
    if np.all(reach <= 0.5 * (1 + 1e-6)):
        return points * sizes
    if np.all(reach <= sizes / 2 * (1 + 1e-6)) and np.any(reach >= sizes / 4):
        return points
    raise DataError(
        f"{path}: its trajectory reaches {reach.round(3).tolist()}, neither 1/2 cycle a pixel nor half the grid "
        f"{sizes.astype(int).tolist()} in cycles a field of view: convert it to one of them"
    )

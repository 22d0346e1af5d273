"""K-space in named arrays."""

import numpy as np

from pgm_jax.data.errors import DataError
from pgm_jax.data.kspace import KSpace, chosen, compact, finite

_NAMES = ("kspace", "mask", "trajectory", "noise", "dimensions", "matrix", "spacing")


def kspace_of_arrays(path, held, slices: range | None, name: str) -> KSpace:
    """Makes the `KSpace` of arrays that are named as `read_kspace` says.

    Args:
        path: path of the file for messages.
        held: arrays by name.
        slices: which slices to keep, None for all.
        name: name of the scan.

    Returns:
        The `KSpace`.

    Raises:
        DataError: for unknown names, shapes that do not fit, an empty mask or samples that are not finite.
    """
    array, points, dimensions = _measured(held, path)
    coil = 3 - dimensions  # the axis of coils
    numbers = None
    if dimensions == 2:
        numbers = chosen(array.shape[0], slices, path)
        array = array[numbers]
    elif slices is not None:
        raise DataError(f"{path}: a volume is reconstructed as a whole: leave out slices")
    noise = _noise(held["noise"], array.shape[coil], path) if "noise" in held else None
    spacing = (
        tuple(float(s) for s in _triple(held["spacing"], "spacing", path)) if "spacing" in held else None
    )
    matrix = tuple(int(n) for n in _triple(held["matrix"], "matrix", path)) if "matrix" in held else None
    if matrix is not None and dimensions == 2:
        matrix = (array.shape[0], *matrix[1:])
    if points is not None:
        _require_points(points, array, matrix, path)
        return KSpace(
            array, None, points, noise, None, dimensions, matrix, matrix, spacing, None, "a.u.", name
        )
    encoded = array.shape[1:] if dimensions == 3 else (array.shape[0], *array.shape[2:])
    matrix = matrix or encoded
    if any(kept > size for kept, size in zip(matrix, encoded, strict=True)):
        raise DataError(f"{path}: matrix {matrix} is larger than the grid {encoded}: give the part to keep")
    measured = np.any(array != 0, axis=coil)
    if "mask" in held:
        measured = _mask(held["mask"], measured.shape, numbers, path)
        array = np.where(np.expand_dims(measured, coil), array, 0)
    mask = compact(measured, path)
    return KSpace(array, mask, None, noise, None, dimensions, encoded, matrix, spacing, None, "a.u.", name)


def _measured(held, path):
    """Returns samples with all their axes, the trajectory or None, and the number of dimensions."""
    unnamed = [key for key in held if key not in _NAMES]
    if len(unnamed) != (0 if "kspace" in held else 1):
        raise DataError(
            f"{path}: holds the arrays {sorted(held)}: name the k-space 'kspace', others {_NAMES[1:]}"
        )
    array = finite(held["kspace"] if "kspace" in held else held[unnamed[0]], path)
    points = np.asarray(held["trajectory"], np.float64) if "trajectory" in held else None
    dimensions = int(held.get("dimensions", 2 if points is None else points.shape[-1]))
    if dimensions not in (2, 3):
        raise DataError(f"{path}: dimensions {dimensions} is not known: give 2 for slices or 3 for a volume")
    least, most = (2, 4) if dimensions == 2 else (3, 4) if points is None else (2, 3)
    if not least <= array.ndim <= most:
        raise DataError(
            f"{path}: k-space of shape {array.shape} needs {least} to {most} axes, see read_kspace"
        )
    return array.reshape((1,) * (most - array.ndim) + array.shape), points, dimensions


def _require_points(points, array, matrix, path):
    if matrix is None:
        raise DataError(f"{path}: a trajectory needs the size of the image: add 'matrix' (z, y, x)")
    if points.ndim != 3 or points.shape[:2] != array.shape[-2:] or points.shape[-1] not in (2, 3):
        raise DataError(
            f"{path}: trajectory {points.shape} does not fit k-space {array.shape}: give (readouts, samples, d)"
        )
    edge = np.array(matrix[-points.shape[-1] :]) / 2
    if not np.all(np.abs(points) <= edge * (1 + 1e-6)):  # NaN is not inside either
        raise DataError(
            f"{path}: its trajectory leaves the band of {edge.tolist()} cycles a field of view: check its unit"
        )


def _noise(values, coils, path):
    if values.shape != (coils, coils) or not np.all(np.isfinite(values)):
        raise DataError(
            f"{path}: noise of shape {values.shape} is not the finite covariance of {coils} coils: mend it"
        )
    return values.astype(np.complex64)


def _triple(values, what, path):
    if (
        values.shape != (3,)
        or values.dtype.kind not in "uif"
        or not np.all(np.isfinite(values))
        or values.min() <= 0
    ):
        raise DataError(f"{path}: its {what} must be three positive numbers, (z, y, x)")
    return values


def _mask(mask, shape, numbers, path):
    """Brings a mask to the shape of the samples of one coil."""
    mask = np.asarray(mask)
    mask = mask.reshape((1,) * (3 - mask.ndim) + mask.shape)
    if numbers is not None and mask.ndim == 3 and mask.shape[0] > 1 and max(numbers) < mask.shape[0]:
        mask = mask[numbers]
    if mask.ndim != 3 or any(m not in (1, n) for m, n in zip(mask.shape, shape, strict=True)):
        raise DataError(
            f"{path}: mask of shape {mask.shape} does not broadcast against {shape}: give the axes it has"
        )
    return np.broadcast_to(mask != 0, shape)

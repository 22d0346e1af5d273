"""What every reader returns: one image volume on the host, with its units and geometry."""

from itertools import permutations
from typing import NamedTuple

import numpy as np

from pgm_jax.data.errors import DataError


class Volume(NamedTuple):
    """One volume in the canonical order: `array[z, y, x, channel]`.

    z grows towards superior, row y = 0 is anterior and column x = 0 is the patient's right. A slice
    `array[z]` drawn with row 0 at the top is therefore an axial slice in the radiological convention: the
    face up and the patient's right on the left of the picture. Volumes that were not scanned along these
    axes are permuted and flipped to the nearest ones, never resampled.

    It holds no patient field. `subject` names whose image it is only so that splits can keep one person
    on one side; readers leave it empty.

    Attributes:
        array: float32 (depth, height, width, channel) in `units`; complex64 if the file is complex.
        spacing: distance between voxel centres along (z, y, x) in mm, or None if the file does not say.
        affine: float64 (4, 4), maps (z, y, x, 1) to (right, anterior, superior) in mm, each growing
            towards the side it is named after; None if the file does not say.
        units: "HU", "a.u." or what the file states.
        name: name of the data set, or the file name without its suffix.
        subject: a made-up label of the person or template, never a patient identifier.
        orientation: directions in which z, y, x grow, "SPL" (superior, posterior, left); "unknown" for
            files that do not state it, whose axes are kept as they are.
    """

    array: np.ndarray
    spacing: tuple[float, float, float] | None
    affine: np.ndarray | None
    units: str
    name: str
    subject: str = ""
    orientation: str = "SPL"


def checked(array, source) -> np.ndarray:
    """Returns the pixels as float32 (complex64 for complex ones) after checking that all are finite.

    Args:
        array: real, integer or complex array of any shape.
        source: path or name for the message.

    Raises:
        DataError: if it is empty, not numeric, or holds NaN or infinite values.
    """
    array = np.asarray(array)
    if array.size == 0 or array.dtype.kind not in "buifc":
        held = f"shape {array.shape}, {array.dtype}"
        raise DataError(f"{source}: holds no numeric pixels ({held}): save a numeric array")
    with np.errstate(over="ignore", invalid="ignore"):
        array = array.astype(np.complex64 if array.dtype.kind == "c" else np.float32)
    bad = int(array.size - np.count_nonzero(np.isfinite(array)))
    if bad:
        raise DataError(
            f"{source}: {bad} of {array.size} pixels are NaN or infinite in float32: replace them "
            f"(for example with numpy.nan_to_num) and save the file again"
        )
    return array


def with_channel(array, source) -> np.ndarray:
    """Brings (h, w), (d, h, w) or (d, h, w, channel) to (depth, height, width, channel).

    Raises:
        DataError: for any other number of axes.
    """
    if array.ndim == 2:
        return array[None, :, :, None]
    if array.ndim == 3:
        return array[..., None]
    if array.ndim == 4:
        return array
    raise DataError(
        f"{source}: has {array.ndim} axes {array.shape}: give (height, width), (depth, height, width) or "
        f"(depth, height, width, channel)"
    )


def grey(volume: Volume, target) -> np.ndarray:
    """Returns the one channel of a volume, (depth, height, width), for a file that holds grey values.

    Args:
        volume: any volume.
        target: path for the message.

    Returns:
        float32 or complex64 array.

    Raises:
        DataError: if it has several channels, a wrong number of axes, or pixels that are not finite.
    """
    array = checked(volume.array, target)
    if array.ndim != 4 or array.shape[-1] != 1:
        raise DataError(
            f"{target}: a volume of shape {array.shape} is not (depth, height, width, 1): write one channel only"
        )
    return array[..., 0]


def canonical(array, affine, source) -> tuple[np.ndarray, tuple[float, float, float], np.ndarray]:
    """Permutes and flips a volume to the order of `Volume`: superior, posterior, left.

    Args:
        array: (i, j, k) or (i, j, k, channel) in any order.
        affine: (4, 4), maps (i, j, k, 1) to (right, anterior, superior) in mm.
        source: path or name for the message.

    Returns:
        The array in the order (z, y, x[, channel]), its spacing in mm and its affine.

    Raises:
        DataError: if the affine is not finite or has no inverse.
    """
    affine = np.asarray(affine, np.float64)
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or steps.min() <= 0 or abs(np.linalg.det(affine[:3, :3] / steps)) < 1e-3:
        raise DataError(f"{source}: its voxel sizes or directions are damaged: export it again")
    cosines = affine[:3, :3] / steps

    def alignment(axes):
        return sum(abs(cosines[2 - n, axis]) for n, axis in enumerate(axes))

    order = max(permutations(range(3)), key=alignment)
    reordered = np.eye(4)
    reordered[:3, 3] = affine[:3, 3]
    flips = []
    for n, (axis, wanted) in enumerate(zip(order, (1.0, -1.0, -1.0), strict=True)):
        column = affine[:3, axis]
        if cosines[2 - n, axis] * wanted < 0:
            flips.append(n)
            reordered[:3, 3] += column * (array.shape[axis] - 1)
            column = -column
        reordered[:3, n] = column
    moved = np.flip(np.transpose(array, (*order, *range(3, array.ndim))), flips)
    z, y, x = (float(steps[axis]) for axis in order)
    return np.ascontiguousarray(moved), (z, y, x), reordered

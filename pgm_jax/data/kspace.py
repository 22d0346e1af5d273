"""MRI raw data: what every reader of k-space returns, and the checks that they share."""

from typing import NamedTuple

import numpy as np

from pgm_jax.data.errors import DataError
from pgm_jax.data.framing import pad_or_crop
from pgm_jax.data.volume import Volume, canonical


class KSpace(NamedTuple):
    """The k-space of one scan on the host. It holds no patient field.

    Cartesian k-space is centred, with the origin at index N // 2 of every axis, and 0 where nothing was measured:
    as `operators.Sense` measures it. The image is its centred inverse FFT; `volume` crops and places it.

    Attributes:
        array: complex64. Slices: (slices, coils, ky, kx), the last two along the rows and columns of the image.
            Volume: (coils, kz, ky, kx). With a trajectory (slices, coils, readouts, samples), and for a volume
            (coils, readouts, samples).
        mask: bool, what was measured: three axes that broadcast against (slices, ky, kx) or (kz, ky, kx), of size 1
            along those where it does not change. None with a trajectory.
        trajectory: float64 (readouts, samples, d), cycles per field of view along the image axes, rows first, for
            `operators.NonCartesian`; or None.
        noise: covariance `E n n^H` of the noise of the coils, complex64 (coils, coils), or None.
        calibration: calibration lines alone, like `array`, or None if the file marks none.
        dimensions: 2 for slices, 3 for a volume.
        encoded: size (z, y, x) of the encoded grid; z is the number of slices.
        matrix: size (z, y, x) of the image to keep, the centre of the grid; without oversampling.
        spacing: voxel size (z, y, x) in mm, or None if the file does not say.
        affine: float64 (4, 4), maps (z, y, x, 1) of the image of size `matrix` to (right, anterior, superior) in
            mm; None if the file does not say.
        units: units of the samples.
        name: name of the scan.
    """

    array: np.ndarray
    mask: np.ndarray | None
    trajectory: np.ndarray | None
    noise: np.ndarray | None
    calibration: np.ndarray | None
    dimensions: int
    encoded: tuple[int, int, int]
    matrix: tuple[int, int, int]
    spacing: tuple[float, float, float] | None
    affine: np.ndarray | None
    units: str
    name: str

    def volume(self, image) -> Volume:
        """Crops a reconstruction to `matrix` and puts it in the canonical order of `Volume`.

        Args:
            image: real or complex (z, y, x), of size `encoded` or `matrix`.

        Returns:
            The volume, in the units of the k-space.

        Raises:
            DataError: if the image has another size.
        """
        image = np.asarray(image)
        if image.shape not in (self.encoded, self.matrix):
            raise DataError(
                f"{self.name}: an image of size {image.shape} is neither the grid {self.encoded} nor the matrix "
                f"{self.matrix} of this scan: give (z, y, x)"
            )
        image = pad_or_crop(image[..., None], self.matrix)
        image = image.astype(np.complex64 if np.iscomplexobj(image) else np.float32)
        if self.affine is None:
            return Volume(image, self.spacing, None, self.units, self.name, orientation="unknown")
        image, spacing, affine = canonical(image, self.affine, self.name)
        return Volume(image, spacing, affine, self.units, self.name)


def finite(array, path) -> np.ndarray:
    """Returns samples as complex64 after checking that all are finite.

    Args:
        array: samples of any shape, complex.
        path: path for the message.

    Returns:
        complex64 array.

    Raises:
        DataError: if they are not complex, or hold NaN or infinite values.
    """
    array = np.asarray(array)
    if array.size == 0 or array.dtype.kind != "c":
        raise DataError(
            f"{path}: k-space is complex, this is {array.dtype} {array.shape}: save real + 1j imaginary"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        array = array.astype(np.complex64, copy=False)
    bad = array.size - int(np.count_nonzero(np.isfinite(array)))
    if bad:
        raise DataError(
            f"{path}: {bad} of {array.size} samples are NaN or infinite: set them to 0 and mask them"
        )
    return array


def compact(mask, path) -> np.ndarray:
    """Reduces a mask to size 1 along the axes where it does not change.

    Args:
        mask: bool or number, three axes.
        path: path for the message.

    Returns:
        bool array of three axes.

    Raises:
        DataError: if nothing was measured.
    """
    mask = np.asarray(mask) != 0
    if not mask.any():
        raise DataError(f"{path}: the mask is empty, nothing was measured: check which lines were acquired")
    for axis in range(mask.ndim):
        first = mask.take([0], axis)
        if np.array_equal(mask, np.broadcast_to(first, mask.shape)):
            mask = first
    return np.ascontiguousarray(mask)


def chosen(count: int, slices: range | None, path) -> list[int]:
    """Lists the numbers of the slices to read.

    Args:
        count: number of slices of the scan.
        slices: which to read, None for all.
        path: path for the message.

    Returns:
        Their numbers in ascending order.

    Raises:
        DataError: if there are none, or one is outside the scan.
    """
    numbers = list(range(count)) if slices is None else sorted(slices)
    if not numbers or numbers[0] < 0 or numbers[-1] >= count:
        raise DataError(f"{path}: has slices 0 to {count - 1}, not {slices}: give a range inside them")
    return numbers

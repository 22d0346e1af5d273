"""fastMRI files: k-space that is sorted already, with an ISMRMRD header."""

import numpy as np

from pgm_jax.data.errors import DataError
from pgm_jax.data.hdf5 import dataset
from pgm_jax.data.kspace import KSpace, chosen, compact, finite
from pgm_jax.data.mrd_header import read_header


def read_fastmri(path, file, slices: range | None, name: str) -> KSpace:
    """Reads `kspace`, `mask` and `ismrmrd_header` of an open file; no attribute and no other field.

    Rows are the readout, with its oversampling, and columns the phase encodes, as fastMRI displays its images.
    Columns of zeros, which pad the phase axis, count as not measured.

    Source: J. Zbontar et al., fastMRI: an open dataset and benchmarks for accelerated MRI, arXiv:1811.08839 (2018).

    Args:
        path: path of the file for messages.
        file: open `h5py.File`.
        slices: which slices to read, None for all.
        name: name of the scan.

    Returns:
        The `KSpace` of all slices; single-coil files get a coil axis of size 1.

    Raises:
        DataError: if k-space or mask have a wrong shape, the mask is empty or samples are not finite.
    """
    stored = dataset(file, "kspace", path)
    if stored.ndim not in (3, 4):
        raise DataError(
            f"{path}: kspace of shape {stored.shape} is neither (slices, coils, rows, columns) nor "
            f"(slices, rows, columns): is this a fastMRI file?"
        )
    array = finite(stored[chosen(stored.shape[0], slices, path)], path)
    array = array if array.ndim == 4 else array[:, None]
    encoded = (array.shape[0], *array.shape[2:])
    measured = np.any(array != 0, axis=(0, 1, 2))
    if "mask" in file:
        mask = dataset(file, "mask", path)[()]
        if mask.shape != measured.shape:
            raise DataError(
                f"{path}: mask of shape {mask.shape} does not fit {measured.size} columns: save it again"
            )
        measured = measured & (mask != 0)
        array[..., ~measured] = 0
    spacing, matrix = None, encoded
    if "ismrmrd_header" in file:
        header = read_header(dataset(file, "ismrmrd_header", path)[()], path)
        spacing, (_, *plane) = header.kept((1, *encoded[1:]), "zxy")
        matrix = (encoded[0], *plane)
    mask = compact(measured[None, None], path)
    return KSpace(array, mask, None, None, None, 2, encoded, matrix, spacing, None, "a.u.", name)

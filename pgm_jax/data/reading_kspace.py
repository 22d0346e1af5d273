"""One function that reads the k-space of any supported file."""

from collections.abc import Mapping
from pathlib import Path

from pgm_jax.data.errors import DataError
from pgm_jax.data.fastmri import read_fastmri
from pgm_jax.data.hdf5 import SUFFIXES, opened
from pgm_jax.data.ismrmrd import read_ismrmrd
from pgm_jax.data.kspace import KSpace
from pgm_jax.data.kspace_arrays import kspace_of_arrays
from pgm_jax.data.npy import held_arrays


def read_kspace(
    path,
    *,
    slices: range | None = None,
    select: Mapping[str, int] | None = None,
    name: str = "k-space",
) -> KSpace:
    """Reads MRI raw data from fastMRI and ISMRMRD HDF5 files, and from NPY and NPZ files.

    An NPY file holds centred Cartesian k-space (ky, kx), (coils, ky, kx) or (slices, coils, ky, kx); what is 0 in
    every coil counts as not measured. An NPZ file holds it as `kspace`, or as its one array, and may hold

        mask        (kx,), (ky, kx), or three axes as in `KSpace`
        dimensions  3 for a volume, whose k-space is (kz, ky, kx) or (coils, kz, ky, kx)
        trajectory  (readouts, samples, d), cycles per field of view, rows first; it needs `matrix`
        noise       covariance E n n^H (coils, coils)
        matrix      size (z, y, x) of the image to keep
        spacing     voxel size (z, y, x) in mm

    Patient fields are never parsed: of the XML header only the encoding is kept, of the acquisitions only flags,
    counters and geometry.

    Args:
        path: .h5, .hdf5, .mrd, .npy or .npz file.
        slices: which slices to read, such as `range(10, 12)`; all by default.
        select: which "contrast", "phase", "repetition" or "set" of an ISMRMRD file to read, where it holds several.
        name: name of the scan; not that of the file, which often names the patient.

    Returns:
        The `KSpace`.

    Raises:
        DataError: if the file is damaged, of another kind or incomplete, holds several images and none is selected,
            or has an empty mask or samples that are not finite.
        MissingExtra: if h5py is needed and not installed.
    """
    path, select = Path(path), dict(select or {})
    if not path.is_file():
        raise DataError(f"{path}: no such file: check the path")
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        with opened(path) as file:
            return _of_hdf5(path, file, slices, select, name)
    if suffix not in (".npy", ".npz"):
        raise DataError(f"{path}: unknown kind of k-space file: use {', '.join((*SUFFIXES, '.npy', '.npz'))}")
    _refuse_select(select, path)
    return kspace_of_arrays(path, held_arrays(path, "kspace"), slices, name)


def _of_hdf5(path, file, slices, select, name):
    if "kspace" in file:
        _refuse_select(select, path)
        return read_fastmri(path, file, slices, name)
    groups = [key for key in file if hasattr(file[key], "keys") and {"xml", "data"} <= set(file[key].keys())]
    if not groups:
        raise DataError(
            f"{path}: holds neither 'kspace' (fastMRI) nor 'xml' and 'data' in a group (ISMRMRD): convert it first"
        )
    if len(groups) > 1:
        raise DataError(f"{path}: holds {len(groups)} scans: save each in a file of its own")
    return read_ismrmrd(path, file, groups[0], slices, select, name)


def _refuse_select(select, path):
    if select:
        raise DataError(f"{path}: has no counters, so nothing can be selected: leave out select")

"""One function that reads any supported file."""

from pathlib import Path

from pgm_jax.data.dicom import read_dicom
from pgm_jax.data.errors import DataError
from pgm_jax.data.nifti import read_nifti
from pgm_jax.data.npy import read_npy
from pgm_jax.data.nrrd import read_nrrd
from pgm_jax.data.volume import Volume

_READERS = {
    ".npy": read_npy,
    ".npz": read_npy,
    ".nii": read_nifti,
    ".nii.gz": read_nifti,
    ".nrrd": read_nrrd,
    ".dcm": read_dicom,
    ".ima": read_dicom,
}


def read(path) -> Volume:
    """Reads an image file by its suffix, or a folder as a DICOM series.

    Args:
        path: .npy, .npz, .nii, .nii.gz, .nrrd or .dcm file, a DICOM file without a suffix, or a folder.

    Returns:
        The volume; see `Volume` for its axes.

    Raises:
        DataError: if there is no such file, its kind is unknown, or its reader refuses it.
        MissingExtra: if the reader's library is not installed.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder: check the path")
    if path.is_dir() or not path.suffix:
        return read_dicom(path)
    suffix = "".join(path.suffixes[-2:]).lower() if path.suffix.lower() == ".gz" else path.suffix.lower()
    if suffix not in _READERS:
        raise DataError(f"{path}: unknown kind of file: use {', '.join(_READERS)} or a DICOM folder")
    return _READERS[suffix](path)

"""One function that writes a volume as any supported kind of file."""

from pathlib import Path

from pgm_jax.data.dicom_writer import write_dicom
from pgm_jax.data.errors import DataError
from pgm_jax.data.nifti_writer import write_nifti
from pgm_jax.data.npy import write_npy
from pgm_jax.data.png import write_png
from pgm_jax.data.volume import Volume

_WRITERS = {
    ".npy": write_npy,
    ".npz": write_npy,
    ".nii": write_nifti,
    ".nii.gz": write_nifti,
    ".png": write_png,
    "": write_dicom,
}


def write(path, volume: Volume, *, overwrite: bool = False, **options) -> None:
    """Writes a volume as its suffix says, the counterpart of `read`; a name without a suffix is a DICOM folder.

    Args:
        path: .npy, .npz, .nii, .nii.gz or .png file, or a folder for a derived DICOM series.
        volume: volume to write.
        overwrite: whether what is there may be replaced.
        **options: keywords of `write_png` or `write_dicom`.

    Raises:
        DataError: for an unknown suffix, or as the writer of this kind of file.
        MissingExtra: if the writer's library is not installed.
    """
    path = Path(path)
    suffix = "".join(path.suffixes[-2:]).lower() if path.suffix.lower() == ".gz" else path.suffix.lower()
    if suffix not in _WRITERS:
        kinds = ", ".join(kind for kind in _WRITERS if kind)
        raise DataError(
            f"{path}: unknown kind of file: use {kinds}, or a name without a suffix for a DICOM folder"
        )
    _WRITERS[suffix](path, volume, overwrite=overwrite, **options)

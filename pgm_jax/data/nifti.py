"""NIfTI files, reoriented by their affine."""

import gzip
import logging
from pathlib import Path

import numpy as np

from pgm_jax.core import require
from pgm_jax.data.errors import DataError
from pgm_jax.data.volume import Volume, canonical, checked

_log = logging.getLogger("pgm_jax.data")
_MILLIMETRES = {"meter": 1e3, "micron": 1e-3}


def read_nifti(path, *, name: str | None = None, units: str = "a.u.") -> Volume:
    """Reads a NIfTI-1 or NIfTI-2 file into the canonical order of `Volume`.

    Only pixels, their scaling and the affine are taken; free text of the header (which can hold a
    patient's name) is not. The checksum of a compressed file is verified.

    Args:
        path: file that ends in .nii or .nii.gz.
        name: name of the volume; the file name without its suffix by default.
        units: units of the pixels; NIfTI has no field for them.

    Returns:
        The volume, (depth, height, width, 1).

    Raises:
        DataError: if the file is damaged, in colour or of a wrong number of axes, or has non-finite pixels.
        MissingExtra: if nibabel is not installed.
    """
    nibabel = require("nibabel", "io")
    path = Path(path)
    try:
        content = path.read_bytes()
        if path.suffix.lower() == ".gz":
            content = gzip.decompress(content)
        second = 540 in (int.from_bytes(content[:4], "little"), int.from_bytes(content[:4], "big"))
        image = (nibabel.Nifti2Image if second else nibabel.Nifti1Image).from_bytes(content)
        array = np.asanyarray(image.dataobj)
        affine = _affine(image, path)
    except Exception as error:  # damaged files raise whatever their parser trips over
        raise DataError(
            f"{path}: damaged or incomplete NIfTI file ({type(error).__name__}): copy or export it again"
        ) from None
    if array.dtype.fields is not None:
        raise DataError(f"{path}: a colour NIfTI file: convert it to one grey value a voxel")
    if array.ndim > 3:
        array = array.reshape(array.shape[:3] + tuple(n for n in array.shape[3:] if n != 1))
    if array.ndim != 3:
        raise DataError(
            f"{path}: has {array.ndim} axes {array.shape}, not 3: split it into single volumes first"
        )
    array, spacing, affine = canonical(checked(array, path), affine, path)
    stem = path.name.removesuffix(".gz").removesuffix(".nii")
    return Volume(array[..., None], spacing, affine, units, stem if name is None else name)


def _affine(image, path) -> np.ndarray:
    header = image.header
    if int(header["qform_code"]) == 0 and int(header["sform_code"]) == 0:
        _log.warning("%s does not state its orientation: check left and right before you use it", path)
    scale = _MILLIMETRES.get(header.get_xyzt_units()[0], 1.0)
    return np.diag([scale, scale, scale, 1.0]) @ image.affine

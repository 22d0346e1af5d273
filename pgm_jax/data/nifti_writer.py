"""Volumes to NIfTI files."""

import contextlib
import gzip
from pathlib import Path

import numpy as np

from pgm_jax.core import require
from pgm_jax.data.errors import DataError
from pgm_jax.data.volume import Volume, grey
from pgm_jax.data.whole import whole_file


def write_nifti(path, volume: Volume, *, overwrite: bool = False) -> None:
    """Writes a NIfTI-1 file that `read_nifti` reads back: pixels exactly, affine and spacing to float32.

    Voxels are stored with x fastest, as float32 or complex64, in mm. The affine goes into sform and qform
    (scanner coordinates). A volume without one keeps its spacing and says that its orientation is unknown; one
    without spacing says that its unit of length is unknown. The header holds no name, no date and no free text.

    Args:
        path: file that ends in .nii or .nii.gz.
        volume: volume of one channel.
        overwrite: whether an existing file may be replaced.

    Raises:
        DataError: for another suffix, several channels, pixels that are not finite, an axis longer than the 32767
            voxels of NIfTI-1, or a file that cannot be written.
        MissingExtra: if nibabel is not installed.
    """
    path = Path(path)
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        raise DataError(f"{path}: not the name of a NIfTI file: end it in .nii or .nii.gz")
    image = _image(grey(volume, path), volume, path)
    with whole_file(path, overwrite) as out, _compressed(path, out) as stream:
        image.to_stream(stream)


def _image(array, volume, path):
    nibabel = require("nibabel", "io")
    if max(array.shape) > np.iinfo(np.int16).max:
        raise DataError(f"{path}: an axis of {array.shape} is too long for NIfTI-1: write NPY instead")
    if volume.affine is None:
        # Without codes readers take the first axis towards left and the second towards anterior.
        image = nibabel.Nifti1Image(array[:, ::-1].transpose(2, 1, 0), None)
        z, y, x = volume.spacing or (1.0, 1.0, 1.0)
        image.header.set_zooms((x, y, z))
    else:
        affine = np.asarray(volume.affine)[:, [2, 1, 0, 3]]
        image = nibabel.Nifti1Image(array.transpose(2, 1, 0), affine)
        image.set_sform(affine, code="scanner")
        image.set_qform(affine, code="scanner")
    image.header.set_xyzt_units("unknown" if volume.spacing is None else "mm")
    return image


@contextlib.contextmanager
def _compressed(path, out):
    if path.suffix.lower() != ".gz":
        yield out
        return
    # Neither a name nor a time: equal volumes give equal files.
    with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=out, mtime=0) as stream:
        yield stream

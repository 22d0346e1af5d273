"""NRRD files with attached raw or gzip data: only what the named data sets need."""

import gzip
from pathlib import Path

import numpy as np

from pgm_jax.data.errors import DataError
from pgm_jax.data.volume import Volume, canonical, checked

_TYPES = {
    "uchar": "u1", "unsigned char": "u1", "uint8": "u1", "int8": "i1", "signed char": "i1",
    "short": "i2", "int16": "i2", "ushort": "u2", "unsigned short": "u2", "uint16": "u2",
    "int": "i4", "int32": "i4", "uint32": "u4", "float": "f4", "double": "f8",
}  # fmt: skip
_TO_RAS = {
    "left-posterior-superior": (-1.0, -1.0, 1.0),
    "right-anterior-superior": (1.0, 1.0, 1.0),
    "left-anterior-superior": (-1.0, 1.0, 1.0),
}


def read_nrrd(path, *, name: str | None = None, units: str = "a.u.") -> Volume:
    """Reads a three-dimensional NRRD file with its pixels inside, into the canonical order of `Volume`.

    Args:
        path: file that ends in .nrrd, encoding raw or gzip.
        name: name of the volume; the file name without its suffix by default.
        units: units of the pixels; NRRD files seldom state them.

    Returns:
        The volume, (depth, height, width, 1).

    Raises:
        DataError: if the file is damaged, uses a feature that is not read, or has non-finite pixels.
    """
    path = Path(path)
    try:
        head, _, body = path.read_bytes().partition(b"\n\n")
        fields = _fields(head)
        body = gzip.decompress(body) if fields["encoding"] in ("gzip", "gz") else body
        order = "<" if fields.get("endian", "little") == "little" else ">"
        sizes = [int(size) for size in fields["sizes"].split()]
        flat = np.frombuffer(body, order + _TYPES[fields["type"]], count=int(np.prod(sizes)))
        affine = _affine(fields)
        if len(sizes) != 3 or fields["encoding"] not in ("raw", "gzip", "gz") or "data file" in fields:
            raise ValueError
    except Exception as error:  # damaged files raise whatever their parser trips over
        raise DataError(
            f"{path}: damaged, or not a 3-D NRRD file with raw or gzip data inside ({type(error).__name__}): "
            f"convert it to NIfTI"
        ) from None
    array, spacing, affine = canonical(checked(flat.reshape(sizes, order="F"), path), affine, path)
    return Volume(array[..., None], spacing, affine, units, path.stem if name is None else name)


def _fields(head: bytes) -> dict[str, str]:
    lines = head.decode("ascii", "replace").splitlines()
    if not lines or not lines[0].startswith("NRRD000"):
        raise ValueError
    pairs = (line.split(": ", 1) for line in lines[1:] if ": " in line and not line.startswith("#"))
    return {key: value.strip() for key, value in pairs}


def _affine(fields) -> np.ndarray:
    def vector(text):
        return [float(number) for number in text.strip("()").split(",")]

    affine = np.eye(4)
    affine[:3, :3] = np.stack([vector(text) for text in fields["space directions"].split()], axis=1)
    affine[:3, 3] = vector(fields["space origin"])
    return np.diag([*_TO_RAS[fields["space"]], 1.0]) @ affine

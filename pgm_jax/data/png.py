"""A slice of a volume as a grey picture."""

import struct
import zlib

import numpy as np

from pgm_jax.data.errors import DataError
from pgm_jax.data.volume import Volume, grey
from pgm_jax.data.whole import whole_file

_SOFT_TISSUE = (-160.0, 240.0)  # HU: level 40, width 400
_PLANES = ("axial", "coronal", "sagittal")


def write_png(
    path,
    volume: Volume,
    *,
    plane: str = "axial",
    index: int | None = None,
    window=None,
    overwrite: bool = False,
) -> None:
    """Draws one slice in the radiological convention, 8 bits of grey, with square pixels.

    The patient's right is on the left of axial and coronal pictures and anterior on the left of sagittal ones;
    superior (axial: anterior) is at the top. A volume of unknown orientation is drawn as its axes lie. Pixels that
    are not square are interpolated linearly to the finer spacing. Nothing but grey values is in the file.

    Args:
        path: picture to write.
        volume: volume of one channel; complex ones are drawn by magnitude.
        plane: "axial", "coronal" or "sagittal".
        index: number of the slice along (z, y, x) for these planes; the middle one by default.
        window: (black, white) in `volume.units`. By default level 40 and width 400 for HU; else from 0, or from
            the 0.5th percentile if there are negative values, to the 99.5th percentile of the slice.
        overwrite: whether an existing file may be replaced.

    Raises:
        DataError: for an unknown plane, a slice outside the volume, a window without width, several channels,
            pixels that are not finite, or a file that cannot be written.
    """
    if plane not in _PLANES:
        raise DataError(f"write_png: plane '{plane}' is not known: use {', '.join(_PLANES)}")
    array, axis = grey(volume, path), _PLANES.index(plane)
    count = array.shape[axis]
    index = count // 2 if index is None else index
    if not -count <= index < count:
        raise DataError(
            f"write_png: slice {index} is outside the {count} {plane} slices: give 0 to {count - 1}"
        )
    image = np.abs(array).take(index, axis) if np.iscomplexobj(array) else array.take(index, axis)
    spacing = [step for n, step in enumerate(volume.spacing or (1.0, 1.0, 1.0)) if n != axis]
    image = _square(image if axis == 0 else image[::-1], spacing)
    low, high = _window(image, volume.units) if window is None else window
    if not low < high:
        raise DataError(
            f"write_png: the window {low} to {high} has no width: give (black, white), black below white"
        )
    shades = np.rint(255 * np.clip((image - low) / (high - low), 0, 1)).astype(np.uint8)
    with whole_file(path, overwrite) as out:
        out.write(_encoded(shades))


def _window(image, units):
    if units == "HU":
        return _SOFT_TISSUE
    low, high = np.percentile(image, (0.5, 99.5))
    low = low if image.min() < 0 else 0.0
    return low, max(high, low + 1e-6 * max(abs(low), 1e-30))


def _square(image, spacing):
    for axis in (0, 1):
        size = image.shape[axis]
        wanted = max(1, round(size * spacing[axis] / min(spacing)))
        if wanted != size:
            place = np.clip((np.arange(wanted) + 0.5) * size / wanted - 0.5, 0, size - 1)
            below = np.minimum(place.astype(int), max(size - 2, 0))
            part = np.expand_dims(place - below, 1 - axis)
            above = np.minimum(below + 1, size - 1)
            image = (1 - part) * image.take(below, axis) + part * image.take(above, axis)
    return image


def _encoded(shades) -> bytes:
    """Encodes (height, width) bytes as PNG, ISO/IEC 15948: 8-bit grey, every row unfiltered."""
    height, width = shades.shape
    rows = np.pad(shades, ((0, 0), (1, 0))).tobytes()  # each row begins with its filter, 0
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def _chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

"""NPY and NPZ files: plain arrays in the order of `Volume`, read and written."""

from pathlib import Path

import numpy as np

from pgm_jax.data.errors import DataError
from pgm_jax.data.volume import Volume, canonical, checked, with_channel
from pgm_jax.data.whole import whole_file


def read_npy(path, *, name: str | None = None, units: str = "a.u.") -> Volume:
    """Reads an NPY or NPZ file.

    The array is (height, width), (depth, height, width) or (depth, height, width, channel), taken as it
    is: these files state no orientation. An NPZ file holds either one array, or one named `image` and
    optionally `spacing` (z, y, x in mm), `units`, and `affine` (4, 4), which maps the indices of the first
    three axes to (right, anterior, superior) in mm. Pickled objects are never loaded.

    Args:
        path: file that ends in .npy or .npz.
        name: name of the volume; the file name without its suffix by default.
        units: units of the pixels, unless the file holds them.

    Returns:
        The volume; `spacing` is None unless the file holds it, `orientation` is "unknown". With an affine it is
        in the canonical order and has the spacing of the affine.

    Raises:
        DataError: if the file is damaged, or holds objects, non-finite pixels, a wrong number of axes or a
            damaged affine.
    """
    path = Path(path)
    held = held_arrays(path, "image")
    others = ("spacing", "units", "affine")
    arrays = [key for key in held if key not in others]
    if "image" not in held and len(arrays) != 1:
        raise DataError(f"{path}: holds the arrays {sorted(arrays)}: name the one to read 'image'")
    array = with_channel(checked(held["image"] if "image" in held else held[arrays[0]], path), path)
    spacing = _spacing(held["spacing"], path) if "spacing" in held else None
    affine = _affine(held["affine"], path) if "affine" in held else None
    if affine is not None:
        array, spacing, affine = canonical(array, affine, path)
    units = str(held["units"]) if "units" in held else units
    name = path.stem if name is None else name
    return Volume(array, spacing, affine, units, name, orientation="unknown" if affine is None else "SPL")


def write_npy(path, volume: Volume, *, overwrite: bool = False) -> None:
    """Writes an NPY file, or an NPZ file that `read_npy` reads back exactly.

    Args:
        path: .npy, which holds the pixels alone, or .npz, which also holds units, spacing and affine.
        volume: volume of any channels.
        overwrite: whether an existing file may be replaced.

    Raises:
        DataError: for another suffix, pixels that are not finite, or a file that cannot be written.
    """
    path, array = Path(path), checked(volume.array, path)
    suffix = path.suffix.lower()
    if suffix not in (".npy", ".npz"):
        raise DataError(f"{path}: not the name of an NPY or NPZ file: end it in .npy or .npz")
    geometry = {"spacing": volume.spacing, "affine": volume.affine}
    with whole_file(path, overwrite) as out:
        if suffix == ".npy":
            np.save(out, array, allow_pickle=False)
        else:
            held = {key: np.asarray(value) for key, value in geometry.items() if value is not None}
            np.savez_compressed(out, image=array, units=np.asarray(volume.units), **held)


def held_arrays(path, name: str) -> dict[str, np.ndarray]:
    """Reads the arrays of an NPY or NPZ file by name, never pickled objects.

    Args:
        path: file that ends in .npy or .npz.
        name: name for the one array of an NPY file.

    Returns:
        Arrays by name, of any type.

    Raises:
        DataError: if the file is damaged or holds objects.
    """
    try:
        content = np.load(path, allow_pickle=False)
        return dict(content) if Path(path).suffix.lower() == ".npz" else {name: content}
    except Exception as error:  # damaged files raise whatever their parser trips over
        raise DataError(
            f"{path}: not a readable NPY or NPZ file ({type(error).__name__}): save it again with numpy.save "
            f"without pickled objects"
        ) from None


def _spacing(values, path) -> tuple[float, float, float]:
    numbers = values.shape == (3,) and values.dtype.kind in "uif"
    if not numbers or not np.isfinite(values).all() or values.min() <= 0:
        raise DataError(f"{path}: its spacing must be three positive numbers, (z, y, x) in mm")
    z, y, x = (float(value) for value in values)
    return z, y, x


def _affine(values, path) -> np.ndarray:
    if values.shape != (4, 4) or values.dtype.kind not in "uif":
        raise DataError(f"{path}: its affine must be 4 x 4 numbers, from (z, y, x, 1) to RAS in mm")
    return values

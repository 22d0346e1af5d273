"""NPY and NPZ files: plain arrays, already in the order of `Volume`."""

from pathlib import Path

import numpy as np

from pgm_jax.data.errors import DataError
from pgm_jax.data.volume import Volume, checked, with_channel


def read_npy(path, *, name: str | None = None, units: str = "a.u.") -> Volume:
    """Reads an NPY or NPZ file.

    The array is (height, width), (depth, height, width) or (depth, height, width, channel), taken as it
    is: these files state no orientation. An NPZ file holds either one array, or one named `image` and
    optionally `spacing` (z, y, x in mm) and `units`. Pickled objects are never loaded.

    Args:
        path: file that ends in .npy or .npz.
        name: name of the volume; the file name without its suffix by default.
        units: units of the pixels, unless the file holds them.

    Returns:
        The volume; `spacing` is None unless the file holds it, `orientation` is "unknown".

    Raises:
        DataError: if the file is damaged, or holds objects, non-finite pixels or a wrong number of axes.
    """
    path = Path(path)
    try:
        content = np.load(path, allow_pickle=False)
        held = dict(content) if path.suffix.lower() == ".npz" else {"image": content}
    except Exception as error:  # damaged files raise whatever their parser trips over
        raise DataError(
            f"{path}: not a readable NPY or NPZ file ({type(error).__name__}): save it again with numpy.save "
            f"without pickled objects"
        ) from None
    arrays = [key for key in held if key not in ("spacing", "units")]
    if "image" not in held and len(arrays) != 1:
        raise DataError(f"{path}: holds the arrays {sorted(arrays)}: name the one to read 'image'")
    pixels = held["image"] if "image" in held else held[arrays[0]]
    return Volume(
        array=with_channel(checked(pixels, path), path),
        spacing=_spacing(held["spacing"], path) if "spacing" in held else None,
        affine=None,
        units=str(held["units"]) if "units" in held else units,
        name=path.stem if name is None else name,
        orientation="unknown",
    )


def _spacing(values, path) -> tuple[float, float, float]:
    numbers = values.shape == (3,) and values.dtype.kind in "uif"
    if not numbers or not np.isfinite(values).all() or values.min() <= 0:
        raise DataError(f"{path}: its spacing must be three positive numbers, (z, y, x) in mm")
    z, y, x = (float(value) for value in values)
    return z, y, x

"""HDF5 files opened for reading, with errors of one line."""

import contextlib
from pathlib import Path

from pgm_jax.core import require
from pgm_jax.data.errors import DataError

SUFFIXES = (".h5", ".hdf5", ".hdf", ".mrd", ".ismrmrd")


@contextlib.contextmanager
def opened(path):
    """Yields an HDF5 file open for reading.

    Args:
        path: the file.

    Yields:
        `h5py.File`.

    Raises:
        DataError: if it is not an HDF5 file, or is damaged where the block reads it.
        MissingExtra: if h5py is not installed.
    """
    h5py = require("h5py", "io")
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file: check the path")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except DataError:
        raise
    except Exception as error:  # damaged files raise whatever their parser trips over
        kind = type(error).__name__
        raise DataError(
            f"{path}: damaged or incomplete HDF5 file ({kind}): copy or export it again"
        ) from None


def dataset(file, name: str, path, axes: str = ""):
    """Returns a data set of an open file.

    Args:
        file: open file or group.
        name: path of the data set inside it.
        path: path of the file for the message.
        axes: what its axes should be, for the message.

    Returns:
        `h5py.Dataset`; its values are not read yet.

    Raises:
        DataError: if there is no data set of that name, with the names that are there.
    """
    held = file.get(name)
    if held is None or not hasattr(held, "dtype"):
        names = []
        file.visititems(lambda found, item: names.append(found) if hasattr(item, "dtype") else None)
        raise DataError(
            f"{path}: has no data set '{name}'{axes and f' ({axes})'}: it holds {', '.join(names[:8])}"
        )
    return held

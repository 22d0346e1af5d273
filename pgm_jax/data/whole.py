"""Files and folders that appear whole or not at all, and never in place of another unless that is asked for."""

import contextlib
import os
import secrets
import shutil
from pathlib import Path

from pgm_jax.data.errors import DataError


@contextlib.contextmanager
def whole_file(path, overwrite: bool = False):
    """Yields a binary file that takes the place of `path` when the block ends without an error.

    It is written under a temporary name beside `path` and renamed, so a killed run or a full disk leaves the old
    file, if there was one, and nothing else.

    Args:
        path: file to write; its folder is made if needed.
        overwrite: whether a file of that name may be replaced.

    Yields:
        File open for writing bytes.

    Raises:
        DataError: if the file exists and `overwrite` is False, or it cannot be written, with the reason.
    """
    path = Path(path)
    partial = _beside(path)
    _refuse_file(path, overwrite)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("xb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        _refuse_file(path, overwrite)  # another run may have been faster
        os.replace(partial, path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path, suffix: str, overwrite: bool = False):
    """Yields an empty folder that takes the place of `path` when the block ends without an error.

    Args:
        path: folder to write; the folders above it are made if needed.
        suffix: ending of the files that it holds. A folder with anything else in it is never replaced.
        overwrite: whether a folder of that name that is not empty may be replaced.

    Yields:
        `Path` of a temporary folder beside `path`.

    Raises:
        DataError: if the folder holds files that may not be replaced, or it cannot be written.
    """
    path = Path(path)
    partial, old = _beside(path), _beside(path)
    _refuse_folder(path, suffix, overwrite)
    try:
        partial.mkdir(parents=True)
        yield partial
        _refuse_folder(path, suffix, overwrite)
        if path.exists():
            os.replace(path, old)
        os.replace(partial, path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if old.exists() and not path.exists():
            os.replace(old, path)
        shutil.rmtree(old, ignore_errors=True)


def _beside(path):
    return path.with_name(f".partial-{secrets.token_hex(8)}")


def _refuse_file(path, overwrite):
    if path.is_dir():
        raise DataError(f"{path}: is a folder: give the name of a file")
    if path.exists() and not overwrite:
        raise DataError(f"{path}: exists already: choose another name, or pass overwrite=True")


def _refuse_folder(path, suffix, overwrite):
    if not path.exists():
        return
    if not path.is_dir():
        raise DataError(f"{path}: is a file: give the name of a folder")
    held = list(path.iterdir())
    if held and not overwrite:
        raise DataError(f"{path}: is not empty: choose another folder, or pass overwrite=True")
    if any(file.suffix != suffix or not file.is_file() for file in held):
        raise DataError(
            f"{path}: holds more than {suffix} files, so it is not replaced: choose another folder"
        )


def _unwritable(path, error):
    reason = error.strerror or type(error).__name__
    return DataError(
        f"{path}: cannot be written ({reason}), nothing was kept: free space or choose another place"
    )

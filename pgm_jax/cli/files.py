"""Output files that are written whole or not at all."""

import contextlib
import json
import os
from pathlib import Path


def writable(path) -> None:
    """Makes sure, before a long run, that a file can be written; makes its folder.

    Args:
        path: file that will be written.

    Raises:
        ValueError: if it cannot, with the reason.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give the name of a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe = path.with_name(f".{path.stem}.probe{path.suffix}")
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror}; choose another place") from error


@contextlib.contextmanager
def whole_file(path):
    """Yields a temporary path beside `path`, which takes its place when the block ends without an error.

    Args:
        path: file to write; its folder is made if needed.

    Yields:
        `Path` to write to, with the same suffix.

    Raises:
        ValueError: if the folder cannot be made or written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"cannot make the folder {path.parent}: {error.strerror}; choose another output folder"
        ) from error
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path, value) -> None:
    """Writes JSON with standard numbers only (no NaN).

    Args:
        path: file to write.
        value: JSON-able value.

    Raises:
        ValueError: if a number is not finite, or the file cannot be written.
    """
    with whole_file(path) as partial:
        partial.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")

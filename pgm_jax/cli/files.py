"""Output files of the verbs: checked before a long run, written whole or not at all."""

import json
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


def write_json(path, value) -> None:
    """Writes JSON with standard numbers only (no NaN).

    Args:
        path: file to write.
        value: JSON-able value.

    Raises:
        ValueError: if a number is not finite, or the file cannot be written.
    """
    # The readers import jax, which `--help` does not wait for.
    from pgm_jax.data import whole_file

    with whole_file(path, overwrite=True) as out:
        out.write((json.dumps(value, indent=1, allow_nan=False) + "\n").encode())

"""The file of a trained prior: weights in 16 or 8 bits, one entry a path, and a JSON card; no pickles.

16 bits are bfloat16, kept as their bits. 8 bits are integers in [-127, 127] times a float32 scale for each output
channel, the last axis of a kernel; vectors (biases) stay in 16 bits.
"""

import json
import zipfile
import zlib

import jax.numpy as jnp
import numpy as np

_KINDS = ("params", "int8", "scale")


class PriorError(ValueError):
    """A trained prior cannot be found or read."""


def write(path, values, card, bits) -> None:
    """Writes weights and card, replacing the file in one go.

    Args:
        path: `Path` of the `.npz` file.
        values: `{path of the weight: array}`.
        card: JSON-able dict.
        bits: 16 or 8.

    Raises:
        PriorError: for other bits, or a weight that is not finite; nothing is written.
    """
    if bits not in (8, 16):
        raise PriorError(f"bits is {bits}: weights are stored in 16 or 8")
    entries = {}
    for name, leaf in values.items():
        if not bool(jnp.isfinite(leaf).all()):
            raise PriorError(f"{name} holds values that are not finite: nothing was written")
        if bits == 8 and np.ndim(leaf) > 1:
            entries[f"int8/{name}"], entries[f"scale/{name}"] = _rounded(np.asarray(leaf, np.float32))
        else:
            entries[f"params/{name}"] = np.asarray(jnp.asarray(leaf).astype(jnp.bfloat16)).view(np.uint16)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as stream:
            np.savez(stream, card=np.array(json.dumps(card)), **entries)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read(path):
    """Reads what `write` wrote.

    Args:
        path: `Path` of the file, or a resource of the package.

    Returns:
        `(card, {path of the weight: float32 array})`.

    Raises:
        PriorError: if the file is damaged or another one.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            card = json.loads(str(archive["card"]))
            parts = {kind: {} for kind in _KINDS}
            for entry in archive.files:
                kind, _, name = entry.partition("/")
                if kind in parts:
                    parts[kind][name] = archive[entry]
            values = {
                name: bits.view(jnp.bfloat16).astype(np.float32) for name, bits in parts["params"].items()
            }
            scaled = {name: number * parts["scale"][name] for name, number in parts["int8"].items()}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise PriorError(f"{path} cannot be read as a prior: {error}") from error
    return card, values | scaled


def _rounded(kernel):
    """The nearest integers, and the scale of each output channel."""
    scale = np.abs(kernel).max(axis=tuple(range(kernel.ndim - 1))) / 127
    scale = np.where(scale > 0, scale, 1.0).astype(np.float32)
    return np.rint(kernel / scale).astype(np.int8), scale

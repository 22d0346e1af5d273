"""Checkpoints: a directory with one folder a step, holding arrays, JSON and the checksum of every file.

    path/7/_FILES.json           size and CRC-32 of each file; written last, so its absence means incomplete
    path/7/_CHECKPOINT_METADATA  JSON: the caller's meta, and shape and dtype of every array
    path/7/state/                the arrays, written by orbax (OCDBT), restorable onto any sharding

orbax notices a missing or shortened file, in many lines, and restores a flipped bit without a word: hence the
checksums, which are read first. No pickles: whoever knows the network's sizes can rebuild the state.
"""

import json
import zlib

import jax
import jax.numpy as jnp

_MARKER = "_FILES.json"
# In the name of a folder while orbax writes it.
_TEMPORARY = ".orbax-checkpoint-tmp"


class CheckpointError(ValueError):
    """A checkpoint is missing, incomplete, damaged or of another structure; the message says which."""


def save(path, state, meta=None, *, step: int = 0, overwrite: bool = False, keep: int | None = None) -> None:
    """Writes one step and returns when it is complete. Every process of a run calls it.

    A step whose earlier save was interrupted is replaced; the other steps stay as they are if this one fails.

    Args:
        path: directory of the run, on a disk that all processes share.
        state: pytree of arrays, or one array. Typed keys, bfloat16 and complex arrays are kept. With several
            processes every array must be global (made inside a jitted function with `out_shardings`).
        meta: anything that `json.dumps` accepts: the configuration, the data iterator's state.
        step: number of the step; single weights may leave it at 0.
        overwrite: replaces a complete step of the same number.
        keep: number of steps to keep; older ones are deleted after this one is complete.

    Raises:
        CheckpointError: if the step exists and `overwrite` is False.
        TypeError: if a leaf of the state is not an array, or the meta is not JSON; nothing is written.
        ValueError: if the state holds no arrays, or an array is local to one process of several.
    """
    from orbax.checkpoint import v1 as ocp

    root, folder = _directory(path), _directory(path) / str(step)
    if (folder / _MARKER).exists() and not overwrite:
        raise CheckpointError(f"{folder} exists; save another step, or pass overwrite=True")
    leaves = _savable(_leaves(state))
    record = {"meta": meta, "arrays": {name: _describe(leaf) for name, leaf in leaves.items()}}
    record = json.loads(json.dumps(record))
    # orbax refuses arrays without elements; their record is enough to make them again.
    stored = {name: leaf for name, leaf in leaves.items() if leaf.size}
    ocp.save_checkpointables(folder, {"state": stored}, overwrite=True, custom_metadata=record)
    if jax.process_index() == 0:
        (folder / _MARKER).write_text(json.dumps(_checksums(folder)))
        for old in steps(path)[:-keep] if keep else ():
            # The marker goes first, so that a deletion cut short leaves no step that looks complete.
            (root / str(old) / _MARKER).unlink()
            (root / str(old)).rmtree()
        for entry in root.iterdir():
            # What an earlier save left that was killed or found the disk full.
            number = entry.name.split(".")[0]
            if _TEMPORARY in entry.name and number.isdigit() and int(number) <= step:
                entry.rmtree()
    _wait(f"pgm_jax.checkpoint {folder}")


def restore(path, abstract, step: int | None = None):
    """Reads one step onto the shardings of `abstract`, which need not be those it was saved with.

    Args:
        path: directory given to `save`.
        abstract: pytree of arrays or of `jax.ShapeDtypeStruct`, such as `jax.eval_shape` returns. A leaf
            without a sharding is put on this process's first device.
        step: step to read; by default the latest complete one.

    Returns:
        `(state, meta)`: the state has the structure, shapes, dtypes and shardings of `abstract`.

    Raises:
        CheckpointError: if there is no such step, it is incomplete, a file is missing or damaged, or a path,
            shape or dtype differs from `abstract`.
    """
    from orbax.checkpoint import v1 as ocp

    folder = _verified(path, step)
    record = _record(folder)
    wanted = _leaves(jax.tree.map(_abstract, abstract))
    _same_arrays(folder, record["arrays"], wanted)
    stored = {name: leaf for name, leaf in wanted.items() if leaf.size}
    try:
        values = ocp.load_checkpointables(folder, {"state": stored})["state"]
    except Exception as error:
        # orbax reports one cause as a chain of handler errors; the first exception is the cause.
        cause = error
        while cause.__cause__ or cause.__context__:
            cause = cause.__cause__ or cause.__context__
        raise CheckpointError(f"{folder} cannot be read: {repr(cause)[:300]}") from error
    empty = {name: leaf for name, leaf in wanted.items() if not leaf.size}
    values |= {name: jnp.zeros(leaf.shape, leaf.dtype, device=leaf.sharding) for name, leaf in empty.items()}
    values = {name: _placed(value, wanted[name]) for name, value in values.items()}
    return jax.tree.unflatten(jax.tree.structure(abstract), [values[name] for name in wanted]), record["meta"]


def read_meta(path, step: int | None = None):
    """Reads the meta of one step without its arrays, to build the network before `restore`.

    Args:
        path: directory given to `save`.
        step: step to read; by default the latest complete one.

    Returns:
        The meta as JSON gives it back: tuples are lists.

    Raises:
        CheckpointError: if there is no such step or it is incomplete.
    """
    return _record(_complete(path, step))["meta"]


def steps(path) -> list[int]:
    """Lists the complete steps in ascending order; a directory that does not exist has none.

    Args:
        path: directory given to `save`.

    Returns:
        The step numbers.
    """
    root = _directory(path)
    folders = root.iterdir() if root.exists() else ()
    return sorted(int(f.name) for f in folders if f.name.isdigit() and (f / _MARKER).exists())


def latest_step(path) -> int | None:
    """Returns the largest complete step, or None where there is none.

    Args:
        path: directory given to `save`.

    Returns:
        The step number or None.
    """
    return max(steps(path), default=None)


def _directory(path):
    # epath comes with orbax: it reads gs:// as well, and orbax refuses relative paths.
    from etils import epath

    return epath.Path(path).expanduser().resolve()


def _leaves(tree):
    pairs = jax.tree_util.tree_leaves_with_path(tree)
    leaves = {jax.tree_util.keystr(path, simple=True, separator="/") or "array": leaf for path, leaf in pairs}
    if len(leaves) < len(pairs):
        raise ValueError(
            "two leaves have the same path: a key of the state holds '/', or 1 and '1' are both keys"
        )
    return leaves


def _abstract(leaf):
    sharding = getattr(leaf, "sharding", None) or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    dtype = leaf.dtype if isinstance(leaf, (jax.Array, jax.ShapeDtypeStruct)) else jnp.asarray(leaf).dtype
    return jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=sharding)


def _placed(leaf, abstract):
    if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return leaf
    # orbax gives a key the sharding of its words, which has an axis too many for it.
    wrap = lambda words: jax.random.wrap_key_data(words, impl=jax.random.key_impl(leaf))
    return jax.jit(wrap, out_shardings=abstract.sharding)(jax.random.key_data(leaf))


def _savable(leaves):
    if not any(getattr(leaf, "size", 0) for leaf in leaves.values()):
        raise ValueError("the state holds no arrays with elements; a checkpoint needs one")
    for name, leaf in leaves.items():
        if not hasattr(leaf, "dtype") or isinstance(leaf, jax.ShapeDtypeStruct):
            raise TypeError(f"{name} is a {type(leaf).__name__}, not an array; put plain values in meta")
        if jax.process_count() > 1 and getattr(leaf, "is_fully_addressable", True):
            raise ValueError(
                f"{name} is local to one process; make it under jit with out_shardings over the mesh"
            )
    # NumPy's float64 and int64 become what JAX makes of them.
    return {name: leaf if isinstance(leaf, jax.Array) else jnp.asarray(leaf) for name, leaf in leaves.items()}


def _describe(leaf):
    return [list(leaf.shape), str(leaf.dtype)]


def _same_arrays(folder, saved, wanted):
    for name in sorted(saved.keys() ^ wanted.keys()):
        verb = "lacks" if name in wanted else "has, and the given state lacks,"
        raise CheckpointError(f"{folder} {verb} {name!r}")
    for name, leaf in wanted.items():
        if saved[name] != _describe(leaf):
            (shape, dtype), (new_shape, new_dtype) = saved[name], _describe(leaf)
            here = f"{new_dtype}{new_shape} in the given state"
            raise CheckpointError(f"{folder}: {name!r} is {dtype}{shape} in the checkpoint and {here}")


def _complete(path, step):
    found = steps(path)
    if step is None and not found:
        raise CheckpointError(f"{_directory(path)} holds no complete checkpoint")
    folder = _directory(path) / str(found[-1] if step is None else step)
    if step is not None and step not in found:
        root = _directory(path)
        begun = root.exists() and any(f.name.split(".")[0] == str(step) for f in root.iterdir())
        what = "is incomplete: its save was interrupted" if begun else "does not exist"
        raise CheckpointError(f"{folder} {what}; complete steps: {found or 'none'}")
    return folder


def _verified(path, step):
    folder = _complete(path, step)
    found, written = _checksums(folder), _json(folder / _MARKER)
    for name, checksum in written.items():
        if found.get(name) != checksum:
            others = [other for other in steps(path) if str(other) != folder.name]
            what = "damaged" if name in found else "missing"
            raise CheckpointError(f"{folder / name} is {what}; other complete steps: {others or 'none'}")
    return folder


def _checksums(folder):
    names = {str(file.relative_to(folder)): file for file in _files(folder) if file.name != _MARKER}
    return {name: [file.stat().length, _crc(file)] for name, file in sorted(names.items())}


def _files(folder):
    # epath has no recursive glob on purpose: it would be slow on a bucket.
    for entry in folder.iterdir():
        yield from _files(entry) if entry.is_dir() else (entry,)


def _crc(file):
    value = 0
    with file.open("rb") as stream:
        while block := stream.read(1 << 24):
            value = zlib.crc32(block, value)
    return value


def _record(folder):
    return _json(folder / "_CHECKPOINT_METADATA")["custom_metadata"]


def _json(file):
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} is missing or damaged") from error


def _wait(name):
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)

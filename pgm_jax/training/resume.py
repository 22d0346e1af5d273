"""A run's checkpoints: the state, the position of every process in its data, and what the run was told to be."""

import json
import warnings

import jax
import numpy as np

from pgm_jax.core import checkpoint
from pgm_jax.core.checkpoint import CheckpointError


def save(path, state, step: int, iterator, meta, keep: int) -> None:
    """Writes a checkpoint of a run and returns when it is complete. Every process calls it.

    Args:
        path: directory of the run's checkpoints.
        state: the `TrainState` after `step` steps.
        step: number of steps taken.
        iterator: the batches; where it has `get_state`, its JSON-able position is saved, by process.
        meta: the run's description, anything that JSON holds.
        keep: number of checkpoints to keep.

    Raises:
        CheckpointError: if it could not be written, with the reason and the last complete step.
        TypeError: if the meta or the iterator's position is not JSON.
    """
    record = {"meta": meta, "positions": _positions(iterator)}
    try:
        checkpoint.save(path, state, record, step=step, overwrite=True, keep=keep)
    except (OSError, ValueError) as error:
        # Orbax nests paths in front of the system's own words, which come last.
        reason = " ".join(str(error).split())
        reason = reason if len(reason) <= 300 else f"{reason[:100]} ... {reason[-200:]}"
        raise CheckpointError(
            f"step {step} could not be saved in {path}: {reason}; the last complete step is "
            f"{checkpoint.latest_step(path)}: mend the cause and start again to go on from there"
        ) from error


def resume(path, abstract, iterator, meta):
    """Reads the newest undamaged checkpoint of a run and moves the iterator to where it was.

    A damaged checkpoint is named in a warning and renamed to `<step>.damaged`. An iterator without `set_state`
    is moved by drawing and dropping one batch a step, so it must be a fresh one that repeats itself; so is any
    iterator whose position was saved by another number of processes, unless all were at the same place.

    Args:
        path: directory of the run's checkpoints.
        abstract: `abstract_state` of the run, on this run's mesh.
        iterator: the batches.
        meta: the run's description; None to take the saved one.

    Returns:
        `(state, step, meta)`, or None where there is no checkpoint.

    Raises:
        CheckpointError: if checkpoints exist and none can be read, or the meta differs from the saved one; the
            message names the first key that differs, with both values.
    """
    found, damaged = checkpoint.steps(path), []
    for step in reversed(found):
        try:
            state, record = checkpoint.restore(path, abstract, step)
        except CheckpointError as error:
            damaged.append((step, error))
            continue
        _check_meta(path, step, record["meta"], meta)
        for number, error in damaged:
            _set_aside(path, number)
            warnings.warn(f"{error}; step {step} is used, {number} is now {number}.damaged", stacklevel=3)
        _move(iterator, record["positions"], step)
        return state, step, record["meta"] if meta is None else meta
    if damaged:
        step, error = damaged[0]
        # Another network makes every array differ: the line of the configuration says more.
        _check_meta(path, step, _readable_meta(path, step, meta), meta)
        raise error
    return None


def _readable_meta(path, step, default):
    try:
        return checkpoint.read_meta(path, step)["meta"]
    # A directory of plain weights has no such entry.
    except (CheckpointError, KeyError, TypeError):
        return default


def _check_meta(path, step, saved, given):
    if given is None:
        return
    difference = _difference(saved, json.loads(json.dumps(given)))
    if difference:
        name, was, now = difference
        raise CheckpointError(
            f"step {step} in {path} was trained with {name} = {was}, and this run has {name} = {now}: "
            "give the saved value, or another directory"
        )


def _difference(saved, given, name=""):
    """Returns `(path, saved value, given value)` of the first difference, or None."""
    if isinstance(saved, dict) and isinstance(given, dict):
        for key in [*saved, *(key for key in given if key not in saved)]:
            inside = _difference(saved.get(key, "nothing"), given.get(key, "nothing"), f"{name}.{key}")
            if inside:
                return inside
        return None
    return None if saved == given else (name.lstrip(".") or "meta", saved, given)


def _set_aside(path, step):
    from etils import epath

    if jax.process_index() == 0:
        root = epath.Path(path).expanduser().resolve()
        aside = root / f"{step}.damaged"
        if aside.exists():
            aside.rmtree()
        (root / str(step)).rename(aside)
    _wait(f"pgm_jax.training set aside {step}")


def _wait(name):
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def _positions(iterator):
    """Lists the iterators' positions by process, the same list in every process."""
    state = iterator.get_state() if hasattr(iterator, "get_state") else None
    if jax.process_count() == 1:
        return [state]
    from jax.experimental import multihost_utils

    text = np.frombuffer(json.dumps(state).encode(), np.uint8)
    longest = int(np.max(multihost_utils.process_allgather(np.int32(text.size))))
    # JSON reads through trailing spaces.
    padded = np.pad(text, (0, longest - text.size), constant_values=ord(" "))
    return [json.loads(bytes(row)) for row in np.asarray(multihost_utils.process_allgather(padded))]


def _move(iterator, positions, step):
    if len(positions) != jax.process_count():
        same = all(position == positions[0] for position in positions)
        position = positions[0] if same else None
    else:
        position = positions[jax.process_index()]
    if position is not None and hasattr(iterator, "set_state"):
        iterator.set_state(position)
        return
    for number in range(step):
        try:
            next(iterator)
        except StopIteration:
            raise ValueError(
                f"the batches ended after {number} while moving to step {step}: give an iterator that repeats"
            ) from None

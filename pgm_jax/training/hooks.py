"""Hooks `(step, metrics, state) -> None` that `fit` calls."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import jax


def jsonl(path) -> Callable:
    """Makes a hook that appends one JSON object a call: `{"step": 100, "loss": 0.1, ...}`.

    At its first call, rows of that step and later are dropped, and so is a row that was cut short: a run that is
    killed and resumed leaves each step once. A value that is not finite is written as null. Process 0 writes.

    Args:
        path: local file; its folder is made.

    Returns:
        The hook.
    """
    path = Path(path).expanduser()
    begun = False

    def hook(step, metrics, state):
        nonlocal begun
        if jax.process_index() != 0:
            return
        if not begun:
            path.parent.mkdir(parents=True, exist_ok=True)
            _truncate(path, step)
            begun = True
        row = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        with path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"step": step, **row}) + "\n")

    return hook


def _truncate(path, step):
    if not path.exists():
        return
    kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _step(line) < step]
    # Replaced in one go, so that a kill here loses no row.
    fresh = path.with_name(path.name + ".new")
    fresh.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
    os.replace(fresh, path)


def _step(line):
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return math.inf

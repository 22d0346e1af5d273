"""A run killed while it starts, steps, saves or deletes ends with the numbers of one that was not."""

import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

WORKER = Path(__file__).with_name("killed_worker.py")
LIMIT = 120


def _start(directory, steps, result):
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR") or jax.config.jax_compilation_cache_dir
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": cache}
    environment.pop("XLA_FLAGS", None)
    command = [sys.executable, str(WORKER), str(directory), str(steps), str(result)]
    log = (directory.parent / f"{directory.name}.log").open("a")
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment, text=True)


def _killed(directory, steps, result, draw):
    """Starts a life and kills it at a random moment, one in four at its first step at the latest."""
    worker = _start(directory, steps, result)
    said = []
    if draw.random() < 0.25:
        select.select([worker.stdout], [], [], draw.uniform(0, 4))
    else:
        said = [worker.stdout.readline() for _ in range(draw.randint(1, 14))]
        time.sleep(draw.uniform(0, 0.06))
    worker.kill()
    said += worker.communicate(timeout=LIMIT)[0].splitlines()
    assert worker.returncode == -signal.SIGKILL, "the run ended before it could be killed; ask for more steps"
    return [int(line) for line in said if line.strip()]


def _finished(directory, steps, result):
    worker = _start(directory, steps, result)
    said = worker.communicate(timeout=LIMIT)[0]
    log = (directory.parent / f"{directory.name}.log").read_text()
    assert worker.returncode == 0, log[-3000:]
    with np.load(result) as arrays:
        return [int(line) for line in said.split()], [arrays[name] for name in arrays.files]


@pytest.mark.multiprocess
@pytest.mark.parametrize(
    ("kills", "steps"), [(3, 90), pytest.param(20, 500, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_a_run_killed_again_and_again_ends_with_the_same_numbers(tmp_path, kills, steps):
    draw = random.Random(kills)
    _, expected = _finished(tmp_path / "whole", steps, tmp_path / "whole.npz")
    lives = [_killed(tmp_path / "run", steps, tmp_path / "run.npz", draw) for _ in range(kills)]
    said, arrays = _finished(tmp_path / "run", steps, tmp_path / "run.npz")
    # Later lives began at a save, and repeated the steps between it and the kill.
    assert any(life[0] > 1 for life in lives if life) and 1 < said[0] and said[-1] == steps
    for array, other in zip(arrays, expected, strict=True):
        np.testing.assert_array_equal(array, other)
    rows = [json.loads(line)["step"] for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    assert rows == list(range(1, steps + 1))

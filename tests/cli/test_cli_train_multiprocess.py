"""`pgm train` by two processes of two devices trains to what one process with four devices trains to."""

import json
from pathlib import Path

import cli_train_worker as worker
import jax
import numpy as np
import pytest
from two_processes import run_two

from pgm_jax.cli import main as cli
from pgm_jax.recipes import generation


@pytest.mark.multiprocess
def test_two_processes_leave_the_run_of_one(tmp_path):
    random = np.random.default_rng(0)
    smooth = random.uniform(200, 900, (6, 20, 20)).cumsum(axis=1).cumsum(axis=2)
    np.save(tmp_path / "atlas.npy", (smooth / smooth.max() * 700).astype(np.float32))
    run_two(Path(worker.__file__), tmp_path, tmp_path)
    words = ["train", "--data", str(tmp_path / "atlas.npy"), "--out", str(tmp_path / "one"), *worker.WORDS]
    assert cli.main([*words, "--mesh-data", "4"]) == 0
    one, two = (tmp_path / name for name in ("one", "two"))
    rows = [json.loads(line) for line in (two / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [5, 10]
    assert (two / "samples-0000010.png").stat().st_size > 500
    # The levels are measured on the same patches in every process.
    assert json.loads((two / "config.json").read_text())["sigma_data"] == pytest.approx(
        json.loads((one / "config.json").read_text())["sigma_data"]
    )
    for a, b in zip(*(jax.tree.leaves(generation.load_run(run).params) for run in (one, two)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)

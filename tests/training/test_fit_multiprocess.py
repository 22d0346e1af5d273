"""Two processes with two devices each train to what one process with four devices, or one device, trains to."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
import training_worker as worker
from two_processes import run_two

from pgm_jax import parallel


@pytest.mark.multiprocess
def test_two_processes_train_to_what_one_trains_to(tmp_path):
    """With the batch over all devices and parameters over two, a stop by a signal to one of them, and a resume."""
    run_two(Path(worker.__file__), tmp_path, tmp_path)
    first, second = (dict(np.load(tmp_path / f"{process}.npz")) for process in range(2))
    steps = int(first["arr_0"])
    rows = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows == list(range(1, steps + 1))
    for devices in (1, 4):
        assert jax.device_count() == 8
        state = worker.fit(steps, 0, 1, parallel.make_mesh(devices=jax.devices()[:devices]))
        expected = jax.tree.leaves(state.replace(key=jax.random.key_data(state.key)))
        assert len(expected) == len(first)
        for index, leaf in enumerate(expected):
            np.testing.assert_array_equal(first[f"arr_{index}"], second[f"arr_{index}"])
            np.testing.assert_allclose(first[f"arr_{index}"], leaf, rtol=1e-5, atol=1e-7)

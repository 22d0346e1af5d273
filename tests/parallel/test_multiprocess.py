"""Two processes with two devices each: a global sum and a sharded checkpoint."""

from pathlib import Path

import pytest
from two_processes import run_two

WORKER = Path(__file__).with_name("distributed_worker.py")


@pytest.mark.multiprocess
def test_two_processes_share_a_sum_and_a_checkpoint(tmp_path):
    run_two(WORKER, tmp_path, tmp_path / "run")

"""Two processes with two devices each: a global sum and a sharded checkpoint."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

WORKER = Path(__file__).with_name("distributed_worker.py")
LIMIT = 120


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.multiprocess
def test_two_processes_share_a_sum_and_a_checkpoint(tmp_path):
    port = str(_free_port())
    environment = {
        name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_PLATFORMS")
    }
    logs = [tmp_path / f"{process}.log" for process in range(2)]
    workers = []
    for process, log in enumerate(logs):
        with log.open("w") as stream:
            command = [sys.executable, str(WORKER), port, str(process), str(tmp_path / "run")]
            workers.append(
                subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=environment)
            )
    try:
        end = time.monotonic() + LIMIT
        # One failed process leaves the other waiting at a barrier for minutes: stop at the first failure.
        while any(w.poll() is None for w in workers) and not any(w.poll() for w in workers):
            assert time.monotonic() < end, "\n".join(log.read_text()[-3000:] for log in logs)
            time.sleep(0.1)
    finally:
        # JAX handles SIGTERM itself, so only SIGKILL stops a stuck process.
        for worker in workers:
            worker.kill()
            worker.wait()
    assert [w.returncode for w in workers] == [0, 0], "\n".join(log.read_text()[-3000:] for log in logs)
    assert all("passed\n" in log.read_text() for log in logs)

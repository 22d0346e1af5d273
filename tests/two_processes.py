"""Runs a script as two processes of one distributed run; each is called with the port, its number and a path."""

import os
import socket
import subprocess
import sys
import time

import jax

LIMIT = 200


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_two(script, tmp_path, path):
    """Starts both, waits, and fails with their logs unless both end well and say `passed`."""
    port = str(_free_port())
    environment = {
        name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_PLATFORMS")
    }
    # A second run compiles almost nothing, as in conftest.
    environment |= {
        "JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.05",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    logs = [tmp_path / f"{process}.log" for process in range(2)]
    workers = []
    for process, log in enumerate(logs):
        with log.open("w") as stream:
            command = [sys.executable, str(script), port, str(process), str(path)]
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

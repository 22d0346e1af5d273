"""Start-up of a run over several processes."""

import jax
from jax.experimental import multihost_utils


def start(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    **options,
) -> None:
    """Connects this process to the others; call it before any array exists. A second call does nothing.

    On TPU pods, Slurm and Open MPI the arguments are found from the environment. Afterwards `jax.devices()`
    lists the devices of every process and `make_mesh` spans them.

    Args:
        coordinator_address: `"host:port"` of process 0.
        num_processes: number of processes.
        process_id: number of this process, from 0.
        **options: further arguments of `jax.distributed.initialize`.

    Raises:
        RuntimeError: if JAX has already used its devices, so that it is too late to connect.
        ValueError: if the arguments are neither given nor found in the environment.
    """
    if jax.distributed.is_initialized():
        return
    jax.distributed.initialize(coordinator_address, num_processes, process_id, **options)


def start_from(text: str) -> None:
    """Connects this process as a command line says it.

    Args:
        text: "auto" where the environment says it (TPU pods, Slurm, Open MPI), else
            "HOST:PORT,PROCESSES,NUMBER": address of process 0, number of processes, number of this one.

    Raises:
        ValueError: if the text is neither, or "auto" finds nothing.
        RuntimeError: as `start`.
    """
    if text == "auto":
        return start()
    try:
        address, count, number = text.split(",")
        count, number = int(count), int(number)
    except ValueError:
        raise ValueError(
            f"distributed is {text!r}: give auto, or HOST:PORT,PROCESSES,NUMBER such as 10.0.0.1:8476,2,0"
        ) from None
    return start(address, count, number)


def gathered(tree):
    """Brings global arrays to every process.

    Args:
        tree: pytree of `jax.Array`s, sharded over any processes.

    Returns:
        Pytree of whole NumPy arrays, the same on every process; all processes must call it.
    """
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)

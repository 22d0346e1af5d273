"""Start-up of a run over several processes."""

import jax


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

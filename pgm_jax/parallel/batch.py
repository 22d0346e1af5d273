"""Batches and samples over the mesh: the leading axis is split over `data` and `fsdp` together."""

import math
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

_LEADING = ("data", "fsdp")


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a batch: leading axis over `("data", "fsdp")`, everything else whole.

    Args:
        mesh: a mesh made by `make_mesh`.

    Returns:
        The `NamedSharding`, for `in_shardings` and `out_shardings`.
    """
    return NamedSharding(mesh, PartitionSpec(_LEADING))


def shard_batch(mesh: Mesh, tree):
    """Turns this process's part of a batch into global arrays, split over `data` and `fsdp`.

    With one process the part is the whole batch. With several, each gives its own rows, and the global batch
    holds them in the order of the processes.

    Args:
        mesh: a mesh made by `make_mesh`.
        tree: pytree of host arrays (rows, ...) of this process.

    Returns:
        Pytree of global `jax.Array`s (rows of all processes, ...), dtypes as `jax.device_put` gives them.

    Raises:
        ValueError: if a leaf has no leading axis, or its rows do not divide over this process's devices.
    """
    sharding = batch_sharding(mesh)
    parts = math.prod(mesh.local_mesh.shape[axis] for axis in _LEADING)

    def place(path, leaf):
        leaf = np.asarray(leaf)
        name = jax.tree_util.keystr(path, simple=True, separator="/") or "the batch"
        if leaf.ndim == 0:
            raise ValueError(f"{name} is a scalar; every leaf of a batch needs a leading batch axis")
        if leaf.shape[0] % parts:
            raise ValueError(
                f"{name} has {leaf.shape[0]} rows in this process, which do not divide over its {parts} "
                f"parts of the mesh axes data and fsdp; use a multiple of {parts}"
            )
        return jax.make_array_from_process_local_data(sharding, leaf)

    return jax.tree_util.tree_map_with_path(place, tree)


def shard_samples(fn: Callable, mesh: Mesh) -> Callable:
    """Compiles a function of a leading sample axis, so that each device computes its own samples.

    Only the outputs are constrained: the compiler carries the split back to the draws, since sample i depends
    on `fold_in(key, i)` and on nothing else. The random draws are those of one device, bit for bit.

    Args:
        fn: function of arrays whose outputs all have a leading sample axis, such as
            `lambda key, params: sample(key, ..., shape=(n, h, w, c))`.
        mesh: a mesh made by `make_mesh`; data times fsdp must divide the number of samples.

    Returns:
        The jitted function of the same arguments.
    """
    return jax.jit(fn, out_shardings=batch_sharding(mesh))

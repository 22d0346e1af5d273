"""Meshes, sharding rules, global batches and multi-process start-up."""

from pgm_jax.parallel.batch import (
    batch_sharding as batch_sharding,
    shard_batch as shard_batch,
    shard_samples as shard_samples,
)
from pgm_jax.parallel.distributed import gathered as gathered, start as start, start_from as start_from
from pgm_jax.parallel.mesh import make_mesh as make_mesh
from pgm_jax.parallel.rules import (
    Rule as Rule,
    fsdp as fsdp,
    replicate as replicate,
    shardings as shardings,
)

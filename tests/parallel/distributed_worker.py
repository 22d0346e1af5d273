"""One of two processes of `test_multiprocess`: arguments are the port, the process number and a directory."""

import sys

import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 2)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from jax.sharding import NamedSharding, PartitionSpec as P  # noqa: E402

from pgm_jax import parallel  # noqa: E402
from pgm_jax.core import checkpoint  # noqa: E402


def values(array):
    return [np.asarray(shard.data) for shard in array.addressable_shards]


def check_checkpoint(mesh, path):
    def init(key):
        return {"w": jax.random.normal(key, (8, 4)), "step": jnp.int32(3), "key": key}

    shapes = jax.eval_shape(init, jax.random.key(0))
    out = parallel.shardings(shapes, [("w", parallel.fsdp(min_size=1)), (".*", parallel.replicate)], mesh)
    state = jax.jit(init, out_shardings=out)(jax.random.key(0))
    checkpoint.save(path, state, {"rows": 8}, step=1)
    checkpoint.save(path, state, {"rows": 8}, step=2, keep=1)
    other = parallel.shardings(shapes, [("w", P(None, ("data", "fsdp"))), (".*", P())], mesh)
    abstract = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, other)
    restored, meta = checkpoint.restore(path, abstract)
    assert meta == {"rows": 8} and checkpoint.steps(path) == [2]
    assert values(restored["w"])[0].shape == (8, 1)
    expected = jax.jit(init, out_shardings=other)(jax.random.key(0))
    assert all(
        np.array_equal(a, b) for a, b in zip(values(restored["w"]), values(expected["w"]), strict=True)
    )
    assert all(
        np.array_equal(jax.random.key_data(s.data), jax.random.key_data(jax.random.key(0)))
        for s in restored["key"].addressable_shards
    )
    try:
        checkpoint.save(path, {"local": jnp.ones(2)}, step=3)
    except ValueError as error:
        assert "local is local to one process" in str(error)
    else:
        raise AssertionError("an array of one process was accepted")


def main(port, process, path):
    parallel.start(f"127.0.0.1:{port}", 2, process)
    parallel.start()
    assert jax.process_count() == 2 and jax.device_count() == 4
    mesh = parallel.make_mesh(fsdp=2)
    local = np.arange(8.0, dtype=np.float32).reshape(4, 2) + 100 * process
    batch = parallel.shard_batch(mesh, {"x": local})
    assert batch["x"].shape == (8, 2)
    total = jax.jit(jnp.sum, out_shardings=NamedSharding(mesh, P()))(batch["x"])
    assert values(total)[0] == 2 * 28 + 800
    try:
        parallel.shard_batch(mesh, {"x": local[:3]})
    except ValueError as error:
        assert "3 rows in this process" in str(error) and "2 parts" in str(error)
    else:
        raise AssertionError("three rows were split over two devices")
    check_checkpoint(mesh, path)
    sys.stdout.write("passed\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])

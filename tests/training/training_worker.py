"""One of two processes of `test_fit_multiprocess`: arguments are the port, the process number and a directory."""

import os
import signal
import sys

import jax
import numpy as np
import optax
import training_toys as toys
from jax.sharding import NamedSharding, PartitionSpec as P

from pgm_jax import parallel, training
from pgm_jax.core import checkpoint

SHARDED = [("kernel", parallel.fsdp(min_size=1)), (".*", parallel.replicate)]


class Tagged(toys.Rows):
    """A process's rows, whose saved place says whose it is."""

    def get_state(self):
        return {"next": self.next, "process": self.process}

    def set_state(self, state):
        assert state["process"] == self.process
        super().set_state(state)


def fit(steps, process, processes, mesh, rules=training.REPLICATED, **options):
    return training.fit(
        toys.objective,
        optax.adam(1e-2),
        toys.init,
        Tagged(process=process, processes=processes),
        key=jax.random.key(4),
        steps=steps,
        ema=(toys.average(0.25),),
        carry=toys.CARRY,
        mesh=mesh,
        rules=rules,
        **options,
    )


def write(path, state):
    state = state.replace(key=jax.random.key_data(state.key))
    # Every device gets a whole copy, which this process can then read.
    whole = jax.jit(lambda tree: tree, out_shardings=NamedSharding(state.step.sharding.mesh, P()))(state)
    np.savez(path, *map(np.asarray, jax.tree.leaves(whole)))


def check_given_parameters(mesh):
    """Parameters and a carry given by value in both processes give the state that is made in place."""
    key = jax.random.key(4)
    values = toys.init(jax.random.fold_in(key, 0xFFFFFFFF))
    carry = {"key": jax.random.split(key), "level": 0.5}
    options = {"carry": carry, "mesh": mesh, "rules": SHARDED}
    given = training.create_state(key, values, optax.sgd(1.0), **options)
    assert given.params["in"]["kernel"].addressable_shards[0].data.shape == (5, 8)
    for leaf, value in zip(jax.tree.leaves(given.params), jax.tree.leaves(values), strict=True):
        np.testing.assert_array_equal(
            leaf.addressable_shards[0].data, value[leaf.addressable_shards[0].index]
        )
    kept = given.carry["key"].addressable_shards[0].data
    np.testing.assert_array_equal(jax.random.key_data(kept), jax.random.key_data(carry["key"]))


def main(port, process, path):
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 2)
    parallel.start(f"127.0.0.1:{port}", 2, process)
    mesh = parallel.make_mesh(data=2, fsdp=2)
    check_given_parameters(mesh)

    def stop(step, metrics, state):
        assert {s.data.shape for s in state.ema["half"]["in"]["kernel"].addressable_shards} == {(5, 8)}
        if process == 1 and step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    options = {"checkpoint": f"{path}/run", "log_every": 1}
    log = training.jsonl(f"{path}/metrics.jsonl")
    try:
        fit(10_000, process, 2, mesh, SHARDED, hooks=(stop, log), **options)
        raise AssertionError("the signal was not seen")
    except training.Interrupted as interrupted:
        stopped = interrupted.step
    assert checkpoint.steps(f"{path}/run") == [stopped] and stopped > 2
    places = [{"next": stopped, "process": number} for number in range(2)]
    assert checkpoint.read_meta(f"{path}/run")["positions"] == places
    write(f"{path}/{process}.npz", fit(stopped + 2, process, 2, mesh, SHARDED, hooks=(log,), **options))
    sys.stdout.write("passed\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])

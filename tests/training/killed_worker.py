"""One life of a run that `test_resume_killed` kills: arguments are a directory, the steps, the result's file."""

import os
import sys

import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 1)
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

import numpy as np  # noqa: E402
import optax  # noqa: E402
import training_toys as toys  # noqa: E402

from pgm_jax import parallel, training  # noqa: E402


def say(step, metrics, state):
    sys.stdout.write(f"{step}\n")
    sys.stdout.flush()


def main(directory, steps, result):
    state = training.fit(
        toys.objective,
        optax.adam(1e-2),
        toys.init,
        toys.Rows(),
        key=jax.random.key(2),
        steps=steps,
        ema=(toys.average(0.1),),
        carry=toys.CARRY,
        mesh=parallel.make_mesh(),
        checkpoint=directory,
        save_every=5,
        keep=2,
        hooks=(say, training.jsonl(f"{directory}.jsonl")),
        log_every=1,
        meta={"steps": "any"},
    )
    state = state.replace(key=jax.random.key_data(state.key))
    np.savez(result, *map(np.asarray, jax.tree.leaves(state)))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])

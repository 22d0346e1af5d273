"""What trainings on simulated pairs share: pairs that are kept beside the runs, their patches, and the run itself.

A pair is (2, height, width, channels): the image that the network reads, and the truth.
"""

import math
from pathlib import Path

import numpy as np
import optax

from pgm_jax import data, training
from pgm_jax.training import ema

PATCH, BATCH = 96, 8


def kept_pairs(path, make, total):
    """Pairs `make()(number)` for every number below `total`, made once and kept in a file."""
    path = Path(path)
    if not path.exists():
        simulate, found = make(), []
        for number in range(total):
            pair = np.stack([np.asarray(image) for image in simulate(number)])
            found.append(pair if np.iscomplexobj(pair) else pair.astype(np.float16))
            if (number + 1) % 20 == 0:
                print(f"{number + 1} of {total} pairs simulated", flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, pairs=np.stack(found))
    return np.load(path)["pairs"]


def patches(array, seed):
    """Endless batches of patches of the anatomy, mirrored at random; sample g is a function of (seed, g).

    Complex ones are turned by a random phase.
    """
    turns = np.iscomplexobj(array)

    def cut(number):
        rng = np.random.Generator(np.random.Philox(key=np.array([seed, number], np.uint64)))
        pair = array[rng.integers(len(array))]
        places = np.argwhere(np.abs(pair[1, ::4, ::4, 0]) > 0.1) * 4
        place = places[rng.integers(len(places))] - PATCH // 2 + rng.integers(-8, 9, 2)
        row, column = np.clip(place, 0, np.array(pair.shape[1:3]) - PATCH)
        patch = pair[:, row : row + PATCH, column : column + PATCH]
        patch = patch * np.exp(1j * rng.uniform(0, 2 * math.pi)) if turns else patch
        patch = patch.astype(np.complex64 if turns else np.float32)
        return patch[:, :, ::-1] if rng.random() < 0.5 else patch

    def draw(numbers):
        found = np.stack([cut(number) for number in numbers])
        return {"x0": found[:, 1], "cond": {"image": found[:, 0]}}

    return data.Batches(draw, BATCH, slice(0, BATCH), BATCH)


def optimiser(rate, steps, few):
    """Adam with warm-up and cosine; consistency tuning averages its squares over more steps."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, rate, 100, steps, 0.01 * rate)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule, b2=0.999 if few else 0.99))


def run(objective, tool, start, batches, path, steps, average, *, key, carry, meta):
    """Trains, or goes on from the last checkpoint in a folder."""
    training.fit(
        objective,
        tool,
        start,
        batches,
        key=key,
        steps=steps,
        ema=[ema.half_life(average)],
        carry=carry,
        checkpoint=path.resolve(),
        save_every=300,
        keep=2,
        hooks=[training.jsonl(path / "metrics.jsonl"), lambda *row: print(*row[:2], flush=True)],
        meta=meta,
        log_every=50,
    )

"""Fast-DDPM with 10 evaluations where the condition is no low-dose image: trained on people, tested on Colin27.

    python benchmarks/fast_ddpm.py train neighbours --out OUT        # a slice from those 3 mm above and below
    python benchmarks/fast_ddpm.py train activity --out OUT          # PET activity from the T1-weighted slice
    python benchmarks/fast_ddpm.py test neighbours --out OUT --json FILE --figure FILE.png

Activity is 1 in grey and 1/4 in white matter, of maps made from each head (`recipes.pet.tissues`), so the task is
that of the tissues. Beside it stand what needs no network: the mean of both neighbours, and the best function of
a voxel's own value. A run that is stopped goes on from its last checkpoint when it is called again.
"""

import argparse
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pgm_jax import data, metrics, networks, training
from pgm_jax.core import checkpoint
from pgm_jax.recipes import generation
from pgm_jax.recipes.mri import brain_slices
from pgm_jax.recipes.pet import tissues
from pgm_jax.report import Panel, comparison_figure
from pgm_jax.training import ema

PEOPLE, TEST = ("pycortex-s1", "mni152", "pydeface-mean"), "colin27"
# Voxels of 1 mm between a slice and either neighbour.
GAP = 3
CHANNELS = {"neighbours": 2, "activity": 1}
PATCH, BATCH, STEPS, RATE = 96, 8, 2500, 1e-3
DRAWS, BINS = 8, 64
GRID = generation.fast_ddpm(10)


def network_of(task):
    """The network of a task, which reads one slice or two."""
    told = networks.Conditions(image=CHANNELS[task])
    return networks.drunet(
        1, widths=(32, 64, 96, 128), encoder=(1, 1, 1, 2), decoder=(1, 1, 1), conditions=told
    )


def volume_of(name, task):
    """What is shown and what is wanted, (slices, rows, columns, 2): the head, and the head or its activity."""
    volume = data.load(name, progress=print)
    head = np.maximum(volume.array[..., 0] / np.percentile(volume.array, 99.5), 0).astype(np.float32)
    if task == "neighbours":
        return np.stack([head, head], -1)
    grey, white = tissues(name)
    scale = 255 if grey.units.endswith("x 255") else 1
    activity = (grey.array + white.array / 4)[..., 0] / scale
    if activity.shape != head.shape:
        raise ValueError(f"{name}: maps of {activity.shape} beside a head of {head.shape}: take one of 1 mm")
    return np.stack([head, activity.astype(np.float32)], -1)


def pair(planes, z, task):
    """Condition and target of slice z."""
    near = (z - GAP, z + GAP) if task == "neighbours" else (z,)
    return np.stack([planes[n, ..., 0] for n in near], -1), planes[z, ..., 1:]


def patches(volumes, task, seed):
    """Endless batches of patches along all three axes; sample g is a function of (seed, g)."""

    def cut(number):
        rng = np.random.Generator(np.random.Philox(key=np.array([seed, number], np.uint64)))
        while True:
            planes = np.moveaxis(volumes[rng.integers(len(volumes))], rng.integers(3), 0)
            z = rng.integers(GAP, len(planes) - GAP)
            row, column = (rng.integers(n - PATCH + 1) for n in planes.shape[1:3])
            shown, wanted = pair(planes[:, row : row + PATCH, column : column + PATCH], z, task)
            if (wanted > 0.1).mean() > 0.2:
                break
        gain, gamma = np.exp(rng.uniform(*np.log((0.8, 1.25)))), rng.uniform(0.8, 1.3)
        change = lambda x: gain * x**gamma
        wanted = change(wanted) if task == "neighbours" else wanted
        turned = (lambda x: x[:, ::-1]) if rng.random() < 0.5 else (lambda x: x)
        return turned(change(shown)), turned(wanted)

    def draw(numbers):
        shown, wanted = (np.stack(parts) for parts in zip(*map(cut, numbers), strict=True))
        return {"x0": signed(wanted), "cond": {"image": signed(shown)}}

    return data.Batches(draw, BATCH, slice(0, BATCH), BATCH)


def signed(x):
    """From [0, 1] to [-1, 1]."""
    return (2 * x - 1).astype(np.float32)


def parts():
    """Optimiser and averages."""
    rate = optax.warmup_cosine_decay_schedule(0.0, RATE, 100, STEPS, 0.01 * RATE)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate, b2=0.99)), [ema.half_life(200)]


def train(task, out):
    """Trains, or goes on."""
    network, path = network_of(task), Path(out) / task
    optimiser, averages = parts()
    training.fit(
        generation.objective_of(GRID, network),
        optimiser,
        network.init,
        patches([volume_of(name, task) for name in people(task)], task, 0),
        key=jax.random.key(0),
        steps=STEPS,
        ema=averages,
        checkpoint=path.resolve(),
        save_every=500,
        keep=2,
        hooks=[training.jsonl(path / "metrics.jsonl"), lambda *row: print(*row[:2], flush=True)],
        meta={"task": task, "steps": STEPS, "rate": RATE, "people": PEOPLE, "gap": GAP},
        log_every=50,
    )


def people(task):
    """Those of the training; an average face has no maps of tissue."""
    return PEOPLE if task == "neighbours" else PEOPLE[:2]


def test_slices(task, count):
    """Conditions and targets of evenly spaced slices of the test person, padded."""
    found, planes = brain_slices(TEST, count), volume_of(TEST, task)
    pairs = [pair(planes, z, task) for z in found.index]
    size = found.magnitude.shape[1:3]
    return tuple(data.pad_or_crop(np.stack(part), size) for part in zip(*pairs, strict=True))


def simple(task, shown):
    """What needs no network: the mean of the neighbours, or the mean activity of training voxels as bright."""
    if task == "neighbours":
        return shown.mean(-1, keepdims=True)
    heads = np.concatenate([volume_of(name, task).reshape(-1, 2) for name in people(task)])
    place = lambda x: np.clip((x * BINS / 1.25).astype(int), 0, BINS - 1)
    total, number = (
        np.bincount(place(heads[:, 0]), weights, BINS) for weights in (heads[:, 1], np.ones(len(heads)))
    )
    return (total / np.maximum(number, 1))[place(shown)].astype(np.float32)


def scored(found, wanted):
    """Mean PSNR and SSIM over slices; both images are 0 to 1."""
    rows = [
        (metrics.psnr(jnp.asarray(x), jnp.asarray(y), 1.0), metrics.ssim(jnp.asarray(x), jnp.asarray(y), 1.0))
        for x, y in zip(found, wanted, strict=True)
    ]
    return dict(
        zip(
            ("psnr", "ssim"), np.round(np.mean(np.asarray(rows, np.float64), axis=0), 3).tolist(), strict=True
        )
    )


def test(task, out, path, figure, count):
    """Rows of one task, and a picture of the middle slice."""
    shown, wanted = test_slices(task, count)
    network, (optimiser, averages) = network_of(task), parts()
    abstract = training.abstract_state(jax.random.key(0), network.init, optimiser, ema=averages)
    params = checkpoint.restore((Path(out) / task).resolve(), abstract)[0].ema[averages[0].name]
    program = jax.jit(
        lambda key, params, shown: (generation.translate(key, GRID, network, params, shown) + 1) / 2
    )
    compiled = program.lower(jax.random.key(0), params, signed(shown)).compile()
    begun = time.perf_counter()
    draws = [compiled(jax.random.key(0), params, signed(shown)).block_until_ready()]
    seconds = round((time.perf_counter() - begun) / count, 3)
    draws += [compiled(jax.random.key(n), params, signed(shown)) for n in range(1, DRAWS)]
    images = {
        "without a network": simple(task, shown),
        "Fast-DDPM, one draw": draws[0],
        f"Fast-DDPM, mean of {DRAWS}": np.mean(draws, axis=0),
    }
    rows = {name: scored(image, wanted) for name, image in images.items()} | {"seconds a slice": seconds}
    print(task, json.dumps(rows, indent=1))
    if path:
        result = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(result | {task: rows}, indent=1) + "\n")
    if figure:
        middle, window = count // 2, (0.0, 1.0)
        line = [Panel(np.asarray(shown[middle, ..., 0]), "shown", window)]
        line += [Panel(np.asarray(x[middle, ..., 0]), name, window) for name, x in images.items()]
        line.append(Panel(wanted[middle, ..., 0], "truth", window))
        comparison_figure([line], figure, [""], f"Colin27, {task}; window 0 to 1")


def main():
    """Trains or tests."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=("train", "test"))
    parser.add_argument("task", choices=tuple(CHANNELS))
    parser.add_argument("--out", required=True)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--slices", type=int, default=12)
    given = parser.parse_args()
    if given.verb == "train":
        return train(given.task, given.out)
    return test(given.task, given.out, given.json, given.figure, given.slices)


if __name__ == "__main__":
    main()

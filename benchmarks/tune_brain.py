"""Tunes every method of the brain demo on validation people, and stores the choice with its scores.

    python benchmarks/tune_brain.py
    python benchmarks/tune_brain.py --methods dds       # keeps what is stored for the baselines
    python benchmarks/tune_brain.py --tasks radial

The baselines are tuned first and over the wider range. Validation is `brain1` and `brain2`; the demo's test
subject is not read here.
"""

import argparse
import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import pgm_jax
from pgm_jax.recipes.mri import (
    Settings,
    brain_priors,
    brain_slices,
    radial_scan,
    reconstruct,
    scores,
    undersampled_scan,
)

VALIDATION = ("brain1", "brain2")
SLICES = 2
FILE = Path(pgm_jax.__file__).parent / "recipes" / "mri" / "undersampled_brain.json"
START = Settings(cg_steps=8, tv_weight=0.004, tv_steps=200, steps=30, cg=8)
TASKS = ("4", "8", "radial")
TABLE = {
    "cg_sense": {"cg_steps": (4, 5, 6, 7, 8, 10, 12)},
    "tv": {"tv_weight": (0.001, 0.002, 0.003, 0.004, 0.006, 0.008, 0.012), "tv_steps": (150, 400)},
    "tgv": {"tgv_weight": (0.001, 0.002, 0.003, 0.004, 0.006, 0.008, 0.012), "tgv_steps": (400,)},
    "dds": {"cg": (4, 10), "trust": (2.5, 4.0)},
}


def scans(task):
    """Validation scans, each with its voxel size."""
    found = []
    for number, name in enumerate(VALIDATION):
        slices = brain_slices(name, SLICES)
        for index, magnitude in enumerate(slices.magnitude):
            key, magnitude = jax.random.key(1000 * number + index), jnp.asarray(magnitude)
            if task == "radial":
                scan = radial_scan(key, magnitude)
            else:
                scan = undersampled_scan(key, magnitude, int(task), mask_seed=7)
            found.append((slices.spacing, scan))
    return found


def score(method, chosen, data):
    """Mean PSNR of the posterior mean (or the image) over the validation scans."""
    run = jax.jit(reconstruct(method, chosen))
    values = [
        scores(jnp.mean(run(jax.random.key(0), prior, scan), axis=0), scan.truth)["psnr"]
        for prior, scan in data
    ]
    return float(np.mean(values))


def tune(task, methods, chosen, best):
    """Greedy over methods, exhaustive within each."""
    data = [
        (brain_priors(scan.truth.shape, spacing, like=jnp.abs(scan.truth)), scan)
        for spacing, scan in scans(task)
    ]
    for method in methods:
        trials = []
        for values in itertools.product(*TABLE[method].values()):
            trial = chosen._replace(**dict(zip(TABLE[method], values, strict=True)))
            trials.append((score(method, trial, data), trial))
            print(task, method, values, round(trials[-1][0], 3), flush=True)
        best[method], chosen = max(trials, key=lambda pair: pair[0])
    if "dds" in methods:
        best["edm_dds"] = score("edm_dds", chosen, data)
    return chosen, best


def main():
    """Tunes the tasks and writes the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", choices=list(TABLE), default=list(TABLE))
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    given = parser.parse_args()
    table = json.loads(FILE.read_text())
    for task in given.tasks:
        start = Settings(**table["settings"][task]) if task in table["settings"] else START
        chosen, best = tune(task, given.methods, start, table["psnr"].get(task, {}))
        table["settings"][task], table["psnr"][task] = chosen._asdict(), best
        FILE.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()

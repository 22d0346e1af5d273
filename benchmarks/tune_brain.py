"""Tunes every method of the brain demo on validation people, and stores the choice with its scores.

    python benchmarks/tune_brain.py

The baselines are tuned first and over the wider range. Validation is `brain1` and `brain2`; the demo's test
subject is not read here.
"""

import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import pgm_jax
from pgm_jax.recipes.mri import Settings, brain_prior, brain_slices, reconstruct, scores, undersampled_scan

VALIDATION = ("brain1", "brain2")
SLICES = 2
FILE = Path(pgm_jax.__file__).parent / "recipes" / "mri" / "undersampled_brain.json"
START = Settings(cg_steps=8, tv_weight=0.004, tv_steps=200, steps=30, cg=5, eta=0.5)
TABLE = {
    "cg_sense": {"cg_steps": (4, 5, 6, 7, 8, 10, 12)},
    "tv": {"tv_weight": (0.001, 0.002, 0.003, 0.004, 0.006, 0.008, 0.012), "tv_steps": (150, 400)},
    "dds": {"steps": (20, 40), "cg": (5, 10, 20)},
    "edm_dds": {"eta": (0.0, 0.5, 0.85, 1.0)},
}


def scans(acceleration):
    """Validation scans with the prior of their size."""
    found = []
    for number, name in enumerate(VALIDATION):
        slices = brain_slices(name, SLICES)
        prior = brain_prior(slices.magnitude.shape[1:], slices.spacing, like=slices.magnitude)
        for index, magnitude in enumerate(slices.magnitude):
            key = jax.random.key(1000 * number + index)
            found.append((prior, undersampled_scan(key, jnp.asarray(magnitude), acceleration, mask_seed=7)))
    return found


def score(method, chosen, data):
    """Mean PSNR of the posterior mean (or the image) over the validation scans."""
    run = jax.jit(reconstruct(method, chosen))
    values = [
        scores(jnp.mean(run(jax.random.key(0), prior, scan), axis=0), scan.truth)["psnr"]
        for prior, scan in data
    ]
    return float(np.mean(values))


def tune(acceleration):
    """Greedy over methods, exhaustive within each."""
    data, chosen, best = scans(acceleration), START, {}
    for method, ranges in TABLE.items():
        trials = []
        for values in itertools.product(*ranges.values()):
            trial = chosen._replace(**dict(zip(ranges, values, strict=True)))
            trials.append((score(method, trial, data), trial))
            print(
                acceleration,
                method,
                dict(zip(ranges, values, strict=True)),
                round(trials[-1][0], 3),
                flush=True,
            )
        best[method], chosen = max(trials, key=lambda pair: pair[0])
    return chosen, best


def main():
    """Tunes both accelerations and writes the table."""
    table = {"validation": VALIDATION, "settings": {}, "psnr": {}}
    for acceleration in (4, 8):
        chosen, best = tune(acceleration)
        table["settings"][str(acceleration)] = chosen._asdict()
        table["psnr"][str(acceleration)] = best
    FILE.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()

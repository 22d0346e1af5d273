"""Tunes every method of the brain demo on validation people, and stores the choice with its scores.

    python benchmarks/tune_brain.py
    python benchmarks/tune_brain.py --methods dds       # keeps what is stored for the baselines
    python benchmarks/tune_brain.py --tasks radial --slices 1 --methods dds --cg 20 --trusts 4 --levels .05 .1 .2

The baselines are tuned first and over the wider range. Validation is `brain1` and `brain2`; the demo's test
subject is not read here.
"""

import argparse
import functools
import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import pgm_jax
from pgm_jax import load_prior
from pgm_jax.recipes.mri import (
    TASKS,
    Priors,
    Settings,
    brain_slices,
    reconstruct,
    scores,
    simulated_scan,
)

VALIDATION = ("brain1", "brain2")
FILE = Path(pgm_jax.__file__).parent / "recipes" / "mri" / "undersampled_brain.json"
START = Settings(cg_steps=8, tv_weight=0.004, tv_steps=200, steps=30, cg=8)
WEIGHTS = (0.001, 0.002, 0.003, 0.004, 0.006, 0.008, 0.012)
TABLE = {
    "cg_sense": {"cg_steps": (4, 5, 6, 7, 8, 10, 12, 16, 24, 32, 48, 64)},
    "tv": {"tv_weight": WEIGHTS, "tv_steps": (400,)},
    "tgv": {"tgv_weight": WEIGHTS, "tgv_steps": (400,)},
    "dds": {"cg": (4, 10), "trust": (2.5, 4.0, 8.0), "sigma_max": (1.0,)},
}
# The best weight of a baseline that iterates is tried again with as many, unless `--fast`.
ITERATIONS = 1000


def scans(task, count=2):
    """Validation scans of a task, `count` slices a person."""
    return [
        simulated_scan(jax.random.key(1000 * number + index), jnp.asarray(magnitude), task, mask_seed=7)
        for number, name in enumerate(VALIDATION)
        for index, magnitude in enumerate(brain_slices(name, count).magnitude)
    ]


@functools.cache
def program(method, chosen):
    """Compiled `(priors, scan, numbers) -> mean image`, with the settings in `numbers` traced."""

    def mean(priors, scan, numbers):
        images = reconstruct(method, chosen._replace(**numbers))(jax.random.key(0), priors, scan)
        return jnp.mean(images, axis=0)

    return jax.jit(mean)


def score(method, chosen, priors, found):
    """Mean PSNR of the posterior mean (or the image) over the validation scans."""
    # Weights and trust are traced, so that one program serves them all.
    traced = {name: value for name, value in chosen._asdict().items() if name.endswith(("weight", "trust"))}
    run = program(method, chosen._replace(**dict.fromkeys(traced, 0.0)))
    numbers = {name: jnp.float32(value) for name, value in traced.items()}
    return float(np.mean([scores(run(priors, scan, numbers), scan.truth)["psnr"] for scan in found]))


def tune(found, methods, chosen, best, fast):
    """Greedy over methods, exhaustive within each."""
    priors = Priors(None, load_prior("brain-t1-pfgmpp"), load_prior("brain-t1-edm"))
    for method in methods:
        trials = []
        for values in itertools.product(*TABLE[method].values()):
            trial = chosen._replace(**dict(zip(TABLE[method], values, strict=True)))
            trials.append((score(method, trial, priors, found), trial))
            print(method, values, round(trials[-1][0], 3), flush=True)
        best[method], chosen = max(trials, key=lambda pair: pair[0])
        if method in ("tv", "tgv") and not fast:
            longer = chosen._replace(**{f"{method}_steps": ITERATIONS})
            value = score(method, longer, priors, found)
            print(method, ITERATIONS, "iterations", round(value, 3), flush=True)
            best[method], chosen = max((best[method], chosen), (value, longer))
    if "dds" in methods:
        best["edm_dds"] = score("edm_dds", chosen, priors, found)
    return chosen, {method: round(value, 3) for method, value in best.items()}


def main():
    """Tunes the tasks and writes the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", choices=list(TABLE), default=list(TABLE))
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--slices", type=int, default=2, help="of each person")
    parser.add_argument("--weights", type=float, nargs="+", default=WEIGHTS, help="of tv and tgv")
    parser.add_argument("--trusts", type=float, nargs="+", default=TABLE["dds"]["trust"], help="of dds")
    parser.add_argument("--fast", action="store_true", help=f"no try of {ITERATIONS} iterations")
    parser.add_argument("--cg", type=int, nargs="+", default=TABLE["dds"]["cg"], help="of dds")
    parser.add_argument(
        "--levels", type=float, nargs="+", default=TABLE["dds"]["sigma_max"], help="dds starts at"
    )
    given = parser.parse_args()
    for method in ("tv", "tgv"):
        TABLE[method][f"{method}_weight"] = given.weights
    TABLE["dds"] = {"cg": given.cg, "trust": given.trusts, "sigma_max": given.levels}
    for task in given.tasks:
        print(task, flush=True)
        table, found = json.loads(FILE.read_text()), scans(task, given.slices)
        start = Settings(**table["settings"][task]) if task in table["settings"] else START
        chosen, best = tune(found, given.methods, start, table["psnr"].get(task, {}), given.fast)
        # Another task may have been stored in the meantime.
        table = json.loads(FILE.read_text())
        table["settings"][task], table["psnr"][task] = chosen._asdict(), best
        FILE.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()

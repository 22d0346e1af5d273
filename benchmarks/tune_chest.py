"""Tunes the methods of the chest recipe on the validation person, and stores the choice with its scores.

    python benchmarks/tune_chest.py --methods fbp tv tgv      # the baselines, first
    python benchmarks/tune_chest.py --methods dds             # keeps what is stored for the baselines

Validation is `lung1`; the test person, `lung2`, is not read here.
"""

import argparse
import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import pgm_jax
from pgm_jax import load_prior
from pgm_jax.recipes.ct import (
    TASKS,
    Settings,
    baseline,
    chest_scan,
    chest_slices,
    draws,
    scores,
)

VALIDATION, SLICES = "lung1", 2
FILE = Path(pgm_jax.__file__).parent / "recipes" / "ct" / "chest.json"
WEIGHTS, BALANCES, TRUSTS = (1.0, 3.0, 10.0, 30.0), (1.0, 10.0), (4.0,)
TABLE = {
    "fbp": {"filter": ("ram-lak", "hann"), "cutoff": (0.3, 0.5, 0.7, 1.0)},
    "tv": {"tv_weight": WEIGHTS, "tv_balance": BALANCES},
    "tgv": {"tgv_weight": WEIGHTS, "tgv_balance": BALANCES},
    "dds": {"trust": TRUSTS, "sigma_max": (0.25, 0.8), "cg": (20,)},
}
ITERATIONS = (300, 1000)


def scans(task):
    """Validation scans of a task."""
    slices = chest_slices(VALIDATION, SLICES)
    return [
        chest_scan(jax.random.key(n), fine, slices.pixel, TASKS[task]) for n, fine in enumerate(slices.fine)
    ]


def best(method, tables, chosen, found, prior):
    """The settings of the highest mean PSNR, tried exhaustively."""
    trials = []
    for values in itertools.product(*tables.values()):
        trial = chosen._replace(**dict(zip(tables, values, strict=True)))
        trials.append((score(method, trial, found, prior), trial))
        print(method, dict(zip(tables, values, strict=True)), round(trials[-1][0], 3), flush=True)
    return max(trials, key=lambda pair: pair[0])


def score(method, chosen, found, prior):
    """Mean PSNR of the image, or of the posterior mean, over scans."""
    if prior is None:
        # The weights are traced, so that one program serves them all.
        numbers = {k: v for k, v in chosen._asdict().items() if k.endswith(("weight", "balance"))}
        run = _compiled(method, chosen._replace(**dict.fromkeys(numbers, 0.0)))
        images = [run(scan, {k: jnp.float32(v) for k, v in numbers.items()}) for scan in found]
    else:
        # Few steps rank the settings as many do.
        plan = chosen._replace(steps=20)
        images = [draws(jax.random.key(7), prior, scan, plan, method).mean for scan in found]
    return float(np.mean([scores(image, s.truth)["psnr"] for image, s in zip(images, found, strict=True)]))


_PROGRAMS = {}


def _compiled(method, plan):
    if (method, plan) not in _PROGRAMS:
        _PROGRAMS[method, plan] = jax.jit(
            lambda scan, numbers: baseline(method, scan, plan._replace(**numbers))
        )
    return _PROGRAMS[method, plan]


def tune(task, methods, entry, name):
    """Greedy over methods; baselines that iterate are also tried with more iterations."""
    found, chosen = scans(task), Settings(**entry["settings"])
    prior = load_prior(name) if "dds" in methods else None
    for method in methods:
        value, trial = best(method, TABLE[method], chosen, found, prior if method == "dds" else None)
        if method in ("tv", "tgv"):
            more = [trial._replace(**{f"{method}_iterations": n}) for n in ITERATIONS]
            value, trial = max((score(method, m, found, None), m) for m in more)
        entry["psnr"][method], chosen = round(value, 3), trial
        print(task, method, entry["psnr"][method], chosen, flush=True)
    return entry | {"settings": chosen._asdict()}


def main():
    """Tunes the tasks and writes the table after each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", choices=list(TABLE), required=True)
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--weights", type=float, nargs="+", default=WEIGHTS, help="of tv and tgv")
    parser.add_argument("--balances", type=float, nargs="+", default=BALANCES, help="of tv and tgv")
    parser.add_argument("--trusts", type=float, nargs="+", default=TRUSTS, help="of dds")
    parser.add_argument("--prior", default="chest-ct-pfgmpp", help="shipped prior or file, for dds")
    given = parser.parse_args()
    for method in ("tv", "tgv"):
        TABLE[method] = {f"{method}_weight": given.weights, f"{method}_balance": given.balances}
    TABLE["dds"]["trust"] = given.trusts
    table = json.loads(FILE.read_text()) if FILE.exists() else {"settings": {}, "psnr": {}}
    for task in given.tasks:
        start = {"settings": table["settings"].get(task, Settings()._asdict())}
        entry = tune(task, given.methods, start | {"psnr": table["psnr"].get(task, {})}, given.prior)
        table["settings"][task], table["psnr"][task] = entry["settings"], entry["psnr"]
        FILE.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()

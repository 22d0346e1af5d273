"""The chest recipe on the test person, with the settings of the validation person: writes the table as JSON.

    python benchmarks/held_out_chest.py --json FILE
    python benchmarks/held_out_chest.py --long --tasks views_23 angle_90 --json FILE    # ten times the evaluations

Intervals are calibrated on the validation person and their coverage is counted on the test person.
"""

import argparse
import json
import time
from pathlib import Path

import jax
import numpy as np

from pgm_jax import load_prior, metrics
from pgm_jax.recipes.ct import (
    BASELINES,
    TASKS,
    baseline,
    chest_scan,
    chest_slices,
    draws,
    scores,
    settings,
)

TEST, VALIDATION = "lung2", "lung1"
LEVEL, CALIBRATION = 0.8, 19
# One of few views, one of a limited angle, one of few photons.
COVERED = ("views_23", "angle_120", "photons_4000")
# Pixels of the reconstruction above this count as body; the truth is not asked.
BODY = 0.1
METHODS = {"pfgmpp": "chest-ct-pfgmpp", "edm": "chest-ct-edm"}
# As the settings were tuned; `--long` has 50 and 500.
STEPS = 20
LONG = {
    "dds, 50": ("dds", 50, {}),
    "dds, 500": ("dds", 500, {}),
    "diffpir, 500": ("diffpir", 500, {"strength": 1.0, "cg": 5}),
    "dps, 500": ("dps", 500, {}),
    "moment matching, 500": ("moment_matching", 250, {}),
}


def scans(name, task, count):
    """Scans of evenly spaced slices of one person."""
    slices = chest_slices(name, count)
    return [
        chest_scan(jax.random.key(100 + n), fine, slices.pixel, TASKS[task])
        for n, fine in enumerate(slices.fine)
    ]


def mean_scores(images, found):
    """Mean of every score over slices."""
    rows = [scores(image, scan.truth) for image, scan in zip(images, found, strict=True)]
    return {name: round(float(np.mean([row[name] for row in rows])), 4) for name in rows[0]}


def posterior_rows(prior, found, chosen):
    """Scores of one draw and of the mean, seconds a slice, and the posteriors."""
    results, begun = [], time.perf_counter()
    for number, scan in enumerate(found):
        results.append(jax.block_until_ready(draws(jax.random.key(number), prior, scan, chosen)))
    second = (time.perf_counter() - begun) / len(found)
    return {
        "draw": mean_scores([r.draws[0] for r in results], found),
        "mean": mean_scores([r.mean for r in results], found),
        "seconds a slice": round(second, 2),
    }, results


def coverage(prior, task, chosen, results, found):
    """Share of body pixels inside `mean +- factor std`: with the factor of a normal law, and calibrated."""
    known = scans(VALIDATION, task, CALIBRATION)
    calibration = posterior_rows(prior, known, chosen)[1]
    gather = lambda rs, ss: (
        np.stack([r.mean for r in rs]),
        np.stack([r.std for r in rs]),
        np.stack([s.truth for s in ss]),
    )
    body = lambda arrays: arrays[0] > BODY
    before, after = gather(calibration, known), gather(results, found)
    factor = metrics.conformal_factor(*before, LEVEL, body(before))
    inside = lambda q: round(100 * (1 - float(np.mean(metrics.miscoverage(*after, q, body(after))))), 1)
    return {
        "nominal": 100 * LEVEL,
        "normal law": inside(1.645),
        "calibrated": inside(factor),
        "factor": factor,
    }


def table(task, count, covered, methods):
    """All methods of one task."""
    found, chosen = scans(TEST, task, count), settings(task)._replace(steps=STEPS)
    rows = {}
    for method in BASELINES:
        run, begun = jax.jit(lambda scan, m=method: baseline(m, scan, chosen)), time.perf_counter()
        images = [jax.block_until_ready(run(scan)) for scan in found]
        second = (time.perf_counter() - begun) / count
        rows[method] = {"mean": mean_scores(images, found), "seconds a slice": round(second, 2)}
        print(task, method, rows[method], flush=True)
    for name in methods:
        prior = load_prior(METHODS[name])
        rows[name], results = posterior_rows(prior, found, chosen)
        if name == "pfgmpp" and covered and task in COVERED:
            rows[name]["coverage"] = coverage(prior, task, chosen, results, found)
        print(task, name, rows[name], flush=True)
    return rows


def long_table(task, count):
    """Fifty evaluations beside five hundred, at D = inf, where every method is valid."""
    found, chosen, rows = scans(TEST, task, count), settings(task), {}
    prior = load_prior("chest-ct-edm")
    for name, (method, steps, options) in LONG.items():
        begun = time.perf_counter()
        plan = chosen._replace(steps=steps)
        images = [
            draws(jax.random.key(n), prior, s, plan, method, **options).mean for n, s in enumerate(found)
        ]
        second = (time.perf_counter() - begun) / count
        rows[name] = mean_scores(images, found) | {"seconds a slice": round(second, 1)}
        print(task, name, rows[name], flush=True)
    return rows


def main():
    """Writes the table after each task."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", required=True, type=Path)
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--slices", type=int, default=4)
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--no-coverage", action="store_true", help="leave out the calibration, 19 more scans")
    parser.add_argument("--priors", nargs="+", choices=list(METHODS), default=list(METHODS))
    given = parser.parse_args()
    rows = json.loads(given.json.read_text()) if given.json.exists() else {}
    for task in given.tasks:
        if given.long:
            rows[task] = long_table(task, given.slices)
        else:
            rows[task] = table(task, given.slices, not given.no_coverage, given.priors)
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()

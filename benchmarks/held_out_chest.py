"""The chest recipe on the test person, with the settings of the validation person: writes the table as JSON.

    python benchmarks/held_out_chest.py --json FILE
    python benchmarks/held_out_chest.py --long --tasks views_23 angle_90 --json FILE    # ten times the evaluations

Intervals are calibrated on the validation person and their coverage is counted on the test person.
"""

import jax
import numpy as np
from held_out import Intervals, coverage, mean_scores, options, timed, write

from pgm_jax import load_prior
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
# Method, sampler steps and options; Heun's step, of "dps" and "moment_matching", has two evaluations.
LONG = {
    "dds, 50": ("dds", 50, {}),
    "dds, 500": ("dds", 500, {}),
    "diffpir, 500": ("diffpir", 500, {"strength": 1.0, "cg": 5}),
    "dps, 500": ("dps", 250, {}),
    "moment matching, 500": ("moment_matching", 250, {}),
}


def scans(name, task, count):
    """Scans of evenly spaced slices of one person."""
    slices = chest_slices(name, count)
    return [
        chest_scan(jax.random.key(100 + n), fine, slices.pixel, TASKS[task])
        for n, fine in enumerate(slices.fine)
    ]


def posterior_rows(prior, found, chosen):
    """Scores of one draw and of the mean, seconds a slice, and the posteriors."""
    results, seconds = timed(lambda n, scan: draws(jax.random.key(n), prior, scan, chosen), found)
    return {
        "draw": mean_scores(scores, [r.draws[0] for r in results], found),
        "mean": mean_scores(scores, [r.mean for r in results], found),
        "seconds a slice": seconds,
    }, results


def intervals(results, found):
    """Mean and standard deviation of the draws, beside the truth."""
    return Intervals(
        np.stack([r.mean for r in results]),
        np.stack([r.std for r in results]),
        np.stack([s.truth for s in found]),
    )


def table(task, count, covered, methods, steps):
    """All methods of one task."""
    found, chosen = scans(TEST, task, count), settings(task)._replace(steps=steps)
    rows = {}
    for method in BASELINES:
        run = jax.jit(lambda scan, m=method: baseline(m, scan, chosen))
        images, seconds = timed(lambda number, scan, run=run: run(scan), found)
        rows[method] = {"mean": mean_scores(scores, images, found), "seconds a slice": seconds}
        print(task, method, rows[method], flush=True)
    for name in methods:
        prior = load_prior(METHODS[name])
        rows[name], results = posterior_rows(prior, found, chosen)
        if name == "pfgmpp" and covered and task in COVERED:
            known = scans(VALIDATION, task, CALIBRATION)
            calibration = intervals(posterior_rows(prior, known, chosen)[1], known)
            rows[name]["coverage"] = coverage(calibration, intervals(results, found), LEVEL, BODY)
        print(task, name, rows[name], flush=True)
    return rows


def long_table(task, count):
    """Fifty evaluations beside five hundred, at D = inf, where every method is valid."""
    found, chosen, rows = scans(TEST, task, count), settings(task), {}
    prior = load_prior("chest-ct-edm")
    for name, (method, steps, given) in LONG.items():
        plan = chosen._replace(steps=steps)
        run = lambda n, s, p=plan, m=method, g=given: draws(jax.random.key(n), prior, s, p, m, **g).mean
        images, seconds = timed(run, found)
        rows[name] = mean_scores(scores, images, found) | {"seconds a slice": seconds}
        print(task, name, rows[name], flush=True)
    return rows


def main():
    """Writes the table after each task."""
    parser = options(__doc__, TASKS, 4)
    parser.add_argument("--priors", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--steps", type=int, default=20, help="evaluations of a draw; as tuned by default")
    given = parser.parse_args()
    write(
        given.json,
        given.tasks,
        lambda task: (
            long_table(task, given.slices)
            if given.long
            else table(task, given.slices, not given.no_coverage, given.priors, given.steps)
        ),
    )


if __name__ == "__main__":
    main()

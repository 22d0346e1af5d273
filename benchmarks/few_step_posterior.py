"""Few-step DDS beside the 35 evaluations of its teacher, tuned on validation people, measured on the test people.

    python benchmarks/few_step_posterior.py chest --json FILE
    python benchmarks/few_step_posterior.py brain --json FILE

The levels of one, two and four evaluations are chosen by the PSNR of the mean of the draws on `lung1`, or `brain1`
and `brain2`; then one draw and the mean are scored on `lung2` or Colin27. Trust and CG steps are those of the
recipe.
"""

import argparse
import json
from pathlib import Path

import jax
import numpy as np
from held_out_brain import scans as brain_scans
from held_out_chest import scans as chest_scans

from pgm_jax import load_prior
from pgm_jax.priors import prior_names
from pgm_jax.recipes import ct, mri

DRAWS = 4
FIRST, RATIO = {"chest": (0.15, 0.4, 0.8), "brain": (0.04, 0.1, 0.25)}, (0.15, 0.4)
TASKS = {"chest": ("views_23", "views_60", "photons_4000"), "brain": (4, 8)}
PEOPLE = {"chest": (("lung1",), "lung2"), "brain": (("brain1", "brain2"), "colin27")}
PRIORS = {"chest": ("chest-ct-pfgmpp", "chest-ct-edm"), "brain": ("brain-t1-pfgmpp",)}


def draws_of(part, prior, scan, chosen, levels, number):
    """Draws of one scan, (draws, height, width, 1)."""
    key = jax.random.key(number)
    if part == "chest":
        return ct.draws(key, prior, scan, chosen, levels=levels).draws
    run = jax.jit(lambda key, prior, scan: mri.posterior_draws(key, prior, scan, chosen, levels))
    return run(key, prior, scan)


def psnr(part, prior, scans, chosen, levels=None):
    """Mean PSNR over scans of one draw and of the mean, in dB."""
    scores = (ct if part == "chest" else mri).scores
    rows = []
    for number, scan in enumerate(scans):
        images = draws_of(part, prior, scan, chosen, levels, number)
        pair = images[0], images.mean(0)
        rows.append([float(scores(image, scan.truth)["psnr"]) for image in pair])
    draw, mean = np.mean(rows, axis=0)
    return {"draw": round(float(draw), 2), "mean": round(float(mean), 2)}


def ladder(first, ratio, steps):
    """Falling levels of a few-step run."""
    return tuple(first * ratio**n for n in range(steps))


def table(part, task, count):
    """Rows of one task: the teacher at 35, and students at 1, 2 and 4 evaluations with their levels."""
    scans = {"chest": chest_scans, "brain": brain_scans}[part]
    validation = [scan for name in PEOPLE[part][0] for scan in scans(name, task, 1)]
    test = scans(PEOPLE[part][1], task, count)
    chosen = (ct if part == "chest" else mri).settings(task)._replace(draws=DRAWS, steps=35)
    # Levels are chosen with the first prior, and serve the other too.
    tuned = load_prior(f"{PRIORS[part][0]}-ect")
    score = lambda levels: psnr(part, tuned, validation, chosen, levels)["mean"]
    tried = lambda steps: sorted({ladder(f, r, steps) for f in FIRST[part] for r in RATIO})
    levels = {steps: max(tried(steps), key=score) for steps in (1, 2, 4)}
    rows = {"levels": {steps: [round(v, 4) for v in found] for steps, found in levels.items()}}
    for name in PRIORS[part]:
        rows[f"{name}, 35"] = psnr(part, load_prior(name), test, chosen)
        for steps, found in levels.items() if f"{name}-ect" in prior_names() else ():
            rows[f"{name}-ect, {steps}"] = psnr(part, load_prior(f"{name}-ect"), test, chosen, found)
    print(task, json.dumps(rows), flush=True)
    return rows


def main():
    """Writes the table of one part of the body."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=tuple(TASKS))
    parser.add_argument("--json", required=True, type=Path)
    parser.add_argument("--tasks", nargs="+")
    parser.add_argument("--slices", type=int, default=2)
    given = parser.parse_args()
    asked = [task for task in TASKS[given.part] if not given.tasks or str(task) in given.tasks]
    rows = json.loads(given.json.read_text()) if given.json.exists() else {}
    for task in asked:
        rows[str(task)] = table(given.part, task, given.slices)
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Few-step reconstruction beside 35 evaluations of the teacher, tuned on validation, measured on test people:
few-step DDS with new noise, plug-and-play without (rows "pnp"), and both with the students that
read the early TV image (rows "posterior").

    python benchmarks/few_step_posterior.py chest --json FILE
    python benchmarks/few_step_posterior.py brain --json FILE

The levels of one, two and four evaluations are chosen by the PSNR of the mean of the draws on `lung1`, or `brain1`
and `brain2`; then one draw and the mean are scored on `lung2` or Colin27. Trust and CG steps are those of the
recipe. The numbers of plug-and-play are searched at random, with a fixed seed, from the TV image of the recipe.
"""

import argparse
import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from held_out_brain import scans as brain_scans
from held_out_chest import scans as chest_scans

from pgm_jax import load_prior
from pgm_jax.operators import GaussianLikelihood
from pgm_jax.priors import prior_names
from pgm_jax.recipes import ct, mri
from pgm_jax.recipes.consistency_posterior import (
    FEW_DRAWS,
    FewSteps,
    PiccsStep,
    consistency_posterior,
    few_step_image,
)

DRAWS = 4
METHODS = ("dds", "pnp", "posterior")
TRIALS, TUNED = 240, 2
SHARE = PiccsStep._fields.index("share")
# Of the settings of the draws, which the TV image does not read: one compiled program serves them all.
UNREAD = {"draws": 1, "steps": 1}
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


def validation_scans(part, task, count=TUNED):
    """Scans of evenly spaced slices of the people who tune."""
    scans = {"chest": chest_scans, "brain": brain_scans}[part]
    return [scan for name in PEOPLE[part][0] for scan in scans(name, task, count)]


def posterior_rows(part, test, task, chosen):
    """Rows of the student that reads the early TV image: draws, and plug-and-play with the shipped numbers."""
    name = {"chest": "chest-ct-posterior", "brain": "brain-t1-posterior"}[part]
    room, prior, rows = ct if part == "chest" else mri, load_prior(name), {}
    given = read_by(part, test, chosen)
    rows["early tv"] = round(mean_psnr(part, [first for first, _ in given], test), 2)
    for steps in (1, 2):
        few = room.few_step_settings(f"{task}-{steps}")
        images = [plugged(prior, pair, jnp.asarray(few.steps), few[1:]) for pair in given]
        rows[f"{name}, pnp, {steps}"] = round(mean_psnr(part, images, test), 2)
        few = FEW_DRAWS._replace(levels=FEW_DRAWS.levels[:steps], cg=chosen.cg)
        found = [
            consistency_posterior(jax.random.key(n), prior, likelihood, first, few, DRAWS)
            for n, (first, likelihood) in enumerate(given)
        ]
        draw, mean = [x.draws[0] for x in found], [x.mean for x in found]
        pair = {"draw": mean_psnr(part, draw, test), "mean": mean_psnr(part, mean, test)}
        rows[f"{name}, draws, {steps}"] = {kind: round(value, 2) for kind, value in pair.items()}
    return rows


def read_by(part, scans, chosen):
    """Early TV image and likelihood of each scan."""
    if part == "chest":
        return [(ct.first_image(scan, chosen._replace(**UNREAD)), scan.likelihood()) for scan in scans]
    likelihood = lambda scan: GaussianLikelihood.create(scan.operator, scan.y, scan.noise_std)
    return [(mri.first_image(scan), likelihood(scan)) for scan in scans]


def simple_of(part, scan, chosen):
    """TV image and likelihood of a scan."""
    if part == "chest":
        return jax.jit(lambda scan: ct.baseline("tv", scan, chosen))(scan), scan.likelihood()
    run = jax.jit(mri.reconstruct("tv", chosen))
    likelihood = GaussianLikelihood.create(scan.operator, scan.y, scan.noise_std)
    return run(jax.random.key(0), None, scan)[0], likelihood


@functools.partial(jax.jit, static_argnums=3)
def plugged(prior, simple, numbers, correction):
    """Plug-and-play by one row of numbers for each evaluation."""
    start, likelihood = simple
    return few_step_image(prior, likelihood, start, FewSteps(tuple(numbers), *correction))


def mean_psnr(part, images, scans):
    """Mean PSNR over scans, in dB."""
    scores = (ct if part == "chest" else mri).scores
    return float(np.mean([scores(x, scan.truth)["psnr"] for x, scan in zip(images, scans, strict=True)]))


def searched(centre, score, trials=TRIALS):
    """Numbers of the highest score: factors of a normal law around the best so far, ever narrower.

    Those of PICCS have a share, which is at most 1.
    """
    rng, best = np.random.default_rng(0), None
    for trial in range(trials):
        width = max(0.08, 0.4 * 0.99**trial) if trial else 0.0
        numbers = (centre * np.exp(width * rng.normal(size=centre.shape))).astype(np.float32)
        if numbers.shape[1] == len(PiccsStep._fields):
            numbers[:, SHARE] = np.minimum(numbers[:, SHARE], 1.0)
        found = score(jnp.asarray(numbers))
        if best is None or found > best:
            best, centre = found, numbers
    return jnp.asarray(centre), best


def plugged_rows(part, validation, test, chosen):
    """Rows of plug-and-play, with the numbers found on the validation people."""
    simple = lambda scans: [simple_of(part, scan, chosen) for scan in scans]
    tuning, testing = simple(validation), simple(test)
    tuned = load_prior(f"{PRIORS[part][0]}-ect")
    rows = {"tv": round(mean_psnr(part, [first for first, _ in testing], test), 2)}
    images = lambda prior, simples, numbers: [
        plugged(prior, simple, numbers, ("prox", chosen.cg)) for simple in simples
    ]
    for steps in (1, 2, 4):
        score = lambda numbers: mean_psnr(part, images(tuned, tuning, numbers), validation)
        centre = np.tile([FIRST[part][0] / 2, 1.5, 4.0, 1.0], (steps, 1))
        numbers, _ = searched(centre, score)
        rows[f"pnp numbers, {steps}"] = np.round(np.asarray(numbers, np.float64), 4).tolist()
        for name in (f"{prior}-ect" for prior in PRIORS[part] if f"{prior}-ect" in prior_names()):
            found = mean_psnr(part, images(load_prior(name), testing, numbers), test)
            rows[f"{name}, pnp, {steps}"] = round(found, 2)
        print(rows, flush=True)
    return rows


def fresh_noise_rows(part, validation, test, chosen):
    """Rows of DDS: the teacher at 35, and students at 1, 2 and 4 evaluations with their levels."""
    # Levels are chosen with the first prior, and serve the other too.
    tuned = load_prior(f"{PRIORS[part][0]}-ect")
    score = lambda levels: psnr(part, tuned, validation, chosen, levels)["mean"]
    tried = lambda steps: sorted({ladder(f, r, steps) for f in FIRST[part] for r in RATIO})
    levels = {steps: max(tried(steps), key=score) for steps in (1, 2, 4)}
    rows = {"levels": {steps: [round(v, 4) for v in found] for steps, found in levels.items()}}
    for name in PRIORS[part]:
        for steps, found in levels.items() if f"{name}-ect" in prior_names() else ():
            rows[f"{name}-ect, {steps}"] = psnr(part, load_prior(f"{name}-ect"), test, chosen, found)
    return rows


def teacher_rows(part, test, chosen):
    """Rows of the teachers at 35 evaluations."""
    return {f"{name}, 35": psnr(part, load_prior(name), test, chosen) for name in PRIORS[part]}


def table(part, task, count, methods):
    """Rows of one task, and of the teacher."""
    scans = {"chest": chest_scans, "brain": brain_scans}[part]
    validation, test = validation_scans(part, task), scans(PEOPLE[part][1], task, count)
    chosen = (ct if part == "chest" else mri).settings(task)._replace(draws=DRAWS, steps=35)
    rows = teacher_rows(part, test, chosen)
    if "posterior" in methods:
        rows |= posterior_rows(part, test, task, chosen)
    if "dds" in methods:
        rows |= fresh_noise_rows(part, validation, test, chosen)
    if "pnp" in methods:
        rows |= plugged_rows(part, validation, test, chosen)
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
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    given = parser.parse_args()
    asked = [task for task in TASKS[given.part] if not given.tasks or str(task) in given.tasks]
    rows = json.loads(given.json.read_text()) if given.json.exists() else {}
    for task in asked:
        found = table(given.part, task, given.slices, given.methods)
        rows[str(task)] = rows.get(str(task), {}) | found
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()

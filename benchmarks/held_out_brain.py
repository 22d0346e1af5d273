"""The brain recipe on the test person, with the settings of the validation people: writes the table as JSON.

    python benchmarks/held_out_brain.py --json FILE --figure FILE.png
    python benchmarks/held_out_brain.py --long --tasks 4 --slices 1 --json FILE    # ten times the evaluations

Intervals of the magnitude are calibrated on as many slices of either validation person, and their coverage is
counted on the test person.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from held_out import Intervals, coverage, mean_scores, options, timed, write

from pgm_jax import load_prior
from pgm_jax.operators import GaussianLikelihood
from pgm_jax.recipes.ct import annealed
from pgm_jax.recipes.mri import (
    TASKS,
    Priors,
    brain_slices,
    reconstruct,
    scores,
    settings,
    simulated_scan,
    unpad,
)
from pgm_jax.reconstruction import cg_sense, posterior
from pgm_jax.report import Panel, comparison_figure

TEST, VALIDATION = "colin27", ("brain1", "brain2")
LEVEL, CALIBRATION = 0.8, 9
# Pixels of the posterior mean above this share of the 99.5th percentile count as head.
HEAD = 0.05
BASELINES = ("cg_sense", "tv", "tgv")
SAMPLERS = {"pfgmpp": "dds", "edm": "edm_dds"}
# Method, sampler steps and options; Heun's step, of "dps", has two evaluations.
LONG = {
    "dds, 50": ("dds", 50, {}),
    "dds, 500": ("dds", 500, {}),
    "diffpir, 500": ("diffpir", 500, {"strength": 1.0}),
    "dps, 500": ("dps", 250, {}),
}


def scans(name, task, count):
    """Scans of evenly spaced slices of one person, each with lines, phase and noise of its own."""
    return [
        simulated_scan(jax.random.key(100 + n), jnp.asarray(magnitude), task, mask_seed=100 + n)
        for n, magnitude in enumerate(brain_slices(name, count).magnitude)
    ]


def method_runs(method, chosen, priors, found):
    """Draws of every scan, a single image each for a baseline, and the seconds a slice."""
    run = jax.jit(reconstruct(method, chosen))
    return timed(lambda number, scan: run(jax.random.key(number), priors, scan), found)


def intervals(draws, found):
    """Mean and standard deviation of the magnitudes of draws, beside the truth."""
    absolute = [np.abs(x) for x in draws]
    return Intervals(
        np.stack([x.mean(axis=0) for x in absolute]),
        np.stack([x.std(axis=0, ddof=1) for x in absolute]),
        np.stack([np.abs(scan.truth) for scan in found]),
    )


def calibration(task, method, chosen, priors, count):
    """Intervals of the validation people, `count` slices of each, on a common field of view."""
    parts = []
    for name in VALIDATION:
        found = scans(name, task, count)
        parts.append(intervals(method_runs(method, chosen, priors, found)[0], found))
    size = np.max([part.mean.shape[1:3] for part in parts], axis=0)
    padded = [[unpad(array, size) for array in part] for part in parts]
    return Intervals(*(np.concatenate(arrays) for arrays in zip(*padded, strict=True)))


def table(task, count, steps, samplers, known, pictures):
    """All methods of one task; `known` slices of each validation person calibrate."""
    found, rows = scans(TEST, task, count), {}
    chosen = settings(task)._replace(steps=steps)
    priors = Priors(None, load_prior("brain-t1-pfgmpp"), load_prior("brain-t1-edm"))
    shown = {"truth": np.abs(found[count // 2].truth)}
    for method in (*BASELINES, *samplers):
        images, seconds = method_runs(method, chosen, priors, found)
        rows[method] = {"mean": mean_scores(scores, [x.mean(axis=0) for x in images], found)}
        rows[method]["seconds a slice"] = seconds
        shown[method] = np.abs(images[count // 2].mean(axis=0))
        if method in samplers:
            rows[method]["draw"] = mean_scores(scores, [x[0] for x in images], found)
        if method == "dds":
            shown["std"] = intervals(images, found).std[count // 2]
            if known:
                print(task, method, rows[method], flush=True)
                others = calibration(task, method, chosen, priors, known)
                rows[method]["coverage"] = coverage(others, intervals(images, found), LEVEL, HEAD)
        print(task, method, rows[method], flush=True)
    pictures[task] = {name: (image, rows.get(name)) for name, image in shown.items()}
    return rows


def long_table(task, count, draws):
    """Fifty evaluations beside five hundred, at D = inf, where every method is valid."""
    found, chosen, rows = scans(TEST, task, count), settings(task)._replace(draws=draws), {}
    prior = load_prior("brain-t1-edm")
    of_dds = {"gamma": annealed(chosen.trust)}
    for name, (method, steps, given) in LONG.items():
        given = given | (of_dds if method == "dds" else {}) | ({} if method == "dps" else {"cg": chosen.cg})

        def run(number, scan, method=method, steps=steps, given=given):
            likelihood = GaussianLikelihood.create(scan.operator, scan.y, scan.noise_std)
            start = cg_sense(scan.operator, scan.y, chosen.cg_steps)[0]
            return posterior(
                jax.random.key(number), prior, likelihood, method=method, steps=steps, draws=chosen.draws,
                start=start, sigma_min=chosen.sigma_min, sigma_max=chosen.sigma_max, **given,
            )  # fmt: skip

        results, seconds = timed(run, found)
        rows[name] = {
            "draw": mean_scores(scores, [r.draws[0] for r in results], found),
            "mean": mean_scores(scores, [r.mean for r in results], found),
            "seconds a slice": seconds,
        }
        print(task, name, rows[name], flush=True)
    return rows


def figure(pictures, path):
    """The middle slice: a row a task."""
    size = brain_slices(TEST, 1).size
    titles = {"tv": "TV", "tgv": "TGV", "dds": "mean of the draws", "std": "their standard deviation"}
    lines = []
    for shown in pictures.values():
        truth = unpad(shown["truth"][0], size)[..., 0]
        line = [Panel(truth, "truth", (0.0, float(truth.max())))]
        for name, title in titles.items():
            image, row = shown[name]
            image = unpad(image, size)[..., 0]
            window = (0.0, float(truth.max() if row else np.quantile(image, 0.999)))
            text = f"{title}\n{row['mean']['psnr']:.1f} dB" if row else title
            line.append(Panel(image, text, window, "gray" if row else "magma"))
        lines.append(line)
    labels = [f"{task}x" if task.isdigit() else task for task in pictures]
    comparison_figure(lines, path, labels, f"{TEST}: middle slice (PSNR: mean over all slices)")


def main():
    """Writes the table after each task, and the figure."""
    parser = options(__doc__, TASKS, 3)
    parser.add_argument("--figure", type=Path, help="truth, baselines, mean and spread of the middle slice")
    parser.add_argument("--steps", type=int, default=50, help="evaluations of a draw; --long has 50 and 500")
    parser.add_argument("--draws", type=int, default=2, help="of --long")
    parser.add_argument("--calibration", type=int, default=CALIBRATION, help="slices of each person")
    parser.add_argument("--priors", nargs="+", choices=list(SAMPLERS), default=list(SAMPLERS))
    given = parser.parse_args()
    if given.long:
        write(given.json, given.tasks, lambda task: long_table(task, given.slices, given.draws))
        return
    samplers, pictures = [SAMPLERS[name] for name in given.priors], {}
    known = 0 if given.no_coverage else given.calibration
    make = lambda task: table(task, given.slices, given.steps, samplers, known, pictures)
    write(given.json, given.tasks, make)
    if given.figure:
        figure(pictures, given.figure)


if __name__ == "__main__":
    main()

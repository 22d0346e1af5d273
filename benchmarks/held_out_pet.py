"""The PET recipe on the test person, with the settings of the validation person: writes the table as JSON.

    python benchmarks/held_out_pet.py --json FILE --figure FILE.png

Besides every method at its own best, OSEM's passes and filters, BSREM's weights and the trust of PET-DDS are swept,
and PSNR is compared at equal bias of the mean over grey matter and over the lesions.
"""

import argparse
import math
from pathlib import Path

import jax
import numpy as np
from held_out import mean_scores, timed, write
from tune_pet import bsrem_family, osem_family, scans

from pgm_jax import load_prior
from pgm_jax.core import require
from pgm_jax.recipes.pet import BASELINES, TASKS, at_matched_bias, baseline, bias, draws, scores, settings

TEST, SEED = "colin27", 100
TRUSTS = (1.0, 3.0, 8.0, 30.0)
# Percent, at which the curves are read.
BIASES = (10, 12, 15, 18, 20, 25, 30)
REGIONS = ("grey", "hot", "cold")
PRIORS = {"pfgmpp": "brain-pet-pfgmpp", "edm": "brain-pet-edm"}
# Label, prior and variant of `recipes.pet.VARIANTS`.
SAMPLERS = (
    ("pet_dds", "pfgmpp", "kept"),
    ("pet_dds, D = inf", "edm", "kept"),
    ("pet_dds, new noise", "pfgmpp", "fresh"),
    ("pet_dds, D = inf, published", "edm", "published"),
)


def mean_bias(images, found):
    """Mean over slices of the bias of every region, in percent."""
    rows = [bias(image, scan) for image, scan in zip(images, found, strict=True)]
    return {name: round(100 * float(np.mean([row[name] for row in rows])), 2) for name in REGIONS}


def row(images, found):
    """Scores and bias of a method."""
    return mean_scores(scores, images, found) | {"bias, %": mean_bias(images, found)}


def own_best(found, chosen):
    """Every method with its tuned settings."""
    rows = {}
    for method in BASELINES:
        run = jax.jit(lambda scan, m=method: baseline(m, scan, chosen))
        images, seconds = timed(lambda _, scan, run=run: run(scan), found)
        rows[method] = row(images, found) | {"seconds a slice": seconds}
    for label, prior, variant in SAMPLERS:
        prior = load_prior(PRIORS[prior])
        draw = lambda n, scan, p=prior, v=variant: draws(jax.random.key(n), p, scan, chosen, v)
        results, seconds = timed(draw, found)
        rows[label] = row([r.mean for r in results], found)
        one = mean_scores(scores, [r.draws[0] for r in results], found)
        # How far the spread of the draws is from the error that it should tell.
        error = np.sqrt(np.mean([(r.mean - s.truth) ** 2 for r, s in zip(results, found, strict=True)]))
        spread = np.sqrt(np.mean([r.std**2 for r in results]))
        rows[label] |= {"one draw": one["psnr"], "spread over error": round(float(spread / error), 3)}
        rows[label] |= {"seconds a slice": seconds}
    for name, values in rows.items():
        print(name, values, flush=True)
    return rows


def curves(found, chosen):
    """Bias and PSNR of every setting of each method: {method: [[setting, bias by region, PSNR], ...]}."""
    prior = load_prior(PRIORS["pfgmpp"])
    trusted = lambda n, scan, variant: {
        (trust,): draws(jax.random.key(n), prior, scan, chosen._replace(trust=trust), variant).mean
        for trust in TRUSTS
    }
    families = {
        "osem": [osem_family(scan) for scan in found],
        "bsrem": [bsrem_family(scan) for scan in found],
        "pet_dds": [trusted(n, scan, "kept") for n, scan in enumerate(found)],
        "pet_dds, new noise": [trusted(n, scan, "fresh") for n, scan in enumerate(found)],
    }
    points = {}
    for method, family in families.items():
        rows = {setting: row([f[setting] for f in family], found) for setting in family[0]}
        points[method] = [[list(s), r["bias, %"], r["psnr"]] for s, r in rows.items()]
    return points


def matched(points):
    """PSNR of each method where the size of its bias is a given one, by region and percent; None if never."""
    at = lambda found, region, size: at_matched_bias(
        [p[1][region] for p in found], [p[2] for p in found], size
    )
    shown = lambda value: None if math.isnan(value) else round(value, 2)
    return {
        region: {str(size): {m: shown(at(f, region, size)) for m, f in points.items()} for size in BIASES}
        for region in REGIONS
    }


def table(task, count, figure):
    """All of one task."""
    found, chosen = scans(task, TEST, count, SEED), settings(task)
    rows = own_best(found, chosen)
    points = curves(found, chosen)
    for method, found_points in points.items():
        found_points.append([["tuned"], rows[method]["bias, %"], rows[method]["psnr"]])
    compared = matched(points)
    print(task, compared, flush=True)
    if figure is not None:
        plot(points, figure.with_stem(f"{figure.stem}-{task}"))
    return {"own best": rows, "matched bias": compared, "curves": points}


def plot(points, path):
    """Bias of grey matter and of the hot lesion against PSNR."""
    pyplot = require("matplotlib.pyplot", "viz")
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharey=True)
    for axis, region in zip(axes, REGIONS, strict=False):
        for method, found in points.items():
            axis.plot([p[1][region] for p in found], [p[2] for p in found], "o", ms=3, label=method)
        axis.set(xlabel=f"bias of {region}, %", ylabel="PSNR, dB")
    axes[0].legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main():
    """Writes the table after each task."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", required=True, type=Path)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--slices", type=int, default=2)
    given = parser.parse_args()
    write(given.json, given.tasks, lambda task: table(task, given.slices, given.figure))


if __name__ == "__main__":
    main()

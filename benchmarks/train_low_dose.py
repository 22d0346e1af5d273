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
import optax
from prior_training import averaged
from train_chest_prior import PLAN

from pgm_jax import data, networks, training
from pgm_jax.core import checkpoint
from pgm_jax.processes import PFGMpp, precondition
from pgm_jax.recipes import generation
from pgm_jax.recipes.ct import chest_slices, low_dose_pair
from pgm_jax.training import ema, objectives

PATCH, BATCH = 96, 8
VARIANTS = 5
PHOTONS = (2e3, 4e4)
# Pixels of the simulated slices over those of the scan, so that sizes and noise vary.
SIZES = (0.85, 1.0, 1.15)
# ln(sigma): from what a hijack needs (.03 to .3) up to the noise from which the posterior is drawn.
LEVELS = (-1.6, 1.6)
STEPS = {"base": 2500, "tune": 600, "few": 600, "ddpm": 6000, "fast": 6000}
RATES = {"base": 5e-4, "tune": 2e-4, "few": 5e-5, "ddpm": 1e-3, "fast": 1e-3}
STAGES = 5
NETWORK = networks.drunet(**PLAN.network, conditions=networks.Conditions(image=1))


def pairs(out):
    """Low-dose images and truths of the training person, simulated once and kept beside the runs."""
    kept = Path(out) / "pairs.npz"
    if not kept.exists():
        slices = chest_slices("chest-ct")
        simulate = {
            size: jax.jit(lambda key, fine, n, size=size: low_dose_pair(key, fine, size * slices.pixel, n))
            for size in SIZES
        }
        rng, found = np.random.default_rng(0), []
        for variant in range(VARIANTS):
            for fine in slices.fine:
                size, photons = rng.choice(SIZES), np.exp(rng.uniform(*np.log(PHOTONS)))
                key = jax.random.key(len(found))
                found.append(np.stack(simulate[size](key, fine, np.float32(photons))).astype(np.float16))
            print(f"variant {variant + 1} of {VARIANTS} simulated", flush=True)
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez(kept, pairs=np.stack(found))
    return np.load(kept)["pairs"]


def patches(array, seed):
    """Endless batches of patches of the anatomy, mirrored at random; sample g is a function of (seed, g)."""

    def cut(number):
        rng = np.random.Generator(np.random.Philox(key=np.array([seed, number], np.uint64)))
        pair = array[rng.integers(len(array))]
        places = np.argwhere(pair[1, ::4, ::4, 0] > 0.1) * 4
        place = places[rng.integers(len(places))] - PATCH // 2 + rng.integers(-8, 9, 2)
        row, column = np.clip(place, 0, np.array(pair.shape[1:3]) - PATCH)
        patch = pair[:, row : row + PATCH, column : column + PATCH].astype(np.float32)
        return patch[:, :, ::-1] if rng.random() < 0.5 else patch

    def draw(numbers):
        found = np.stack([cut(number) for number in numbers])
        return {"x0": found[:, 1], "cond": {"image": found[:, 0]}}

    return data.Batches(draw, BATCH, slice(0, BATCH), BATCH)


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
    """Optimiser and averages of a stage."""
    rate = optax.warmup_cosine_decay_schedule(0.0, RATES[stage], 100, STEPS[stage], 0.01 * RATES[stage])
    optimiser = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adam(rate, b2=0.999 if stage == "few" else 0.99)
    )
    return optimiser, [ema.half_life(100 if stage in ("tune", "few") else 200)]


def finished(out, stage, D=math.inf, spacing=None):
    """The averaged parameters of a finished run."""
    optimiser, averages = parts(stage)
    carry = objectives.carry_of() if stage == "few" else ()
    abstract = training.abstract_state(jax.random.key(0), NETWORK.init, optimiser, ema=averages, carry=carry)
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
    optimiser, averages = parts(stage)
    seed = list(STEPS).index(stage)
    described = {"stage": stage, "D": str(given.D), "steps": STEPS[stage], "rate": RATES[stage]}
    training.fit(
        objectives.augmented(PLAN.augment, objective_of(stage, given.D, given.spacing), ("x0", "cond/image")),
        optimiser,
        start_of(stage, given.runs, given.out, given.D),
        patches(pairs(given.out), seed),
        key=jax.random.key(seed),
        steps=STEPS[stage],
        ema=averages,
        carry=objectives.carry_of() if stage == "few" else (),
        checkpoint=path.resolve(),
        save_every=300,
        keep=2,
        hooks=[
            training.jsonl(path / "metrics.jsonl"),
            lambda step, metrics, state: print(step, metrics, flush=True),
        ],
        meta=described | {"spacing": given.spacing if stage == "fast" else None},
        log_every=50,
    )


if __name__ == "__main__":
    main()

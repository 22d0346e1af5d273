"""Tunes a shipped prior into a consistency posterior: it reads an early TV image and needs one or two evaluations.

    python benchmarks/train_posterior.py brain --out OUT --D 64        # 4x to 8x, from brain-t1-pfgmpp
    python benchmarks/train_posterior.py chest --out OUT --D 128       # few views or photons, from chest-ct-pfgmpp

Scans of the prior's own people are simulated once and kept in OUT. 900 steps of denoising teach the network to
read the image, 450 of easy consistency tuning (ECT), at 4/3 of a step's price, to jump: 9.7 % of the prior's
training. ECT alone does not teach it to read: its weight is on the smallest levels, where the image says nothing
new. `export_posterior.py` tunes what comes out and writes the shipped files, `few_step_posterior.py` measures them.
A run that is stopped goes on when it is called again.
"""

import argparse
import functools
import importlib
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from pair_training import kept_pairs, optimiser, patches, run
from prior_training import averaged

from pgm_jax import data, networks, training
from pgm_jax.core import checkpoint
from pgm_jax.processes import PFGMpp, precondition
from pgm_jax.recipes import ct, mri
from pgm_jax.training import ema, objectives

# Steps, rate and half-life of the average of denoising ("read") and of ECT ("few"), the latter in three stages.
STAGES = {"read": (900, 5e-4, 60), "few": (450, 1e-4, 40)}
EVERY, COUNT = 150, 3
# ln(sigma): the TV image is .03 to .3 from the truth, and draws start there or a little above.
LEVELS = (-1.2, 1.2)
# Deviation at which the network takes the TV image for noisy. Its errors are about half as large, but not white:
# at .06 the untrained start trusts it more than the noisy image at levels where that is better.
SPREAD = 0.12
TASKS = ("views_23", "views_60", "photons_4000")
# Pixels of the simulated chest slices over those of the scan.
SIZES = (0.9, 1.1)
FIELD, ACCELERATIONS = 224, (4.0, 8.0)
PAIRS = {"brain": 240, "chest": 150}


def plan_of(part):
    """How the prior itself was trained."""
    return importlib.import_module(f"train_{part}_prior").PLAN


def brain_planes():
    """`(number, accelerations) -> scan` of random planes through the prior's people."""
    plan = plan_of("brain")
    heads = [(plan.prepared(name), step) for name, _, step in plan.sources]
    shares = np.array([weight for _, weight, _ in plan.sources])

    def simulate(number, accelerations=ACCELERATIONS):
        rng = np.random.default_rng((1, number))
        head, step = heads[rng.choice(len(heads), p=shares / shares.sum())]
        magnitude = rng.uniform(0.8, 1.25) * _plane(rng, head, step) ** rng.uniform(0.8, 1.3)
        acceleration = float(np.exp(rng.uniform(*np.log(accelerations))))
        key = jax.random.key(int(rng.integers(2**31)))
        return mri.undersampled_scan(key, jnp.asarray(magnitude[..., None]), acceleration, number)

    return simulate


def brain_pairs():
    """`number -> (TV image, truth)` of such planes."""
    planes, first = brain_planes(), jax.jit(mri.first_image)

    def simulate(number):
        scan = planes(number)
        return first(scan), scan.truth

    return simulate


def _plane(rng, head, step):
    """A plane turned, stretched and moved at random, whole, (FIELD, FIELD)."""
    from scipy import ndimage

    for _ in range(50):
        axis = int(rng.choice(3, p=(0.7, 0.15, 0.15)))
        plane = head.take(rng.integers(head.shape[axis]), axis=axis)
        if np.mean(plane > 0.1) > 0.2:
            break
    plane = plane[::-1] if axis else plane
    angle, scale = np.deg2rad(rng.uniform(-15, 15)), np.exp(rng.uniform(*np.log(step)))
    matrix = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = (np.array(plane.shape) - 1) / 2 + rng.uniform(-12, 12, 2)
    offset = middle - matrix @ np.full(2, (FIELD - 1) / 2)
    turned = ndimage.affine_transform(plane, matrix, offset, output_shape=(FIELD, FIELD), order=3)
    return np.maximum(turned, 0).astype(np.float32)


def chest_pairs():
    """`number -> (TV image, truth)` of slices of the prior's person."""
    slices = ct.chest_slices("chest-ct")

    @functools.partial(jax.jit, static_argnums=(2, 3))
    def pair(key, fine, task, size):
        scan = ct.chest_scan(key, fine, size * slices.pixel, ct.TASKS[task])
        return ct.first_image(scan, ct.settings(task)), scan.truth

    def simulate(number):
        rng = np.random.default_rng((1, number))
        fine = slices.fine[rng.integers(len(slices.fine))]
        return pair(jax.random.key(number), fine, TASKS[number % len(TASKS)], float(rng.choice(SIZES)))

    return simulate


def network_of(part):
    """The prior's network, fused with an image that it reads."""
    plan = plan_of(part)
    told = networks.Conditions(image=plan.network["channels"])
    return networks.fused_drunet(plan.sigma_data, SPREAD, **plan.network, conditions=told)


def folder(out, part, D, stage):
    """Where a run keeps its checkpoints."""
    return Path(out) / f"{part}-posterior-{D:g}-{stage}"


def finished(out, part, D, stage="few"):
    """The averaged parameters of a finished stage."""
    steps, rate, average = STAGES[stage]
    averages, few = [ema.half_life(average)], stage == "few"
    abstract = training.abstract_state(
        jax.random.key(0), network_of(part).init, optimiser(rate, steps, few), ema=averages,
        carry=objectives.carry_of() if few else (),
    )  # fmt: skip
    return checkpoint.restore(folder(out, part, D, stage).resolve(), abstract)[0].ema[averages[0].name]


def tune(part, D, out, stage, pairs):
    """Runs or resumes one stage."""
    plan, network, (steps, rate, average) = plan_of(part), network_of(part), STAGES[stage]
    scaling, law = precondition.edm(plan.sigma_data), objectives.levels.lognormal(*LEVELS)
    if stage == "few":
        objective = objectives.ect(
            PFGMpp(D), network, scaling, objectives.curricula.stages(EVERY, COUNT - 1), levels=law
        )
        start, carry = finished(out, part, D, "read"), objectives.carry_of()
    else:
        objective, carry = objectives.denoising(PFGMpp(D), network, scaling, law, stratified=True), ()
        prior = averaged(plan, out, D, math.inf)
        start = networks.grow(jax.eval_shape(network.init, jax.random.key(0)), prior, places=4)
    if part == "chest":
        # The brain's contrast is changed before the simulation.
        change = data.intensity((0.96, 1.04), (0.95, 1.05))
        objective = objectives.augmented(change, objective, ("x0", "cond/image"))
    seed = 3 + list(STAGES).index(stage)
    run(
        objective, optimiser(rate, steps, stage == "few"), start, patches(pairs, seed),
        folder(out, part, D, stage), steps, average, key=jax.random.key(seed), carry=carry,
        meta={"part": part, "D": str(D), "stage": stage, "rate": rate},
    )  # fmt: skip


def main():
    """Simulates the pairs, then trains both stages or goes on."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=tuple(PAIRS))
    parser.add_argument("--out", required=True)
    parser.add_argument("--D", type=float, required=True)
    given = parser.parse_args()
    kept = Path(given.out) / f"{given.part}-pairs.npz"
    pairs = kept_pairs(kept, {"brain": brain_pairs, "chest": chest_pairs}[given.part], PAIRS[given.part])
    for stage in STAGES:
        tune(given.part, given.D, given.out, stage, pairs)


if __name__ == "__main__":
    main()

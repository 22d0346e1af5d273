"""What the shipped priors share: PFGM++ at D = inf from nothing, then short runs at finite D, then runs that tune
these for few steps (`--few`), all resumable."""

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import optax

from pgm_jax import data, networks, training
from pgm_jax.core import checkpoint
from pgm_jax.processes import PFGMpp, precondition
from pgm_jax.training import ema, objectives


class Plan(NamedTuple):
    """How a prior is trained.

    Attributes:
        network: options of `networks.drunet`.
        sigma_data: standard deviation of the images for EDM's preconditioning.
        levels: mean and standard deviation of ln(sigma).
        patch: side of a patch in pixels.
        batch: patches of a step.
        base: steps and rate of the first run.
        tune: steps and rate of the runs that start from it.
        augment: `(key, x) -> x`.
        sources: name, share of the patches, and distance of their pixels in voxels.
        prepared: `name -> volume` for `data.Source`.
    """

    network: dict[str, Any]
    sigma_data: float
    levels: tuple[float, float]
    patch: int
    batch: int
    base: dict[str, float]
    tune: dict[str, float]
    augment: Callable
    sources: tuple
    prepared: Callable


# Stages of easy consistency tuning, in each of which pairs of levels come four times as close.
FEW_STAGES, FEW_BASE = 4, 4.0


def build(plan: Plan, D, start, few=False):
    """Objective, optimiser, averages, steps and the description of a run."""
    network = networks.drunet(**plan.network)
    stage = plan.base if start is None else plan.tune
    rate = optax.warmup_cosine_decay_schedule(0.0, stage["rate"], 200, stage["steps"], 0.01 * stage["rate"])
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate, b2=0.99))
    levels = objectives.levels.lognormal(*plan.levels)
    scaling = precondition.edm(plan.sigma_data)
    if few:
        stages = objectives.curricula.stages(stage["steps"] // FEW_STAGES, FEW_STAGES - 1)
        inner = objectives.ect(PFGMpp(D), network, scaling, stages, levels=levels, q=FEW_BASE)
    else:
        inner = objectives.denoising(PFGMpp(D), network, scaling, levels, stratified=True)
    objective = objectives.augmented(plan.augment, inner)
    meta = {
        "process": "PFGMpp",
        "D": str(D),
        "start": str(start),
        "network": ["drunet", plan.network],
        "sigma_data": plan.sigma_data,
        "levels": plan.levels,
        "patch": plan.patch,
        "batch": plan.batch,
        "plan": stage,
        "sources": plan.sources,
    } | ({"few": [FEW_STAGES, FEW_BASE]} if few else {})
    return network, objective, optimiser, [ema.half_life(400)], stage["steps"], json.loads(json.dumps(meta))


def folder(out, D, start, few=False):
    """Where a run keeps its checkpoints."""
    name = f"D-{D:g}" if start is None else f"D-{D:g}-from-{start:g}"
    return Path(out) / (f"{name}-few" if few else name)


def averaged(path, network, optimiser, averages, few=False):
    """The averaged parameters of a finished run."""
    carry = objectives.carry_of() if few else ()
    abstract = training.abstract_state(jax.random.key(0), network.init, optimiser, ema=averages, carry=carry)
    state, _ = checkpoint.restore(path.resolve(), abstract)
    return state.ema[averages[0].name]


def main(plan: Plan, description: str):
    """Runs or resumes one training."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", required=True)
    parser.add_argument("--D", type=float, default=math.inf)
    parser.add_argument("--start", type=float, help="D of the finished run to start from")
    parser.add_argument(
        "--few", action="store_true", help="tune the finished run of this D and start for few steps"
    )
    given = parser.parse_args()
    network, objective, optimiser, averages, steps, meta = build(plan, given.D, given.start, given.few)
    sources = [data.Source(plan.prepared(name), weight, step) for name, weight, step in plan.sources]
    seed = 1 if given.start is None else 2
    path = folder(given.out, given.D, given.start, given.few)
    start = network.init
    if given.few:
        start = averaged(folder(given.out, given.D, given.start), network, optimiser, averages)
    elif given.start is not None:
        start = averaged(folder(given.out, given.start, None), network, optimiser, averages)
    training.fit(
        objective,
        optimiser,
        start,
        data.oblique_patches(sources, plan.batch, plan.patch, seed=seed),
        key=jax.random.key(seed),
        steps=steps,
        ema=averages,
        carry=objectives.carry_of() if given.few else (),
        checkpoint=path.resolve(),
        save_every=500,
        keep=2,
        hooks=[
            training.jsonl(path / "metrics.jsonl"),
            lambda step, metrics, state: print(step, metrics, flush=True),
        ],
        meta=meta,
        log_every=50,
    )

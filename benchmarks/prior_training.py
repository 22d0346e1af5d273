"""What the shipped priors share: PFGM++ at D = inf from nothing, then short runs at finite D, then runs that tune
these for few steps (`--few ect`) or distil them (`--few ctm`), all resumable. The runs for few steps start from
the shipped priors where the runs behind these are not there."""

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import optax

from pgm_jax import data, load_prior, networks, samplers, training
from pgm_jax.core import checkpoint
from pgm_jax.processes import PFGMpp, karras, precondition
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
        shipped: name of the shipped priors without the kind, such as "chest-ct".
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
    shipped: str


# Easy consistency tuning: its steps cost 4/3 of a step of denoising, so 1100 of them are a tenth of the training.
# In each stage pairs of levels come twice as close, and the closer they are, the more a step moves both ends of
# a pair alike: the rate must fall with their distance, as the cosine does over the stages. Held up to the last
# stage a rate of 1e-4 ends in noise, with and without a floor, and so does a distance that falls by four. Levels
# reach farther up than those of denoising, since generation starts there.
# With a fifth stage images are sharper than the truth, .6 dB lost; with three they are too smooth, and their kernel
# distance is half as large again. The fourth is short: as long as the others it costs .3 dB.
ECT = {"steps": 1100, "rate": 5e-5, "stages": 4, "stage": 315, "q": 2.0, "levels": (-1.3, 1.7)}
CTM = {"steps": 1000, "rate": 1e-4, "knots": 18, "most": 4, "decay": 0.999}
FEW = {"ect": ECT, "ctm": CTM}
LOWEST, HIGHEST = 0.005, 20.0


def build(plan: Plan, D, start, few=None):
    """Objective, optimiser, averages, steps and the description of a run."""
    network = network_of(plan, few)
    stage = FEW[few] if few else plan.base if start is None else plan.tune
    rate = optax.warmup_cosine_decay_schedule(0.0, stage["rate"], 200, stage["steps"], 0.01 * stage["rate"])
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate, b2=0.999 if few else 0.99))
    objective = objectives.augmented(plan.augment, _objective(plan, PFGMpp(D), network, few))
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
    } | ({"few": few} if few else {})
    averages = [ema.half_life(100 if few else 400)]
    return network, objective, optimiser, averages, stage["steps"], json.loads(json.dumps(meta))


def network_of(plan, few=None):
    """The network of a run; that of jumps is also told where they go."""
    if few == "ctm":
        told = networks.Conditions(vector=networks.TARGET_FEATURES)
        return networks.drunet(**plan.network, conditions=told)
    return networks.drunet(**plan.network)


def _objective(plan, process, network, few):
    scaling = precondition.edm(plan.sigma_data)
    if few is None:
        levels = objectives.levels.lognormal(*plan.levels)
        return objectives.denoising(process, network, scaling, levels, stratified=True)
    if few == "ect":
        stages = objectives.curricula.stages(ECT["stage"], ECT["stages"] - 1)
        levels = objectives.levels.lognormal(*ECT["levels"])
        return objectives.ect(process, network, scaling, stages, levels=levels, q=ECT["q"])
    times = karras(CTM["knots"], LOWEST, HIGHEST, process=process)[:-1][::-1]
    teacher = objectives.Teacher(network_of(plan), scaling, samplers.heun())
    return objectives.ctm(
        process, network, scaling, objectives.Trajectory(times, CTM["most"]), teacher,
        rate=objectives.curricula.constant(CTM["decay"]),
    )  # fmt: skip


def first_state(plan, network, teacher, few):
    """Parameters and carry of a run for few steps: it starts as the denoiser that it tunes."""
    if few == "ect":
        return teacher, objectives.carry_of()
    params = networks.grow(jax.eval_shape(network.init, jax.random.key(0)), teacher)
    return params, objectives.carry_of(params, teacher)


def folder(out, D, start, few=None):
    """Where a run keeps its checkpoints."""
    name = f"D-{D:g}" if start is None else f"D-{D:g}-from-{start:g}"
    return Path(out) / (f"{name}-{few}" if few else name)


def averaged(plan, out, D, start, few=None):
    """The averaged parameters of a finished run; where there is none, those of the shipped prior that it made."""
    if few is None and start == math.inf and not folder(out, D, start).exists():
        prior = load_prior(f"{plan.shipped}-{'pfgmpp' if math.isfinite(D) else 'edm'}")
        if float(prior.card["process"][1]["D"]) == D:
            return prior.params
    network, _, optimiser, averages, _, _ = build(plan, D, start, few)
    shapes = jax.eval_shape(network_of(plan).init, jax.random.key(0))
    carry = jax.eval_shape(lambda given: first_state(plan, network, given, few)[1], shapes) if few else ()
    abstract = training.abstract_state(jax.random.key(0), network.init, optimiser, ema=averages, carry=carry)
    state, _ = checkpoint.restore(folder(out, D, start, few).resolve(), abstract)
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
        "--few", choices=tuple(FEW), help="tune or distil the finished run of this D and start for few steps"
    )
    given = parser.parse_args()
    network, objective, optimiser, averages, steps, meta = build(plan, given.D, given.start, given.few)
    sources = [data.Source(plan.prepared(name), weight, step) for name, weight, step in plan.sources]
    seed = 1 if given.start is None else 2
    path = folder(given.out, given.D, given.start, given.few)
    start, carry = network.init, ()
    if given.few:
        teacher = averaged(plan, given.out, given.D, given.start)
        start, carry = first_state(plan, network, teacher, given.few)
    elif given.start is not None:
        start = averaged(plan, given.out, given.start, None)
    training.fit(
        objective,
        optimiser,
        start,
        data.oblique_patches(sources, plan.batch, plan.patch, seed=seed),
        key=jax.random.key(seed),
        steps=steps,
        ema=averages,
        carry=carry,
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

"""Measures the few-step priors on validation people and writes the shipped files, in 8 bits a weight where
that costs nothing.

    python benchmarks/export_few_step.py chest --runs RUNS --D 128 inf
    python benchmarks/export_few_step.py brain --runs RUNS --D 64 inf
    python benchmarks/export_few_step.py chest --runs RUNS --D inf --few ctm

RUNS holds finished runs with `--few ect` (or ctm) of `train_chest_prior.py` or `train_brain_prior.py`. The card
has, for the student and its teacher, the PSNR of validation images denoised from three levels (1, 2 and 4
evaluations beside the teacher's 35), and the student's self-consistency error along the teacher's path.
`few_step_posterior.py` measures them in reconstruction.
"""

import argparse
import importlib
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
from prior_export import FOLDER, LEVELS, trained
from prior_training import ECT, FEW, averaged, network_of

from pgm_jax import samplers
from pgm_jax.core import real_size
from pgm_jax.priors import LearnedPrior, load_prior, save_prior
from pgm_jax.processes import karras

SIGMAS = (0.1, 0.3, 1.0)
# Last level of a few evaluations over the first: what is known of an image is not drowned in new noise.
LAST = 0.1
# What 8 bits a weight may cost, in dB; else 16. The brain student loses up to .15, and stays above its teacher.
LARGEST_COST = 0.2
NAMES = {"chest": "chest-ct", "brain": "brain-t1"}


def student_of(plan, runs, teacher, D, few):
    """The few-step prior of one D with the least card that works."""
    options = dict(plan.network)
    if few == "ctm":
        options["conditions"] = {"vector": 16}
    card = teacher.card | {"objective": few, "network": ["drunet", options]}
    params = averaged(plan, runs, D, math.inf, few)
    return LearnedPrior(
        params=params, process=teacher.process, network=network_of(plan, few), text=json.dumps(card)
    )


def denoised(prior, noisy, sigma, steps):
    """A noisy image brought to level 0: by jumps of a few-step prior, by Heun's steps of a denoiser."""
    process = prior.process
    span = {"sigma_min": LEVELS["sigma_min"]}
    if prior.objective == "denoising":
        sampler, denoise, grid = samplers.heun(), prior.denoiser(), karras(steps, sigma_max=sigma, **span)
    elif prior.objective == "ctm":
        sampler, denoise = samplers.ctm(), prior.jump_denoiser()
        grid = karras(steps + 1, sigma_max=sigma, **span)[:-1]
    else:
        sampler, denoise = samplers.consistency(), prior.denoiser()
        levels = process.time(sigma * np.geomspace(1.0, LAST, steps))
        grid = np.append(np.asarray(levels, np.float64), 0.0)
    return samplers.sample_one(jax.random.key(2), sampler, denoise, process, grid, x_init=noisy)


def denoising_table(prior, images, steps):
    """PSNR (peak 1) at each level and number of steps, mean over images, in dB."""
    table = {}
    for sigma in SIGMAS:
        for count in steps:
            run = jax.jit(lambda noisy, prior, s=sigma, n=count: denoised(prior, noisy, s, n))
            found = []
            for number, image in enumerate(images):
                noisy = prior.process.perturb(jax.random.key(number), image, jnp.float32(sigma))
                error = jnp.sum(jnp.abs(run(noisy, prior) - image) ** 2) / real_size(image)
                found.append(-10 * math.log10(float(error)))
            table.setdefault(str(sigma), {})[str(count)] = round(float(np.mean(found)), 2)
    return table


def self_consistency(student, teacher, images):
    """Root mean square of f(x_t, t) - f(x_s, s) at neighbours of 18 levels along the teacher's path, by level."""
    grid = karras(18, LEVELS["sigma_min"], 1.0, process=teacher.process)
    clean = student.denoiser()

    @jax.jit
    def along(image):
        start = teacher.process.perturb(jax.random.key(0), image, jnp.float32(grid[0]))
        keep = lambda state, t, s: state.x
        _, states = samplers.sample_one(
            jax.random.key(1), samplers.heun(), teacher.denoiser(), teacher.process, grid, x_init=start,
            trace=keep,
        )  # fmt: skip
        states = jnp.concatenate([start[None], states[:-1]])
        return jax.lax.map(lambda pair: clean(*pair), (states, jnp.asarray(grid[:-1], jnp.float32)))

    error = lambda f: jnp.sqrt(jnp.mean(jnp.abs(f[1:] - f[:-1]) ** 2, axis=(1, 2, 3)))
    rows = np.mean([error(along(image)) for image in images], axis=0)
    return {f"{level:.3g}": round(float(row), 4) for level, row in zip(grid[:-2], rows, strict=True)}


def main():
    """Exports the priors of one part of the body."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=tuple(NAMES))
    parser.add_argument("--runs", required=True)
    parser.add_argument("--D", type=float, nargs="+", required=True)
    parser.add_argument("--few", choices=tuple(FEW), default="ect")
    given = parser.parse_args()
    scripts = (importlib.import_module(f"{verb}_{given.part}_prior") for verb in ("train", "export"))
    plan, export = (next(scripts).PLAN, next(scripts))
    images = export.truths()
    for D in given.D:
        teacher = trained(plan, given.runs, D)
        student = student_of(plan, given.runs, teacher, D, given.few)
        kind = "pfgmpp" if math.isfinite(D) else "edm"
        teacher_name = f"{NAMES[given.part]}-{kind}"
        shipped = load_prior(teacher_name).card
        law = dict(zip(("level_mean", "level_std"), ECT["levels"], strict=True))
        how = {"objective": given.few, "steps": FEW[given.few]["steps"], "start": teacher_name}
        card = shipped | student.card | {
            "config": shipped["config"] | how | law,
            "unit": shipped["unit"],
            "start": teacher_name,
            "plan": FEW[given.few],
            "step": how["steps"],
            "command": f"python benchmarks/train_{given.part}_prior.py --out RUNS --D {D:g} --start inf "
            f"--few {given.few}",
            "denoising_psnr_db": {
                "35 evaluations of the teacher": denoising_table(teacher, images, (18,)),
                "few steps": denoising_table(student, images, (1, 2, 4)),
            },
            "self_consistency": self_consistency(student, teacher, images[:2]),
        }  # fmt: skip
        for absent in ("posterior_psnr_db", "audit", "loss"):
            card.pop(absent, None)
        path = FOLDER / f"{teacher_name}-{given.few}.npz"
        save_prior(path, student.params, card, bits=8)
        rounded, few = (
            denoising_table(load_prior(path), images, (1, 2)),
            card["denoising_psnr_db"]["few steps"],
        )
        cost = max(few[s][n] - rounded[s][n] for s in rounded for n in rounded[s])
        if cost <= LARGEST_COST:
            card["denoising_psnr_db"]["few steps, as shipped in 8 bits"] = rounded
        save_prior(path, student.params, card, bits=8 if cost <= LARGEST_COST else 16)
        print(path.name, path.stat().st_size, json.dumps(load_prior(path).card, indent=1), flush=True)


if __name__ == "__main__":
    main()

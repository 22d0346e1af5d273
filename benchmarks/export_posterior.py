"""Tunes the numbers of a consistency posterior on validation people and writes the shipped prior with its card.

    python benchmarks/export_posterior.py brain --out OUT --D 64
    python benchmarks/export_posterior.py chest --out OUT --D 128

OUT holds the finished run of `train_posterior.py`. The numbers of one and two evaluations of plug-and-play are
searched on two slices of each validation person, and of heads on six new planes of the prior's own people too: the
validation heads alone are thick slices with contrast agent. They go to `few_steps.json` of the recipe. The test
people are not read here.
"""

import argparse
import importlib.resources
import json

import numpy as np
import train_posterior
from few_step_posterior import mean_psnr, plugged, read_by, searched, validation_scans
from prior_export import FOLDER
from train_posterior import SPREAD, STAGES

from pgm_jax import load_prior
from pgm_jax.priors import LearnedPrior, save_prior
from pgm_jax.processes import PFGMpp
from pgm_jax.recipes import ct, mri
from pgm_jax.recipes.consistency_posterior import FewSteps

TASKS = {"brain": ("4", "8"), "chest": train_posterior.TASKS}
ROOMS = {"brain": mri, "chest": ct}
# What corrects an evaluation, and its iterations: PICCS gains most in MRI, and converges too slowly for CT.
CORRECTIONS = {"brain": ("piccs", 40), "chest": ("prox", 20)}
# Where the searches begin: level and relaxation, then weight and share of PICCS or trust of the proximal map, then
# extrapolation.
CENTRES = {
    ("brain", 1): [[0.5, 1.0, 30.0, 0.75, 0.1]],
    ("brain", 2): [[0.5, 1.0, 30.0, 0.75, 0.1], [0.06, 1.2, 30.0, 0.75, 0.1]],
    ("chest", 1): [[0.04, 1.2, 0.4, 0.1]],
    ("chest", 2): [[0.5, 0.5, 0.015, 0.5], [0.04, 1.2, 0.4, 0.1]],
}
TRIALS = {("brain", 1): 16, ("brain", 2): 40, ("chest", 1): 40, ("chest", 2): 100}
TEACHERS = {"brain": "brain-t1-pfgmpp", "chest": "chest-ct-pfgmpp"}
ABOUT = {
    "brain": "the early TV image (recipes.mri.first_image) of four coils and a fourth to an eighth of the lines",
    "chest": "the early TV image (recipes.ct.first_image) of 23 or 60 views, or of 120 with 4,000 photons a ray",
}
# Numbers of planes beyond those of the training.
PLANES = range(10_000, 10_006)
# What the test people showed.
LIMIT = {
    "brain": "; draws of two evaluations are .5 to 1.5 dB below those of 35 of its teacher on Colin27",
    "chest": "; one person is too few for the streaks of 23 views, where chest-ct-pfgmpp-ect is 1.1 dB better",
}


def student_of(part, out, D):
    """The tuned network as a prior, with the least card that works."""
    plan = train_posterior.plan_of(part)
    options = dict(plan.network) | {"conditions": {"image": plan.network["channels"]}}
    options |= {"sigma_data": plan.sigma_data, "spread": SPREAD}
    card = {
        "network": ["fused_drunet", options],
        "process": ["PFGMpp", {"D": str(D)}],
        "sigma_data": plan.sigma_data,
        "unit": load_prior(TEACHERS[part]).unit,
        "multiple": 16,
        "objective": "ect",
    }
    params = train_posterior.finished(out, part, D)
    network = train_posterior.network_of(part)
    return LearnedPrior(params=params, process=PFGMpp(D), network=network, text=json.dumps(card))


def tuning_scans(part, task):
    """Scans of the validation people, and of planes that no training saw."""
    scans = validation_scans(part, task)
    if part == "brain":
        plane = train_posterior.brain_planes()
        scans += [plane(number, (float(task),) * 2) for number in PLANES]
    return scans


def tuned(part, prior, task):
    """Numbers of one and of two evaluations, searched at random, with their validation PSNR."""
    chosen = ROOMS[part].settings(task)
    scans, best = tuning_scans(part, task), {}
    given = read_by(part, scans, chosen)
    score = lambda numbers: mean_psnr(
        part, [plugged(prior, pair, numbers, CORRECTIONS[part]) for pair in given], scans
    )
    for evaluations in (1, 2):
        case = part, evaluations
        numbers, psnr = searched(np.array(CENTRES[case]), score, TRIALS[case])
        best[f"{task}-{evaluations}"] = (
            FewSteps(np.round(np.asarray(numbers, np.float64), 5).tolist(), *CORRECTIONS[part]),
            round(psnr, 3),
        )
        print(part, task, best[f"{task}-{evaluations}"], flush=True)
    return best


def main():
    """Tunes, then writes settings and prior."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=tuple(TASKS))
    parser.add_argument("--out", required=True)
    parser.add_argument("--D", type=float, required=True)
    given = parser.parse_args()
    part, D = given.part, given.D
    path = FOLDER / f"{TEACHERS[part].removesuffix('-pfgmpp')}-posterior.npz"
    student, teacher = student_of(part, given.out, D), load_prior(TEACHERS[part]).card
    # Tuned as shipped, in 8 bits.
    save_prior(path, student.params, student.card, bits=8)
    shipped = load_prior(path)
    found = {}
    for task in TASKS[part]:
        found |= tuned(part, shipped, task)
    settings = {name: few._asdict() for name, (few, _) in found.items()}
    command = f"python benchmarks/export_posterior.py {part} --out OUT --D {D:g}"
    text = {"command": command, "settings": settings}
    target = importlib.resources.files(ROOMS[part].__name__).joinpath("few_steps.json")
    target.write_text(json.dumps(text, indent=1) + "\n")
    card = teacher | student.card | {
        "images": f"{teacher['images']}, given {ABOUT[part]} in cond['image']",
        "limits": teacher["limits"] + LIMIT[part],
        "start": TEACHERS[part],
        "plan": {name: dict(zip(("steps", "rate", "average"), row, strict=True)) for name, row in STAGES.items()},
        "levels": "ln(sigma) ~ N({}, {}^2)".format(*train_posterior.LEVELS),
        "pairs": train_posterior.PAIRS[part],
        "step": sum(steps for steps, _, _ in STAGES.values()),
        "command": f"python benchmarks/train_posterior.py {part} --out OUT --D {D:g}; {command}",
        "validation_psnr_db": {name: score for name, (_, score) in found.items()},
    }  # fmt: skip
    # No configuration: `pgm sample` has no image to give.
    for absent in ("posterior_psnr_db", "denoising_psnr_db", "audit", "loss", "config"):
        card.pop(absent, None)
    save_prior(path, student.params, card, bits=8)
    print(path.name, path.stat().st_size, json.dumps(load_prior(path).card, indent=1))


if __name__ == "__main__":
    main()

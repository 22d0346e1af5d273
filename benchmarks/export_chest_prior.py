"""Measures the trained chest priors on the validation person, audits their samples and writes the shipped files.

    python benchmarks/export_chest_prior.py --runs RUNS

D is the finite one whose posterior means have the higher PSNR on the validation person. Writes
`chest-ct-pfgmpp.npz` and `chest-ct-edm.npz` (D = inf, after the same number of steps) with their model cards. The
test person is not read here.
"""

import jax.numpy as jnp
from prior_export import export
from train_chest_prior import PLAN
from tune_chest import VALIDATION, scans, score

from pgm_jax.recipes.ct import chest_slices
from pgm_jax.recipes.ct.chest import Settings

# Before any tuning: `tune_chest.py` follows with the chosen prior.
PLAN_OF_DRAWS = Settings(tv_weight=10.0, tv_balance=10.0, trust=4.0, cg=20, sigma_max=0.6)
CHOOSING = {task: PLAN_OF_DRAWS for task in ("views_23", "views_60", "angle_120")}
FACTS = {
    "unit": "attenuation of water",
    "images": "2-D slices of a chest and upper abdomen CT with contrast agent, axial most often: 1 + HU / 1000",
    "voxel_mm": [1.08, 1.55],
    "people": "one (chest-ct), resampled to 0.94 mm from slices of 2.5 mm",
    "never trained on": ["lung1", "lung2"],
    "limits": "one person; other bodies, implants, pathologies and scan protocols are unknown to it, and it may "
    "draw plausible anatomy that is not there",
}


def truths():
    """Four slices of the validation person at the size of the tasks."""
    fine = chest_slices(VALIDATION, 4).fine
    return list(jnp.asarray(fine.reshape(4, 256, 2, 256, 2, 1).mean(axis=(2, 4))))


def psnr(prior):
    """Mean PSNR of the posterior means by task, in dB."""
    return {task: round(score("dds", plan, scans(task), prior), 3) for task, plan in CHOOSING.items()}


def volumes():
    """The person of the training."""
    return [PLAN.prepared(name) for name, _, _ in PLAN.sources]


if __name__ == "__main__":
    export(__doc__, PLAN, "chest-ct", "chest", psnr=psnr, truths=truths, volumes=volumes, facts=FACTS)

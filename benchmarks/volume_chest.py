"""DDS-3D and DiffusionMBIR on a chest volume of the test person: 64 slices of 256 x 256 from 23 views.

    python benchmarks/volume_chest.py --method dds_3d --steps 40 --folder RUN --json FILE
    python benchmarks/volume_chest.py --method diffusion_mbir --steps 40 --folder RUN2 --json FILE

A killed run goes on when it is called again with the same folder. The 61 slices of `lung2` are interpolated to 64
and scanned slice by slice; the file gets the estimate before the run, what it took, the peak memory and PSNR.
"""

import argparse
import json
import resource
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax import load_prior
from pgm_jax.operators import EachSlice, GaussianLikelihood
from pgm_jax.recipes.ct import (
    TASKS,
    WATER,
    annealed,
    baseline,
    chest_scan,
    chest_slices,
    scores,
    settings,
)
from pgm_jax.reconstruction import VOLUME_METHODS, posterior_volume

DEPTH, TASK = 64, "views_23"


def volume_scan():
    """Scans of all slices, stacked: truth, line integrals and weights (depth, ...)."""
    from scipy import ndimage

    slices = chest_slices("lung2")
    fine = ndimage.zoom(slices.fine, (DEPTH / len(slices.fine), 1, 1, 1), order=1)
    scan = jax.jit(lambda number, image: chest_scan(number, image, slices.pixel, TASKS[TASK]))
    return [scan(jax.random.key(n), image) for n, image in enumerate(fine)]


def main():
    """Runs one method and adds its row to the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--method", choices=list(VOLUME_METHODS), required=True)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--weight", type=float, default=20.0)
    parser.add_argument("--rho", type=float, default=200.0)
    parser.add_argument("--published", action="store_true", help="the network as the start of CG alone")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--prior", default="chest-ct-edm")
    given = parser.parse_args()
    chosen, found = settings(TASK), volume_scan()
    stack = lambda name: jnp.stack([getattr(scan, name) for scan in found])
    truth, start = stack("truth"), jnp.stack([baseline("fbp", scan, chosen) for scan in found])
    operator = EachSlice(WATER * found[0].beam, DEPTH)
    likelihood = GaussianLikelihood.create(operator, stack("y"), 1.0, stack("weights"))
    seen = []

    def watch(progress):
        seen.append(progress)
        print(progress, flush=True)

    begun = time.perf_counter()
    volume = posterior_volume(
        jax.random.key(0), load_prior(given.prior), likelihood, method=given.method, steps=given.steps,
        sigma_min=chosen.sigma_min, sigma_max=chosen.sigma_max, start=start, folder=given.folder.resolve(),
        watch=watch, weight=given.weight, rho=given.rho,
        gamma=None if given.published else annealed(chosen.trust),
    )  # fmt: skip
    took = time.perf_counter() - begun
    psnr = lambda images: round(
        float(np.mean([scores(i, t)["psnr"] for i, t in zip(images, truth, strict=True)])), 2
    )
    row = {
        "steps": given.steps,
        "evaluations": given.steps * VOLUME_METHODS[given.method].evaluations,
        "published": given.published,
        "weight": given.weight,
        "rho": given.rho,
        "psnr": psnr(volume),
        "psnr of FBP": psnr(start),
        "estimate before, s": seen[0].seconds_left if seen else None,
        "resumed at": seen[0].done if seen else None,
        "took with compilation, s": took,
        "peak memory, GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }
    print(row)
    rows = json.loads(given.json.read_text()) if given.json.exists() else []
    given.json.write_text(json.dumps([*rows, {"method": given.method} | row], indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Trains the chest CT prior that the library ships: PFGM++ at D = inf first, then short runs at finite D.

    python benchmarks/train_chest_prior.py --out RUNS                          # D = inf from nothing
    python benchmarks/train_chest_prior.py --out RUNS --D 64 --start inf       # 10 % more at D = 64
    python benchmarks/train_chest_prior.py --out RUNS --D inf --start inf      # the same 10 % at D = inf

A run that is stopped goes on from its last checkpoint when it is called again. One person is trained on;
`lung1` (validation) and `lung2` (test) are other people.
"""

import numpy as np
from prior_training import Plan, main

from pgm_jax import data

# mm; the volume is made isotropic so that oblique slices are slices.
SPACING = 0.9375


def prepared(name):
    """One chest as attenuation relative to water, isotropic."""
    from scipy import ndimage

    volume = data.load(name, progress=print)
    relative = np.maximum((volume.array[..., 0] + 1000) / 1000, 0)
    # The detail that pixels of 1.2 mm average away would come back as noise.
    smooth = ndimage.gaussian_filter(relative, (0, 0.6, 0.6))
    return ndimage.zoom(smooth, np.divide(volume.spacing, SPACING), order=3).astype(np.float32)


PLAN = Plan(
    network={"channels": 1, "widths": (48, 96, 144, 192), "encoder": (1, 1, 1, 2), "decoder": (1, 1, 1)},
    sigma_data=0.5,
    # ln(sigma): few views and missing angles leave errors of 0.01 to 1 open (10 to 1000 HU).
    levels=(-2.3, 1.5),
    patch=96,
    batch=8,
    base={"steps": 14000, "rate": 1e-3},
    tune={"steps": 1400, "rate": 2e-4},
    augment=data.intensity((0.96, 1.04), (0.9, 1.1)),
    sources=(("chest-ct", 1.0, (1.15, 1.65)),),
    prepared=prepared,
    shipped="chest-ct",
)


if __name__ == "__main__":
    main(PLAN, __doc__)

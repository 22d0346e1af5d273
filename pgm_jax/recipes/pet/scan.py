"""Simulated PET scans of brain slices: real anatomy, made-up activity with lesions, two count levels.

No package ships PET data. The tissues are those of real heads; activity, skull, scanner and counts are simulated.
Counts come from pixels of 1 mm with exact areas, and the reconstruction has pixels of 2 mm and line integrals:
the model is not its own proof.
"""

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import struct

from pgm_jax import data, operators

FIELD, PIXEL = 256, 1.0
"""Pixels of a simulated slice along each side, and their size in mm."""
RATIO = 4.0
"""Activity of grey over white matter."""
SUBSETS, RESOLUTION, EFFICIENCY_STD = 12, 5.0, 0.1
# Lesions: radius in mm, and activity over that of white matter, one in white and one in grey matter.
_RADIUS, _HOT, _COLD = 7.0, 6.0, 1.0
# Slices above and below one that its head is made of: the reach of skull and scalp.
_SLAB = 21
# Smooth variation of the activity: amplitude and period in mm along rows and columns.
_VARIATION, _PERIOD = 0.08, 170.0


class Task(NamedTuple):
    """What is scanned.

    Attributes:
        trues: expected true coincidences of the slice.
        views: number of parallel views over 180 degrees, a multiple of 12.
        scatter: scattered over true coincidences.
        randoms: random over true coincidences.
    """

    trues: float
    views: int = 144
    scatter: float = 0.3
    randoms: float = 0.5


TASKS = {"trues_1000000": Task(1e6), "trues_100000": Task(1e5)}
"""Tasks by name."""


class BrainSlices(NamedTuple):
    """Axial slices of one brain on pixels of 1 mm.

    Attributes:
        activity: (n, 256, 256, 1) float32; white matter is about 1, grey matter 4.
        attenuation: likewise, in 1/mm at 511 keV.
        regions: {"grey", "hot", "cold"}: (n, 256, 256, 1) share of healthy grey matter and of the lesions.
        index: (n,) z indices.
    """

    activity: np.ndarray
    attenuation: np.ndarray
    regions: dict
    index: np.ndarray


class PETScan(struct.PyTreeNode):
    """One scan of a slice with its truth.

    Attributes:
        truth: (128, 128, 1) activity; white matter is about 1.
        operator: `PET` of such images, in counts.
        y: (views, bins, 1) coincidences.
        background: expected scatter and randoms.
        regions: {"grey", "hot", "cold"}: (128, 128, 1) share of a pixel in each.
    """

    truth: Any
    operator: Any
    y: Any
    background: Any
    regions: Any

    def likelihood(self, unit=1.0):
        """Returns the `PoissonEmission` of images in units of the activity `unit`."""
        scaled = self.operator.replace(factors=unit * self.operator.factors)
        return operators.PoissonEmission.create(scaled, self.y, self.background)


def tissues(name, progress=None):
    """Loads or makes the maps of grey and white matter of a named T1-weighted brain at 1 mm.

    Args:
        name: "mni152", whose maps are published, or a data set that is segmented by `data.tissue_maps`.
        progress: optional function of a line, told about a download.

    Returns:
        `(grey, white)`, two `Volume`.

    Raises:
        DataError: if the data set is unknown, cannot be fetched, or shows no head.
    """
    if name == "mni152":
        return tuple(data.load(f"mni152-{tissue}", progress=progress) for tissue in ("gm", "wm"))
    from scipy import ndimage

    volume = data.load(name, progress=progress)
    steps = np.divide(volume.spacing, PIXEL)
    if np.abs(steps - 1).max() > 0.05:
        array = ndimage.zoom(volume.array[..., 0], steps, order=3)[..., None]
        volume = volume._replace(array=array, spacing=(PIXEL,) * 3)
    return data.tissue_maps(volume)


def brain_slices(name, count, progress=None) -> BrainSlices:
    """Takes evenly spaced axial slices of a brain and gives them activity, a skull and two lesions.

    Activity is `data.pet_phantom` with grey over white matter of 4, times a smooth field of 8 %, with a hot
    sphere in the white matter of one half and a cold one in the grey matter of the other, 14 mm wide. Slices
    are those in which the brain has three quarters of its largest area.

    Args:
        name: see `tissues`.
        count: number of slices.
        progress: optional function of a line.

    Returns:
        `BrainSlices`.

    Raises:
        DataError: see `tissues`, or for more slices than there are.
    """
    maps = [data.pad_or_crop(_share(volume), (FIELD, FIELD)) for volume in tissues(name, progress)]
    area = (maps[0] + maps[1]).sum(axis=(1, 2, 3))
    found = np.flatnonzero(area > 0.75 * area.max())
    found = found[(found >= _SLAB) & (found < len(area) - _SLAB)]
    if not 1 <= count <= len(found):
        raise data.DataError(f"{name} has {len(found)} slices with enough brain: ask for 1 to {len(found)}")
    index = found[np.linspace(0, len(found) - 1, count + 2).round().astype(int)[1:-1]]
    made = [_phantom(*(m[z - _SLAB : z + _SLAB + 1] for m in maps), z) for z in index]
    activity, attenuation, *regions = (np.stack(parts) for parts in zip(*made, strict=True))
    return BrainSlices(activity, attenuation, dict(zip(("grey", "hot", "cold"), regions, strict=True)), index)


def _share(volume):
    return volume.array / 255 if volume.units.endswith("x 255") else volume.array


def _phantom(grey, white, seed):
    """Activity, attenuation and regions of the middle slice of a slab."""
    volumes = [
        data.Volume(slab, (PIXEL,) * 3, np.eye(4), "probability", tissue)
        for slab, tissue in ((grey, "grey"), (white, "white"))
    ]
    left = np.arange(FIELD) < FIELD // 2
    hot, cold = _deepest(white[_SLAB], left), _deepest(grey[_SLAB], ~left)
    spots = [((0.0, *hot), _RADIUS, _HOT), ((0.0, *cold), _RADIUS, _COLD)]
    phantom = data.pet_phantom(*volumes, ratio=RATIO, lesions=spots)
    line = (np.arange(FIELD) - (FIELD - 1) / 2) * PIXEL
    phase = np.random.default_rng(seed).uniform(0, 2 * np.pi, (2, 1))
    rows, columns = _VARIATION * np.sin(2 * np.pi * line / _PERIOD + phase)
    masks = [(np.hypot(line[:, None] - r, line[None] - c) <= _RADIUS)[..., None] for r, c in (hot, cold)]
    lesion = masks[0] | masks[1]
    field = np.where(lesion, 1, np.exp(rows[:, None] + columns[None])[..., None])
    activity = (phantom.activity.array[_SLAB] * field).astype(np.float32)
    healthy = np.where(lesion, 0, grey[_SLAB])
    return activity, phantom.attenuation.array[_SLAB], healthy, *(m.astype(np.float32) for m in masks)


def _deepest(share, half):
    """The place of one half, in mm from the middle, around which there is most of a tissue."""
    from scipy import ndimage

    dense = np.where(half, ndimage.gaussian_filter(share[..., 0], _RADIUS / PIXEL / 2), 0)
    place = np.unravel_index(dense.argmax(), dense.shape)
    return tuple((n - (FIELD - 1) / 2) * PIXEL for n in place)


def brain_scan(key, slices: BrainSlices, number: int, task: Task) -> PETScan:
    """Simulates the scan of one slice, `y ~ Poisson(A activity + scatter + randoms)`.

    Detectors differ by 10 %, the resolution is 5 mm, and views have as many bins as the reconstruction has rows.

    Args:
        key: PRNG key of the counts.
        slices: `BrainSlices`; of any even size.
        number: which of them.
        task: `Task`.

    Returns:
        `PETScan`.

    Raises:
        ValueError: if 12 does not divide the views.
    """
    if task.views % SUBSETS:
        raise ValueError(f"{task.views} views: give a multiple of the {SUBSETS} subsets")
    activity, attenuation = (jnp.asarray(a[number]) for a in (slices.activity, slices.attenuation))
    bins = activity.shape[0] // 2
    efficiency = np.random.default_rng(0).lognormal(0, EFFICIENCY_STD, (task.views, bins, 1))
    efficiency = efficiency.astype(np.float32)
    exact = _scanner(task.views, bins, 1)
    fine = operators.PET.create(exact[0], attenuation=attenuation, normalisation=efficiency, psf=exact[1])
    made = operators.simulate_scan(
        key, fine, activity, task.trues, scatter=task.scatter, randoms=task.randoms
    )
    model = _scanner(task.views, bins, 2)
    operator = operators.PET.create(
        model[0], attenuation=_pairs(attenuation), normalisation=efficiency * made.scale, psf=model[1]
    )
    regions = {name: _pairs(jnp.asarray(share[number])) for name, share in slices.regions.items()}
    return PETScan(_pairs(activity), operator, made.y, made.background, regions)


@functools.cache
def _scanner(views, bins, width):
    """Projector and blur of images whose pixels are `width` mm wide: the scanner itself at 1 mm, its model at 2."""
    geometry = operators.Parallel(np.arange(views) * np.pi / views, bins=bins, spacing=2 * PIXEL)
    n = 2 * bins // width
    grid = operators.ImageGrid((n, n), width * PIXEL)
    kind = {"footprint": "strip"} if width == 1 else {"subsets": SUBSETS}
    blur = operators.GaussianPSF.create((n, n, 1), fwhm=RESOLUTION, spacing=width * PIXEL)
    return operators.ParallelBeam(grid, geometry, **kind), blur


def _pairs(image):
    """Means over 2 x 2 pixels."""
    height, width, channels = image.shape
    return image.reshape(height // 2, 2, width // 2, 2, channels).mean(axis=(1, 3))

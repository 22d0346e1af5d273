"""Grey and white matter of a T1-weighted head by intensity: no atlas, no network, a few seconds."""

import numpy as np

from pgm_jax.data.errors import DataError
from pgm_jax.data.volume import Volume

# Millimetres: the grid of the search, half the thickness that separates brain from scalp, how far gyri reach
# from the core that is left, the radius of a ball inside the brain, and its depth under the top of the head.
_COARSE, _NECK, _REACH, _BALL, _DEPTH = 2.0, 3.0, 7.0, 45.0, 70.0
# Standard deviation of the bias field's smoothing, in mm, and rounds of its estimate.
_BIAS, _ROUNDS = 20.0, 4
# Standard deviation of the smoothing against noise, in mm.
_NOISE = 0.6
# Share of the distance between two tissues over which one voxel is taken to hold both.
_MIXED = 0.6


def tissue_maps(volume: Volume, height: float = 120.0) -> tuple[Volume, Volume]:
    """Segments the brain of a T1-weighted head, with its skull or without.

    1. Brain: voxels brighter than cerebrospinal fluid, thinned until the largest piece is the brain, and grown
       back by what touches it.
    2. Two means, grey below white, in turns with a smooth bias field, the blurred logarithm of each voxel over
       its tissue's mean.
    3. Probabilities that rise linearly around the middle between two tissues, where a voxel holds both.

    By intensity alone: voxels between white matter and a ventricle count as a thin layer of grey matter, and deep
    grey matter is taken for white where it is as bright. Good enough for phantoms, not for volumetry.

    Args:
        volume: T1-weighted `Volume` of one channel with spacing, axes as in `Volume`.
        height: what is kept of the brain below the top of the head, in mm; less leaves out brain stem and neck.

    Returns:
        `(grey, white)`: `Volume` of probabilities in [0, 1] on the grid of the volume, as `pet_phantom` takes them.

    Raises:
        DataError: for a volume without spacing or with several channels, or in which no brain is found.
    """
    from scipy import ndimage

    if volume.spacing is None or volume.array.shape[-1] != 1 or np.iscomplexobj(volume.array):
        raise DataError(
            f"tissue_maps: {volume.name or 'a volume'} of shape {volume.array.shape} with spacing "
            f"{volume.spacing}: give a real volume of one channel with its spacing in mm"
        )
    image = volume.array[..., 0].astype(np.float32)
    blocks = [max(1, round(_COARSE / step)) for step in volume.spacing]
    spacing = [n * step for n, step in zip(blocks, volume.spacing, strict=True)]
    coarse = _means(image, blocks)
    brain, (fluid, white) = _brain(ndimage, coarse, spacing, height, volume.name)
    grey, white, bias = _levels(ndimage, coarse, brain, spacing, white)
    # A brain with hardly any ventricle in the ball.
    fluid = min(fluid, grey / 2)
    # A voxel of the coarse grid at the border holds tissue too. What lies outside of the box is 0.
    brain = ndimage.binary_dilation(brain)
    inner = ndimage.find_objects(brain.astype(np.int8))[0]
    box = tuple(slice(s.start * b, s.stop * b) for s, b in zip(inner, blocks, strict=True))
    shape = image[box].shape
    wide, bias = (_spread(ndimage, a[inner], blocks, shape) for a in (brain.astype(np.float32), bias))
    even = ndimage.gaussian_filter(image[box], [_NOISE / step for step in volume.spacing]) / bias
    of_white = np.where(wide > 0.5, _ramp(even, grey, white), 0)
    of_grey = np.where(wide > 0.5, _ramp(even, fluid, grey), 0) - of_white
    maps = []
    for tissue, inside in (("grey", of_grey), ("white", of_white)):
        array = np.zeros_like(volume.array)
        array[box] = inside[..., None]
        maps.append(volume._replace(array=array, units="probability", name=f"{volume.name}-{tissue}"))
    return tuple(maps)


def _means(image, blocks):
    """Means over blocks; the rest of a block at the far border is left out."""
    sizes = [n // b for n, b in zip(image.shape, blocks, strict=True)]
    cut = image[tuple(slice(n * b) for n, b in zip(sizes, blocks, strict=True))]
    shape = [part for n, b in zip(sizes, blocks, strict=True) for part in (n, b)]
    return cut.reshape(shape).mean(axis=(1, 3, 5))


def _spread(ndimage, coarse, blocks, shape):
    """Interpolates from block centres to voxels."""
    scale = [1 / b for b in blocks]
    offset = [(1 - b) / (2 * b) for b in blocks]
    return ndimage.affine_transform(coarse, scale, offset, output_shape=shape, order=1, mode="nearest")


def _brain(ndimage, image, spacing, height, name):
    """The brain, and the intensities of fluid and of white matter within a ball that lies inside it."""
    head = image > 0.1 * np.percentile(image, 99.5)
    tall = np.flatnonzero(head.mean((1, 2)) > 0.02)
    if not tall.size:
        raise DataError(f"tissue_maps: {name or 'the volume'} holds no head: give a T1-weighted head")
    top, below = tall[-1], lambda depth: max(0, int(tall[-1] - depth / spacing[0]))
    _, rows, columns = np.nonzero(head[below(100.0) : top + 1])
    middle = (below(_DEPTH), rows.mean(), columns.mean())
    axes = np.ogrid[tuple(slice(n) for n in image.shape)]
    ball = sum(((a - m) * h) ** 2 for a, m, h in zip(axes, middle, spacing, strict=True)) < _BALL**2
    fluid, white = np.percentile(image[ball], (3, 85))
    tissue = (image > 0.45 * white) & (image < 1.25 * white)
    tissue[: below(height)] = False
    core = ndimage.distance_transform_edt(tissue, spacing) > _NECK
    if not core.any():
        raise DataError(f"tissue_maps: no brain in {name or 'the volume'}: give a T1-weighted head")
    near = ndimage.distance_transform_edt(~_largest(ndimage, core), spacing) <= _REACH
    return _largest(ndimage, tissue & near), (fluid, white)


def _largest(ndimage, mask):
    labels, _ = ndimage.label(mask)
    return labels == np.bincount(labels.ravel())[1:].argmax() + 1


def _levels(ndimage, image, brain, spacing, white):
    """Means of grey and white matter, and the bias field by which the image is to be divided."""
    grey, bias = 0.65 * white, np.ones_like(image)
    width = [_BIAS / step for step in spacing]
    for _ in range(_ROUNDS):
        even = image / bias
        bright = even > (grey + white) / 2
        grey, white = (float(np.median(even[brain & part])) for part in (~bright, bright))
        mean = np.where(bright, white, grey)
        # What lies far from both means is another tissue, and would be taken for bias.
        sure = brain & (np.abs(even - mean) < 0.4 * (white - grey))
        logarithm = np.where(sure, np.log(np.maximum(image, 1e-6) / mean), 0.0)
        weight = ndimage.gaussian_filter(sure.astype(np.float32), width)
        bias = np.exp(ndimage.gaussian_filter(logarithm, width) / np.maximum(weight, 1e-4))
    return grey, white, bias.astype(np.float32)


def _ramp(image, low, high):
    """0 below and 1 above the middle of two intensities, linear over a part of their distance."""
    return np.clip((image - (low + high) / 2) / (_MIXED * (high - low)) + 0.5, 0, 1).astype(np.float32)

"""From k-space to the problems of `pgm reconstruct`: coil maps, operators and whitened data, slice by slice."""

import itertools
import math

import jax.numpy as jnp
import numpy as np

from pgm_jax import data
from pgm_jax.operators import (
    NUFFT,
    NonCartesian,
    Sense,
    calibration_region,
    centred_fft,
    espirit_maps,
    mix_coils,
    pipe_menon,
    whitening_matrix,
)
from pgm_jax.reconstruction.scans import Problem, Scan

# Width of the centre of k-space from which maps are made, where the file marks no calibration lines.
_CALIBRATION = 24


def kspace_scan(kspace: data.KSpace, trajectory=None) -> Scan:
    """Builds the problems of an MRI scan; coil maps are ESPIRiT's, noise is whitened where its covariance is known.

    Args:
        kspace: what `data.read_kspace` returned.
        trajectory: (readouts, samples, d) points in place of those of the file, or None.

    Returns:
        `Scan`, one problem a slice, or one for a volume.

    Raises:
        ValueError: if there is no calibration region or nothing was measured.
    """
    points = kspace.trajectory if trajectory is None else trajectory
    slices = kspace.array if kspace.dimensions == 2 else kspace.array[None]
    if kspace.noise is not None:
        whiten = whitening_matrix(kspace.noise)
        slices = [mix_coils(whiten, jnp.asarray(y)) for y in slices]
    shape = kspace.encoded[1:] if kspace.dimensions == 2 else kspace.encoded
    if points is None:
        problems = [_cartesian(np.asarray(y), _mask(kspace, k), shape) for k, y in enumerate(slices)]
    else:
        density = pipe_menon(NUFFT.create(points, shape))
        problems = [_along(np.asarray(y), points, density, shape) for y in slices]

    def volume(images):
        stacked = np.stack([np.asarray(image)[..., 0] for image in images])
        return kspace.volume(stacked if kspace.dimensions == 2 else stacked[0])

    return Scan(tuple(problems), volume)


def _mask(kspace, k):
    if kspace.dimensions == 3:
        return kspace.mask
    return kspace.mask[k if len(kspace.mask) > 1 else 0]


def _cartesian(y, mask, shape):
    measured = np.broadcast_to(mask, shape)
    maps = coil_maps(y, _measured_centre(measured), shape)
    return Problem("mri", Sense.create(maps, measured.astype(np.float32)), jnp.asarray(y))


def _measured_centre(measured):
    """Returns the sizes of the largest fully sampled box about the centre, at most `_CALIBRATION` wide."""
    widths = [range(min(n, _CALIBRATION), 0, -1) for n in measured.shape]
    for sizes in sorted(itertools.product(*widths), key=math.prod, reverse=True):
        low = [n // 2 - s // 2 for n, s in zip(measured.shape, sizes, strict=True)]
        box = tuple(slice(a, a + s) for a, s in zip(low, sizes, strict=True))
        if min(sizes) >= min(3, *measured.shape) and measured[box].all():
            return sizes
    raise ValueError("no part of the centre of k-space is fully sampled, so coil maps cannot be made from it")


def _along(y, points, density, shape):
    calibration = centred_fft(_gridded(y, points, density, shape), tuple(range(-len(shape), 0)))
    maps = coil_maps(np.asarray(calibration), tuple(min(n, _CALIBRATION) for n in shape), shape)
    operator = NonCartesian.create(maps, points)
    return Problem("mri", operator, jnp.asarray(y), density=density)


def _gridded(y, points, density, shape):
    transform = NUFFT.create(points, shape)
    return jnp.stack([transform.adjoint(density * coil)[..., 0] for coil in jnp.asarray(y)])


def coil_maps(y, size, shape):
    """Makes coil maps from the centre of Cartesian k-space; one coil has a map of ones.

    Args:
        y: k-space (coils, *shape).
        size: sizes of the fully sampled centre.
        shape: shape of the maps.

    Returns:
        Complex (coils, *shape).
    """
    if len(y) == 1:
        return np.ones((1, *shape), np.complex64)
    kernel = min(6, *size)
    maps, _ = espirit_maps(calibration_region(y, size), shape, kernel=kernel)
    return np.asarray(maps)

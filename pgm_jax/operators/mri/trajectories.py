"""Sampling trajectories with the k-space area of each sample, in float64 on the host.

Points are in cycles per field of view along the image axes, rows first: for N_a voxels the band is
|k_a| <= N_a / 2, so a field of view of other proportions than the matrix needs no other numbers. The density is
the area (volume) of k-space that a sample stands for, in the same units: 1 for each point of the full grid, so
`F^H D F` of a scan that covers the band is about the identity.
"""

from typing import NamedTuple

import numpy as np

_GOLDEN = (np.sqrt(5) - 1) / 2
# The real root of p^3 + p = 1; p and p^2 are the 2-D golden means.
_GOLDEN_2D = 0.6823278038280193


class Trajectory(NamedTuple):
    """Points of a scan and what each stands for.

    Attributes:
        points: (interleaves, readout, d) float64, cycles per field of view.
        density: (interleaves, readout) float64, area of k-space in (cycles per field of view)^d.
    """

    points: np.ndarray
    density: np.ndarray


def radial_angles(spokes: int, golden: bool = False):
    """Computes the angles of spokes through the centre, in radians.

    Args:
        spokes: number of spokes.
        golden: False spaces them by pi / spokes; True turns each by pi (sqrt(5) - 1) / 2 = 111.25 degrees, so
            that any run of consecutive spokes is nearly even.

    Returns:
        float64 array (spokes,) in [0, pi).
    """
    index = np.arange(spokes)
    return np.pi * index * _GOLDEN % np.pi if golden else np.pi * index / spokes


def radial(spokes: int, readout: int, shape, *, golden: bool = False) -> Trajectory:
    """Lays full spokes through the centre of a slice; sample j of a spoke lies at (j - readout // 2) / readout.

    Angle 0 runs along the columns (x), pi / 2 along the rows. Each half spoke stands for half the gap to its
    neighbours, and its samples for rings of that wedge.

    Source: S. Winkelmann et al., An optimal radial profile order based on the golden ratio, IEEE TMI 26 (2007).

    Args:
        spokes: number of spokes.
        readout: samples of a spoke.
        shape: (height, width) of the image.
        golden: golden-angle order.

    Returns:
        `Trajectory` with points (spokes, readout, 2).
    """
    _require_counts(spokes=spokes, readout=readout)
    angle = radial_angles(spokes, golden)
    order = np.argsort(angle)
    ahead = np.diff(angle[order], append=angle[order[0]] + np.pi)
    gap = np.empty(spokes)
    gap[order] = (ahead + np.roll(ahead, 1)) / 2
    direction = np.stack([np.sin(angle), np.cos(angle)], axis=-1)
    # A whole turn of wedge `gap` on both sides covers area gap r^2.
    return _spokes(direction, readout, shape, gap / np.pi)


def kooshball(spokes: int, readout: int, shape) -> Trajectory:
    """Lays full spokes through the centre of a volume, spread over the sphere by the 2-D golden means.

    Spoke i points to z = i p^2 mod 1 and azimuth 2 pi (i p mod 1), p = 0.68233, so any run of spokes is nearly
    even; each stands for the same solid angle.

    Source: R. W. Chan et al., Temporal stability of adaptive 3D radial MRI using multidimensional golden means,
    MRM 61 (2009).

    Args:
        spokes: number of spokes.
        readout: samples of a spoke.
        shape: (depth, height, width) of the volume.

    Returns:
        `Trajectory` with points (spokes, readout, 3).
    """
    _require_counts(spokes=spokes, readout=readout)
    index = np.arange(spokes)
    z, azimuth = index * _GOLDEN_2D**2 % 1, 2 * np.pi * (index * _GOLDEN_2D % 1)
    across = np.sqrt(1 - z**2)
    direction = np.stack([z, across * np.sin(azimuth), across * np.cos(azimuth)], axis=-1)
    return _spokes(direction, readout, shape, np.full(spokes, 1 / spokes))


def spiral(interleaves: int, readout: int, shape, *, turns, power=1.0) -> Trajectory:
    """Winds spirals outwards, `k(t) = t^p / 2 exp(2 pi i (turns t + j / interleaves))`, t = (i + 1/2) / readout.

    p = 1 is Archimedean; above 1 the centre is denser. Neighbouring windings lie p N / (2 turns interleaves)
    apart at the edge, so turns * interleaves >= p N / 2 samples the band fully.

    Args:
        interleaves: number of spirals, each turned by 2 pi / interleaves.
        readout: samples of a spiral, evenly spaced in t.
        shape: (height, width) of the image.
        turns: windings of one spiral.
        power: p > 0.

    Returns:
        `Trajectory` with points (interleaves, readout, 2); the density is the ring between neighbouring radii,
        shared by the interleaves.
    """
    _require_counts(interleaves=interleaves, readout=readout)
    time = (np.arange(readout) + 0.5) / readout
    phase = 2 * np.pi * (turns * time[None] + np.arange(interleaves)[:, None] / interleaves)
    radius = 0.5 * time**power
    edges = 0.5 * (np.arange(readout + 1) / readout) ** power
    direction = np.stack([np.sin(phase), np.cos(phase)], axis=-1)
    ring = np.pi * np.diff(edges**2) / interleaves * np.prod(shape)
    points = radius[:, None] * direction * np.asarray(shape)
    return Trajectory(points, np.broadcast_to(ring, points.shape[:-1]).copy())


def _spokes(direction, readout, shape, share):
    """Samples spokes along unit directions (spokes, d); a spoke stands for its share of the unit ball."""
    d = len(shape)
    if direction.shape[1] != d:
        raise ValueError(
            f"these spokes have {direction.shape[1]} dimensions, the image {tuple(shape)} has {d}"
        )
    radius = (np.arange(readout) - readout // 2) / readout
    inner = np.maximum(np.abs(radius) - 0.5 / readout, 0)
    outer = np.abs(radius) + 0.5 / readout
    ball = {2: np.pi, 3: 4 * np.pi / 3}[d] * np.prod(shape)
    # A shell is met on both sides of the centre, the centre itself once.
    shell = ball * (outer**d - inner**d) * np.where(radius == 0, 1.0, 0.5)
    points = radius[None, :, None] * direction[:, None] * np.asarray(shape)
    return Trajectory(points, share[:, None] * shell)


def _require_counts(**counts):
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"a trajectory needs at least one of its {name}, got {count}")

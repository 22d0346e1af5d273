"""Filtered backprojection for parallel and fan beams."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from pgm_jax.operators.ct.beam import PlanarBeam
from pgm_jax.operators.ct.gather import gather_sum
from pgm_jax.operators.ct.geometry import Parallel
from pgm_jax.operators.operator import require_shape
from pgm_jax.reconstruction.filters import filter_projections, response
from pgm_jax.reconstruction.scan_weights import angular_steps, offset_weights, parker_weights


def fbp(operator, y, filter: str = "ram-lak", cutoff: float = 1.0, backprojector: str = "interpolated"):
    """Reconstructs an image by filtered backprojection.

    Parallel: `f(x) = sum_v step_v q_v(x . n_v)` with q the ramp-filtered projection. Fan, with m the redundancy
    weight of a ray, R the distance from source to axis, d the depth of a pixel along the central ray (flat) or its
    distance from the source (arc):

        f(x) = sum_v step_v (R / d)^2 [ (m cos(g) y) * h ](s(x))         h at the spacing on the axis (flat)
        f(x) = sum_v step_v / d^2 [ (m R cos(g) y) * h (g / sin g)^2 ](g(x))      (arc)

    Steps are half the gaps between views, so angles may be uneven. A full turn counts each line twice; a detector
    shifted by more than a bin is weighted over its overlap (half-fan), and a short scan of a fan by Parker's
    weights. A limited angle (parallel less than pi, fan less than pi plus the fan) is reconstructed as it is, every
    ray counting once: nothing is put in for what is missing.

    Source: A. C. Kak, M. Slaney, Principles of computerized tomographic imaging (1988), 3.3 and 3.4.

    Args:
        operator: `ParallelBeam` or `FanBeam`, not a subset.
        y: projections (views, bins, channels), in units of the image times mm.
        filter: window of the ramp: "ram-lak", "shepp-logan", "cosine", "hamming" or "hann".
        cutoff: cut-off over the Nyquist frequency, in (0, 1].
        backprojector: "interpolated" (linear between bins; sharper) or "matched" (the operator's adjoint; for a
            centred parallel beam only).

    Returns:
        Image (height, width, channels).

    Raises:
        ValueError: for an operator without geometry, or a filter, cut-off or backprojector that does not exist.
    """
    geometry = _geometry_of(operator)
    require_shape(y, operator.range, operator, "sinogram", allow_complex=False)
    if backprojector not in ("interpolated", "matched"):
        raise ValueError(f'backprojector must be "interpolated" or "matched", got {backprojector!r}')
    y = jnp.asarray(y, jnp.promote_types(jnp.result_type(y), jnp.float32))
    parallel, shifted = isinstance(geometry, Parallel), _is_half_scan(geometry)
    if backprojector == "matched" and (shifted or not parallel):
        raise ValueError(
            "fbp: only a centred parallel beam has a matched backprojector, since the adjoint of a fan lacks a "
            "factor 1 / depth and a shifted detector ends inside the image; use backprojector='interpolated'"
        )
    weights = _parallel_weights(geometry, shifted) if parallel else _fan_weights(geometry, shifted)
    y = y * jnp.asarray(weights, y.dtype)[:, :, None]
    if shifted:
        geometry, y = _widen(geometry, y)
    arc = not parallel and geometry.detector == "arc"
    gain = response(geometry.bins, _pitch(geometry), filter, cutoff, arc)
    filtered = filter_projections(y, gain)
    if backprojector == "interpolated":
        return _interpolate(operator.grid, geometry, filtered)
    if not parallel:
        raise ValueError(
            "a fan beam has no matched FBP: its adjoint lacks a factor 1 / depth; use interpolated"
        )
    return operator.adjoint(filtered) * (geometry.spacing / np.prod(operator.grid.spacing))


def _geometry_of(operator):
    if not isinstance(operator, PlanarBeam):
        raise ValueError(f"fbp needs a ParallelBeam or FanBeam, got {type(operator).__name__}")
    if operator.geometry is None:
        raise ValueError("fbp needs an operator with its geometry, got a subset: build one for its angles")
    return operator.geometry


def _pitch(geometry):
    """Distance between bins: on the axis for parallel and flat, radians for an arc."""
    if isinstance(geometry, Parallel):
        return geometry.spacing
    if geometry.detector == "arc":
        return geometry.spacing / geometry.source_to_detector
    return geometry.spacing * geometry.source_to_axis / geometry.source_to_detector


def _is_half_scan(geometry):
    """Whether the detector is shifted by more than a bin and goes round a full turn."""
    coverage = angular_steps(geometry.angles, 2 * np.pi)[2]
    return coverage > 2 * np.pi - 1e-6 and abs(geometry.offset) > geometry.spacing


def _widen(geometry, y):
    """Adds empty bins until the detector reaches as far to both sides: filtered projections do not end with it."""
    extra = int(np.ceil(2 * abs(geometry.offset) / geometry.spacing))
    sides = (extra, 0) if geometry.offset > 0 else (0, extra)
    offset = geometry.offset - np.sign(geometry.offset) * extra * geometry.spacing / 2
    wide = replace(geometry, bins=geometry.bins + extra, offset=offset)
    return wide, jnp.pad(y, ((0, 0), sides, (0, 0)))


def _parallel_weights(geometry, shifted):
    """Angular step times redundancy, (views, bins)."""
    if shifted:
        return angular_steps(geometry.angles, 2 * np.pi)[0][:, None] * _overlap(geometry)[None]
    steps = angular_steps(geometry.angles, np.pi)[0]
    return np.broadcast_to(steps[:, None], (geometry.views, geometry.bins))


def _fan_weights(geometry, shifted):
    """Angular step times redundancy times the cosine of the fan angle, times R on an arc; (views, bins)."""
    bins = np.arange(geometry.bins)
    fan = geometry.fan_angles(bins)
    steps, place, coverage = angular_steps(geometry.angles, 2 * np.pi)
    weights = steps[:, None] * np.cos(fan)[None]
    if geometry.detector == "arc":
        weights = weights * geometry.source_to_axis
    if coverage > 2 * np.pi - 1e-6:
        return weights * (_overlap(geometry)[None] if shifted else 0.5)
    if coverage >= np.pi + 2 * np.abs(fan).max():
        return weights * parker_weights(place, fan, coverage)
    return weights


def _overlap(geometry):
    """Weights of a detector that is shifted to one side, (bins,)."""
    edges, s = (
        _across(geometry, p) for p in (np.array([-0.5, geometry.bins - 0.5]), np.arange(geometry.bins))
    )
    if edges[0] >= 0 or edges[1] <= 0:
        raise ValueError(
            f"fbp: the detector, shifted by {geometry.offset:g} mm, does not see the centre of rotation: "
            "reduce the offset or use an iterative method"
        )
    return offset_weights(s, (-edges[0], edges[1]))


def _across(geometry, places):
    """Distance of places on the detector from the central ray: mm for parallel, radians for a fan."""
    if isinstance(geometry, Parallel):
        return (places - (geometry.bins - 1) / 2) * geometry.spacing + geometry.offset
    return geometry.fan_angles(places)


def _interpolate(grid, geometry, filtered):
    """Adds up the filtered projections at the shadow of every pixel, linearly between bins."""
    dtype = filtered.dtype
    x, y = (jnp.asarray(v, dtype) for v in grid.centres())
    angles = jnp.asarray(np.stack([np.cos(geometry.angles), np.sin(geometry.angles)], 1), dtype)
    first = (geometry.bins - 1) / 2 - geometry.offset / geometry.spacing

    def locate(angle):
        c, s = angle
        along, across = x[None, :] * c + y[:, None] * s, y[:, None] * c - x[None, :] * s
        if isinstance(geometry, Parallel):
            place, weight = along / geometry.spacing, jnp.ones_like(along)
        else:
            place, weight = _shadow(geometry, geometry.source_to_axis - along, across)
        place = place + first
        low = jnp.floor(place)
        part = place - low
        return low.astype(jnp.int32) + 1, [weight * (1 - part), weight * part]

    padded = jnp.pad(filtered, ((0, 0), (1, 2), (0, 0)))
    return gather_sum(locate, angles, padded, grid.shape)


def _shadow(geometry, depth, across):
    """Place of a pixel in bins, and the weight of its distance from the source."""
    scale = geometry.source_to_detector / geometry.spacing
    if geometry.detector == "flat":
        return scale * across / depth, jnp.square(geometry.source_to_axis / depth)
    return scale * jnp.arctan2(across, depth), 1 / (depth**2 + across**2)

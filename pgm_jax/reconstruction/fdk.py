"""Feldkamp-Davis-Kress: filtered back-projection of a circular cone beam."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax.operators.ct.cone import ConeBeam
from pgm_jax.operators.ct.geometry3d import Cone
from pgm_jax.operators.ct.hat import interpolate_each, interpolate_rows, pad
from pgm_jax.operators.operator import require_shape
from pgm_jax.reconstruction.filters import filter_projections, response
from pgm_jax.reconstruction.scan_weights import angular_steps, offset_weights, parker_weights


def fdk(operator: ConeBeam, y, filter: str = "ram-lak", cutoff: float = 1.0):
    """Reconstructs a volume from cone-beam projections by weighting, ramp filtering and back-projection.

    With the detector scaled to the axis (p = u R / F, R from the source to the axis, F to the detector) and theta
    the direction of the source,

        f(x) = sum_b step_b [ R / (R - x.theta) ]^2 q_b(p(x), z R / (R - x.theta))
        q_b(p, s) = dp sum_p' h(p - p') m_b(p') y_b(p', s) R / sqrt(R^2 + p'^2 + s^2)

    h is the ramp sampled in space, q is interpolated linearly and 0 beyond the detector, steps are half the gaps
    between views, and m is the part of its line that a ray stands for:

    - A full circle sees every line twice: m = 1/2.
    - With the detector offset by more than a column (half fan) a full circle sees lines within the overlap twice,
      others once: m is smooth over the overlap.
    - A short scan of at least pi plus the fan angle: Parker's weights.
    - Less is reconstructed as it is, m = 1: nothing is put in for what is missing.

    On the plane z = 0 this is `fbp` of a fan beam; away from it, it errs with the cone angle. It is no adjoint: the
    back-projection interpolates at voxels, with its own weights.

    Source: L. A. Feldkamp, L. C. Davis and J. W. Kress, Practical cone-beam algorithm, JOSA A 1 (1984), Eqs. 26-29.

    Args:
        operator: `ConeBeam` of a circular `Cone` without tilt, not a subset.
        y: line integrals (views, rows, columns, 1).
        filter: window of the ramp: "ram-lak", "shepp-logan", "cosine", "hamming" or "hann".
        cutoff: cut-off over the Nyquist frequency, in (0, 1].

    Returns:
        Volume (nz, ny, nx, 1), per mm for unitless integrals.

    Raises:
        ValueError: for another geometry or filter, projections of another shape, or a detector that leaves lines
            unmeasured.
    """
    require_shape(y, operator.range, operator, "measurement", allow_complex=False)
    y = jnp.asarray(y, jnp.promote_types(jnp.result_type(y), jnp.float32))
    grid, geometry = operator.grid, operator.geometry
    _require_circle(geometry)
    weights = _ray_weights(geometry)
    geometry, before, after = _completed(geometry)
    y, weights = (
        jnp.pad(y, ((0, 0), (0, 0), (before, after), (0, 0))),
        np.pad(weights, ((0, 0), (before, after))),
    )
    v, u = _positions(geometry)
    cosine = geometry.source_to_detector / np.sqrt(geometry.source_to_detector**2 + u**2 + v[:, None] ** 2)
    at_axis = geometry.source_to_axis / geometry.source_to_detector
    gain = response(geometry.columns, at_axis * geometry.spacing[1], filter, cutoff)
    directions = np.stack([np.cos(geometry.angles), np.sin(geometry.angles)], -1)
    cosine, weights, directions = (jnp.asarray(a, y.dtype) for a in (cosine, weights, directions))

    def view(volume, inputs):
        rows, weight, direction = inputs
        q = filter_projections(rows * (cosine * weight[None])[:, :, None], gain)
        return _spread_view(volume, q, direction, geometry, grid), None

    nz, ny, nx = grid.shape
    volume, _ = jax.lax.scan(view, jnp.zeros((ny, nx, nz, 1), y.dtype), (y, weights, directions))
    return jnp.transpose(volume, (2, 0, 1, 3))


def _ray_weights(geometry):
    """Angular step times the part of its line that a ray stands for (views, columns), radians."""
    fan = np.arctan(_positions(geometry)[1] / geometry.source_to_detector)
    steps, place, coverage = angular_steps(geometry.angles, 2 * np.pi)
    full, offset = coverage > 2 * np.pi - 1e-6, geometry.offset[1]
    if not full and _is_half_fan(geometry):
        raise ValueError(
            f"fdk: an offset detector needs a full circle, the views cover {np.rad2deg(coverage):.0f} degrees: "
            "use an iterative method"
        )
    if full and _is_half_fan(geometry):
        half = geometry.columns * geometry.spacing[1] / 2
        if abs(offset) >= half:
            raise ValueError(
                f"fdk: a detector offset by {offset:g} mm does not see the centre of rotation: "
                f"keep |offset| below {half:g} mm"
            )
        reach = np.arctan((half + np.array([-offset, offset])) / geometry.source_to_detector)
        return steps[:, None] * offset_weights(fan, tuple(reach))
    if full:
        return np.broadcast_to(steps[:, None] / 2, (len(steps), len(fan)))
    if coverage >= np.pi + 2 * np.abs(fan).max():
        return steps[:, None] * parker_weights(place, fan, coverage)
    return np.broadcast_to(steps[:, None], (len(steps), len(fan)))


def _is_half_fan(geometry):
    return abs(geometry.offset[1]) > geometry.spacing[1]


def _completed(geometry):
    """Adds columns on the short side of a half fan: filtered, they are not 0 though no ray is measured."""
    if not _is_half_fan(geometry):
        return geometry, 0, 0
    offset, step = geometry.offset[1], geometry.spacing[1]
    extra = int(np.ceil(2 * abs(offset) / step))
    before, after = (extra, 0) if offset > 0 else (0, extra)
    centre = geometry.offset[0], offset + (after - before) * step / 2
    return replace(geometry, columns=geometry.columns + extra, offset=centre), before, after


def _positions(geometry):
    """Positions of rows and of columns on the detector, mm from the foot of the central ray."""
    sizes = geometry.rows, geometry.columns
    return [
        (np.arange(n) - (n - 1) / 2) * d + o
        for n, d, o in zip(sizes, geometry.spacing, geometry.offset, strict=True)
    ]


def _spread_view(volume, q, direction, geometry, grid):
    """Adds one filtered view (rows, columns, 1) to a volume (ny, nx, nz, 1)."""
    (nz, ny, nx), (dz, dy, dx) = grid.shape, grid.spacing
    far, near = geometry.source_to_detector, geometry.source_to_axis
    q = pad(jnp.swapaxes(q, 0, 1), 0, 1)
    x, z = (jnp.arange(nx) - (nx - 1) / 2) * dx, (jnp.arange(nz) - (nz - 1) / 2) * dz
    (dv, du), (v0, u0) = geometry.spacing, geometry.offset

    def row(i, volume):
        y = (i - (ny - 1) / 2) * dy
        depth = near - (x * direction[0] + y * direction[1])
        u = far * (y * direction[0] - x * direction[1]) / depth
        columns = interpolate_rows(q, (u - u0) / du + (geometry.columns - 1) / 2)
        v = far * z[None] / depth[:, None]
        values = interpolate_each(columns, (v - v0) / dv + (geometry.rows - 1) / 2)
        return volume.at[i].add((near / depth)[:, None, None] ** 2 * values)

    return jax.lax.fori_loop(0, ny, row, volume)


def _require_circle(geometry):
    if geometry is None:
        raise ValueError("fdk needs an operator with its geometry, got a subset: build one for its angles")
    if not isinstance(geometry, Cone) or any(geometry.tilt) or np.any(geometry.heights() != 0):
        raise ValueError(
            f"fdk needs a circular Cone without tilt, got {type(geometry).__name__}: "
            "use an iterative method for helices, tilted detectors and free vectors"
        )

"""The separable footprint for detectors with columns parallel to z: exact areas across z, rectangles along it.

A detector pixel sees a voxel by the product of two shares and the slant of its ray. Across z it is the area that
the voxel's square shares with the beam of a detector column, as for a fan; along z it is the part of the detector
row that the voxel's height covers, seen at the depth of its centre:

    y[k, l] = w(k, l) sum_ij share_k(i, j) / t_ij sum_z cover_l(z, t_ij) x[z, i, j]

with t the depth over the distance of the detector. It approximates the mean of the line integrals over a pixel:
the upper and lower faces of a voxel cast one straight edge each. Both ways gather with one formula of each share.

Source: Y. Long, J. A. Fessler, J. M. Balter, 3D forward and back-projection for X-ray CT using separable
footprints, IEEE TMI 29 (2010), with the exact shadow of a voxel in place of their trapezoid.
"""

import jax
import jax.numpy as jnp

from pgm_jax.operators.ct.cone_joseph import planes_to_visit, rise
from pgm_jax.operators.ct.cone_strip_tables import StripTables
from pgm_jax.operators.ct.hat import first_candidate, take_each
from pgm_jax.operators.ct.strip import part_beyond
from pgm_jax.operators.linear_pair import linear_pair


def _weights(view, sizes):
    """The factor w (columns, rows, 1): the distance of a pixel from the source times what a share is worth, mm."""
    height = sizes.spacing[0] * rise(view, jnp.arange(sizes.rows), sizes.rows)
    return (view.area * jnp.sqrt(view.square[:, None] + (height**2)[None]))[:, :, None]


def _at(form, y, x):
    return form[0] * y + form[1] * x + form[2]


def _beyond(view, edge, y, x):
    """The part of the voxels at (y, x), less 1/2, beyond the edge of a column; positive towards higher columns."""
    column, depth = view.inverse
    along, across = column[0] - edge * depth[0], column[1] - edge * depth[1]
    return part_beyond(_at(column, y, x) - edge * _at(depth, y, x), jnp.abs(along), jnp.abs(across))


def _plane(i, axis, others, sizes, dtype):
    """Coordinates (y, x) of voxels in plane i of an axis, from the centre of the volume."""
    planes = sizes.shape[1:]
    across = others.astype(dtype) - (planes[1 - axis] - 1) / 2
    along = jnp.broadcast_to(jnp.asarray(i - (planes[axis] - 1) / 2, dtype), across.shape)
    return (along, across) if axis == 0 else (across, along)


def _cover(view, t, z, row, sizes):
    """The part of detector rows that the height of voxels z covers, times what is left of 1 / t."""
    height = jnp.abs(view.height[2]) * t
    distance = z - (sizes.shape[0] - 1) / 2 - (view.height[0] + rise(view, row, sizes.rows) * t)
    overlap = jnp.clip((1 + height) / 2 - jnp.abs(distance), 0, jnp.minimum(1, height))
    return overlap / (height * t)


def _collect(view, voxels, t, sizes):
    """Computes `g[j, l] = sum_z cover_l(z, t_j) x[j, z]` (voxels across, rows, slices) in one plane."""
    depth, taps = sizes.shape[0], sizes.taps[3]
    t, row = t[:, None], jnp.arange(sizes.rows)[None]
    middle = (depth - 1) / 2 + (view.height[0] + rise(view, row, sizes.rows) * t)
    start = first_candidate(middle, (1 + jnp.abs(view.height[2]) * t) / 2, depth, taps)
    total = 0
    for tap in range(taps):
        z = start + tap
        inside = jnp.clip(z, -1, depth) + 1
        total = total + _cover(view, t, z, row, sizes)[:, :, None] * take_each(voxels, inside)
    return total


def _project_view(view, volumes, sizes):
    _, *planes = sizes.shape
    dtype, taps = volumes[0].dtype, sizes.taps[2]
    k = (jnp.arange(sizes.columns) - (sizes.columns - 1) / 2).astype(dtype)
    nothing = jnp.zeros((sizes.columns, sizes.rows, volumes[0].shape[-1]), dtype)

    def along(axis):
        others = planes[1 - axis]
        empty = jnp.zeros((others + 2, *nothing.shape[1:]), dtype)

        def plane(i, total):
            t = _at(view.inverse[1], *_plane(i, axis, jnp.arange(others), sizes, dtype))
            collect = lambda: jnp.pad(_collect(view, volumes[axis][i], t, sizes), ((1, 1), (0, 0), (0, 0)))
            # Always true: a branch keeps XLA from fusing both steps, as in `cone_joseph`.
            g = jax.lax.cond(view.active[axis], collect, lambda: empty)
            p = (others - 1) / 2 + (view.middle[axis] + (i - (planes[axis] - 1) / 2) * view.slope[axis])
            start = first_candidate(p, view.window[axis], others, taps)
            for tap in range(taps):
                j = start + tap
                at = _plane(i, axis, j, sizes, dtype)
                share = _beyond(view, k - 0.5, *at) - _beyond(view, k + 0.5, *at)
                inside = jnp.clip(j, -1, others) + 1
                total = total + share[:, None, None] * g.at[inside].get(mode="promise_in_bounds")
            return total

        return jax.lax.fori_loop(0, planes_to_visit(view, axis, planes), plane, nothing)

    return jnp.swapaxes(_weights(view, sizes) * (along(0) + along(1)), 0, 1)


def _forward(tables, x, *, sizes):
    volumes = [
        jnp.pad(jnp.transpose(x, axes), ((0, 0), (0, 0), (1, 1), (0, 0)))
        for axes in ((1, 2, 0, 3), (2, 1, 0, 3))
    ]
    return jax.lax.map(lambda view: _project_view(view, volumes, sizes), StripTables(*tables))


def _spread_columns(view, y, i, sizes):
    """Computes `g[j, l] = sum_k share_k(i, j) y[k, l]` (voxels across, rows, slices) in row i of voxels."""
    at = _plane(i, 0, jnp.arange(sizes.shape[2]), sizes, y.dtype)
    half, taps = (sizes.columns - 1) / 2, sizes.taps[0]
    middle = _at(view.inverse[0], *at) / _at(view.inverse[1], *at) + half
    start = first_candidate(middle, view.reach, sizes.columns, taps)
    edges = start.astype(y.dtype) - half - 0.5
    # The outer edges of the window never cut the voxel.
    parts = [0.5, *(_beyond(view, edges + tap, *at) for tap in range(1, taps)), -0.5]
    total = 0
    for tap in range(taps):
        inside = jnp.clip(start + tap, -1, sizes.columns) + 1
        share = parts[tap] - parts[tap + 1]
        total = total + share[:, None, None] * y.at[inside].get(mode="promise_in_bounds")
    return total


def _spread_rows(view, g, t, sizes):
    """Computes `x[j, z] = sum_l cover_l(z, t_j) g[j, l]` (voxels across, nz, slices)."""
    depth, taps = sizes.shape[0], sizes.taps[1]
    source, constant, step = view.height
    z, t = jnp.arange(depth)[None], t[:, None]
    middle = ((z - (depth - 1) / 2 - source) / t - constant) / step + (sizes.rows - 1) / 2
    start = first_candidate(middle, (1 + 1 / (t * jnp.abs(step))) / 2, sizes.rows, taps)
    total = 0
    for tap in range(taps):
        row = start + tap
        inside = jnp.clip(row, -1, sizes.rows) + 1
        total = total + _cover(view, t, z, row, sizes)[:, :, None] * take_each(g, inside)
    return total


def _adjoint(tables, y, *, sizes):
    nz, ny, nx = sizes.shape
    empty = jnp.zeros((nx, sizes.rows + 2, y.shape[-1]), y.dtype)

    def body(volume, inputs):
        view, one = inputs
        weighted = jnp.pad(_weights(view, sizes) * jnp.swapaxes(one, 0, 1), ((1, 1), (1, 1), (0, 0)))
        used = view.active.any()

        def plane(i, volume):
            t = _at(view.inverse[1], *_plane(i, 0, jnp.arange(nx), sizes, y.dtype))
            g = jax.lax.cond(used, lambda: _spread_columns(view, weighted, i, sizes), lambda: empty)
            return volume.at[i].add(_spread_rows(view, g, t, sizes))

        return jax.lax.fori_loop(0, jnp.where(used, ny, 0), plane, volume), None

    start = jnp.zeros((ny, nx, nz, y.shape[-1]), y.dtype)
    volume, _ = jax.lax.scan(body, start, (StripTables(*tables), y))
    return jnp.transpose(volume, (2, 0, 1, 3))


project, back_project = linear_pair("cone_strip", _forward, _adjoint)

"""Joseph's projector for detectors with columns parallel to z: two one-dimensional steps, gathers both ways.

All rays of a detector column lie in one plane parallel to z. In plane i of the driving axis they share the
position p across it, so a view is two interpolations, the second along z:

    g_i[k, z] = sum_j hat(p_i(k) - j) x_i[j, z]
    y[k, l] = w(k, l) sum_i sum_z hat(z_i(k, l) - z) g_i[k, z]

with `hat(t) = max(0, 1 - |t|)` and w the length of the ray between planes. The adjoint takes the same weights in
the opposite order, each sum over the few pixels whose hat covers the voxel: no scatter, no table of three sizes.

Source: P. M. Joseph, An improved algorithm for reprojecting rays through pixel images, IEEE TMI 1 (1982).
"""

import jax
import jax.numpy as jnp

from pgm_jax.operators.ct.cone_tables import SLACK, SeparableTables
from pgm_jax.operators.ct.hat import first_candidate, hat, interpolate_each, interpolate_rows, pad, take_each
from pgm_jax.operators.linear_pair import linear_pair


def planes_to_visit(view, axis, planes):
    """Planes to visit: none where the driving axis has no ray. (A `cond` would copy the volume of the adjoint.)"""
    return jnp.where(view.active[axis], planes[axis], 0)


def _crossing(view, axis, i, planes, others):
    """Position p and fraction t of every column in plane i of a driving axis."""
    plane = i - (planes - 1) / 2
    p = (others - 1) / 2 + (view.middle[axis] + plane * view.slope[axis])
    return p, view.fraction[axis] + plane * view.step[axis]


def rise(view, row, rows):
    """Height of detector rows above the source, in voxels."""
    return view.height[1] + view.height[2] * (row - (rows - 1) / 2)


def _weights(view, axis, sizes):
    """Length w (columns, rows, 1) of the rays from plane to plane, mm."""
    height = sizes.spacing[0] * rise(view, jnp.arange(sizes.rows), sizes.rows)
    length = jnp.sqrt(view.square[:, None] + (height**2)[None])
    return (length * jnp.abs(view.step[axis])[:, None])[:, :, None]


def _project_view(view, volumes, sizes):
    depth, *planes = sizes.shape
    nothing = jnp.zeros((sizes.columns, sizes.rows, volumes[0].shape[-1]), volumes[0].dtype)
    height = rise(view, jnp.arange(sizes.rows), sizes.rows)[None]

    def along(axis):
        def plane(i, total):
            p, t = _crossing(view, axis, i, planes[axis], planes[1 - axis])
            g = interpolate_rows(volumes[axis][i], p)
            z = (depth - 1) / 2 + (view.height[0] + height * t[:, None])
            return total + interpolate_each(g, z)

        total = jax.lax.fori_loop(0, planes_to_visit(view, axis, planes), plane, nothing)
        return _weights(view, axis, sizes) * total

    return jnp.swapaxes(along(0) + along(1), 0, 1)


def _forward(tables, x, *, sizes):
    volumes = [pad(jnp.transpose(x, axes), 1, 2) for axes in ((1, 2, 0, 3), (2, 1, 0, 3))]
    return jax.lax.map(lambda view: _project_view(view, volumes, sizes), SeparableTables(*tables))


def _spread_rows(view, y, t, sizes):
    """Computes `g[k, z] = sum_l hat(z(k, l) - z) y[k, l]` (columns, nz, slices) in one plane."""
    depth, taps = sizes.shape[0], sizes.taps[1]
    source, constant, step = view.height
    z, t = jnp.arange(depth, dtype=y.dtype)[None], t[:, None]
    # A plane with t <= 0 lies behind the source, where no ray meets the volume: any finite window will do.
    size = jnp.maximum(t, SLACK) * step
    middle = ((z - (depth - 1) / 2 - source) / size) - constant / step + (sizes.rows - 1) / 2
    start = first_candidate(middle, 1 / jnp.abs(size), sizes.rows, taps)
    total = 0
    for tap in range(taps):
        row = start + tap
        height = (depth - 1) / 2 + (source + rise(view, row, sizes.rows) * t)
        inside = jnp.clip(row, -1, sizes.rows) + 1
        total = total + hat(height - z)[:, :, None] * take_each(y, inside)
    return total


def _spread_columns(view, g, p, i, axis, sizes):
    """Computes `x[j, z] = sum_k hat(p(k) - j) g[k, z]` (voxels across, nz, slices) in one plane."""
    _, *planes = sizes.shape
    others, taps = planes[1 - axis], sizes.taps[0]
    j = jnp.arange(others, dtype=g.dtype)
    across, along = j - (others - 1) / 2, jnp.broadcast_to(i - (planes[axis] - 1) / 2, j.shape)
    y, x = (along, across) if axis == 0 else (across, along)
    numerator, denominator = (form[0] * y + form[1] * x + form[2] for form in view.inverse)
    middle = numerator / denominator + (sizes.columns - 1) / 2
    start = first_candidate(middle, view.reach[axis], sizes.columns, taps)
    total = 0
    for tap in range(taps):
        column = start + tap
        k = jnp.clip(column, 0, sizes.columns - 1)
        weight = jnp.where(k == column, hat(p[k] - j), 0)
        total = total + weight[:, None, None] * g.at[k].get(mode="promise_in_bounds")
    return total


def _back_project_view(view, y, volumes, sizes):
    depth, *planes = sizes.shape
    y = jnp.swapaxes(y, 0, 1)
    nothing = jnp.zeros((sizes.columns, depth, y.shape[-1]), y.dtype)

    def along(axis, volume):
        weighted = jnp.pad(_weights(view, axis, sizes) * y, ((0, 0), (1, 1), (0, 0)))

        def plane(i, volume):
            p, t = _crossing(view, axis, i, planes[axis], planes[1 - axis])
            # Always true. Without a branch between them XLA fuses both steps, and g is computed once for each tap.
            g = jax.lax.cond(
                view.active[axis], lambda: _spread_rows(view, weighted, t, sizes), lambda: nothing
            )
            return volume.at[i].add(_spread_columns(view, g, p, i, axis, sizes))

        return jax.lax.fori_loop(0, planes_to_visit(view, axis, planes), plane, volume)

    return [along(axis, volume) for axis, volume in enumerate(volumes)]


def _adjoint(tables, y, *, sizes):
    nz, ny, nx = sizes.shape
    start = [jnp.zeros((*plane, nz, y.shape[-1]), y.dtype) for plane in ((ny, nx), (nx, ny))]

    def body(volumes, inputs):
        view, one = inputs
        return _back_project_view(view, one, volumes, sizes), None

    (by_y, by_x), _ = jax.lax.scan(body, start, (SeparableTables(*tables), y))
    return jnp.transpose(by_y, (2, 0, 1, 3)) + jnp.transpose(by_x, (2, 1, 0, 3))


project, back_project = linear_pair("cone_joseph", _forward, _adjoint)

"""Joseph's projector for any source and flat detector, view by view; both ways are gathers.

The ray of pixel (k, l) meets plane i of its driving axis a at `p = (m_p + i d_p) / d_a`, `q = (m_q + i d_q) / d_a`,
where d and m are linear in (k, l), and

    y[k, l] = w(k, l) sum_i sum_jq hat(p_i(k, l) - j) hat(q_i(k, l) - q) x_i[j, q]

The adjoint sums the same weights over the pixels around the shadow of a voxel, a window whose size is bounded on
the host. Both take several times the work of `cone_joseph`, which serves where detector columns are parallel to z.

Source: P. M. Joseph, An improved algorithm for reprojecting rays through pixel images, IEEE TMI 1 (1982).
"""

import jax
import jax.numpy as jnp

from pgm_jax.operators.ct.cone_tables import OTHERS, VectorTables
from pgm_jax.operators.ct.hat import below, first_candidate, hat, pad
from pgm_jax.operators.linear_pair import linear_pair


def _form(form, k, l):
    """Evaluates a linear form of (1, k, l)."""
    return form[0] + form[1] * k + form[2] * l


def _driving_axis(view, k, l, sizes):
    """The driving axis of pixels: y before x before z where they tie, as on the host."""
    doubled = 2 * k - (sizes.columns - 1), 2 * l - (sizes.rows - 1)
    z, y, x = (jnp.abs(_form(form, *doubled)) for form in view.compared)
    return jnp.where((y >= x) & (y >= z), 1, jnp.where(x >= z, 2, 0))


def _planes(view, axis, sizes):
    """Planes to visit: none where the driving axis has no ray. (A `cond` would copy the volume of the adjoint.)"""
    return jnp.where(view.active[axis], sizes.shape[axis], 0)


def _pixels(sizes):
    shape = sizes.rows, sizes.columns
    return (jax.lax.broadcasted_iota(jnp.int32, shape, axis) for axis in (1, 0))


def _weights(view, axis, sizes):
    """Length (rows, columns) of the rays of a driving axis from plane to plane, mm; 0 for other rays."""
    k, l = _pixels(sizes)
    d = [_form(form, k - (sizes.columns - 1) / 2, l - (sizes.rows - 1) / 2) for form in view.direction]
    # The empty view of a subset has no direction at all.
    mine = (_driving_axis(view, k, l, sizes) == axis) & (d[axis] != 0)
    square = sum((step * size) ** 2 for step, size in zip(d, sizes.spacing, strict=True))
    return jnp.where(mine, jnp.sqrt(square) / jnp.abs(jnp.where(mine, d[axis], 1)), 0)


def _crossing(view, axis, i, k, l, sizes):
    """Positions (p, q) at which the rays of pixels meet plane i, in voxels from the first."""
    k, l = k - (sizes.columns - 1) / 2, l - (sizes.rows - 1) / 2
    plane = i - (sizes.shape[axis] - 1) / 2
    along = _form(view.direction[axis], k, l)
    along = jnp.where(along == 0, 1, along)
    for other, moment in zip(OTHERS[axis], view.moment[axis], strict=True):
        across = (_form(moment, k, l) + plane * _form(view.direction[other], k, l)) / along
        yield across + (sizes.shape[other] - 1) / 2


def _interpolate(plane, p, q):
    """Interpolates a padded plane (n_p, n_q, slices) at positions (rows, columns)."""
    (p, f), (q, g) = below(p, plane.shape[0] - 3), below(q, plane.shape[1] - 3)
    total = 0
    for dp, wp in ((0, 1 - f), (1, f)):
        for dq, wq in ((0, 1 - g), (1, g)):
            total = total + (wp * wq)[..., None] * plane.at[p + dp, q + dq].get(mode="promise_in_bounds")
    return total


def _project_view(view, volumes, sizes):
    nothing = jnp.zeros((sizes.rows, sizes.columns, volumes[0].shape[-1]), volumes[0].dtype)
    k, l = _pixels(sizes)

    def along(axis):
        weights = _weights(view, axis, sizes)

        def plane(i, total):
            p, q = _crossing(view, axis, i, k, l, sizes)
            return total + _interpolate(volumes[axis][i], p, q)

        return weights[..., None] * jax.lax.fori_loop(0, _planes(view, axis, sizes), plane, nothing)

    return along(0) + along(1) + along(2)


def _forward(tables, x, *, sizes):
    volumes = [pad(jnp.transpose(x, (a, *OTHERS[a], 3)), 1, 2) for a in range(3)]
    return jax.lax.map(lambda view: _project_view(view, volumes, sizes), VectorTables(*tables))


def _spread(view, y, axis, i, sizes):
    """Computes plane i `x[j, m] = sum_kl hat(p(k, l) - j) hat(q(k, l) - m) y[l, k]` (n_p, n_q, slices)."""
    others = OTHERS[axis]
    j, m = (jax.lax.broadcasted_iota(y.dtype, [sizes.shape[o] for o in others], n) for n in (0, 1))
    position = [None] * 3
    position[axis] = i - (sizes.shape[axis] - 1) / 2
    for o, voxels in zip(others, (j, m), strict=True):
        position[o] = voxels - (sizes.shape[o] - 1) / 2
    k, l, t = (sum(c * r for c, r in zip(form[:3], position, strict=True)) + form[3] for form in view.inverse)
    reach, (taps_k, taps_l) = view.reach[axis], sizes.taps
    first_k = first_candidate(k / t + (sizes.columns - 1) / 2, reach[0], sizes.columns, taps_k)
    first_l = first_candidate(l / t + (sizes.rows - 1) / 2, reach[1], sizes.rows, taps_l)

    def one(tap, total):
        k, l = first_k + tap % taps_k, first_l + tap // taps_k
        p, q = _crossing(view, axis, i, k, l, sizes)
        inside = jnp.clip(l, -1, sizes.rows) + 1, jnp.clip(k, -1, sizes.columns) + 1
        return total + (hat(p - j) * hat(q - m))[..., None] * y.at[inside].get(mode="promise_in_bounds")

    total = jnp.zeros((*j.shape, y.shape[-1]), y.dtype)
    return jax.lax.fori_loop(0, taps_k * taps_l, one, total)


def _back_project_view(view, y, volumes, sizes):
    def along(axis, volume):
        weighted = jnp.pad(_weights(view, axis, sizes)[..., None] * y, ((1, 1), (1, 1), (0, 0)))

        def plane(i, volume):
            return volume.at[i].add(_spread(view, weighted, axis, i, sizes))

        return jax.lax.fori_loop(0, _planes(view, axis, sizes), plane, volume)

    return [along(axis, volume) for axis, volume in enumerate(volumes)]


def _adjoint(tables, y, *, sizes):
    shapes = [[sizes.shape[o] for o in (a, *OTHERS[a])] for a in range(3)]
    start = [jnp.zeros((*shape, y.shape[-1]), y.dtype) for shape in shapes]

    def body(volumes, inputs):
        view, one = inputs
        return _back_project_view(view, one, volumes, sizes), None

    (by_z, by_y, by_x), _ = jax.lax.scan(body, start, (VectorTables(*tables), y))
    return by_z + jnp.transpose(by_y, (1, 0, 2, 3)) + jnp.transpose(by_x, (1, 2, 0, 3))


project, back_project = linear_pair("vector_joseph", _forward, _adjoint)

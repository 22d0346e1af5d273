"""Parallel-beam CT in two dimensions."""

import jax.numpy as jnp
import numpy as np

from pgm_jax.operators.ct import joseph, strip
from pgm_jax.operators.ct.beam import PlanarBeam
from pgm_jax.operators.ct.driving import split_index
from pgm_jax.operators.ct.gather import gather_sum
from pgm_jax.operators.ct.geometry import Parallel
from pgm_jax.operators.ct.turns import turned
from pgm_jax.operators.linear_pair import linear_pair


class ParallelBeam(PlanarBeam):
    """Parallel rays: `ParallelBeam(grid, geometry, footprint="joseph", subsets=1, channels=1)`.

    With "joseph" entry (view, bin) is the line integral through the middle of the bin, with "strip" the mean of
    the line integrals over the bin; both in units of the image times mm. Forward and adjoint gather with the same
    weights, so they agree to rounding and scatter nowhere. `vmap` joins the slices.

    Attributes are those of `PlanarBeam`, with a `Parallel` geometry.

    Raises:
        ValueError: for an unknown footprint, or more subsets than views.
    """

    @property
    def _pair(self):
        return _PAIRS[self.footprint]

    def _host_tables(self, geometry, used, sizes):
        if not isinstance(geometry, Parallel):
            raise ValueError(f"ParallelBeam needs a Parallel geometry, got {type(geometry).__name__}")
        if self.footprint == "joseph":
            forward, setting = joseph.forward_tables(self.grid, geometry, used, sizes), {}
        else:
            forward, reach = strip.forward_tables(self.grid, geometry, used, sizes)
            setting = {"reach": reach}
        adjoint, candidates = _adjoint_tables(self.grid, geometry, used, self.footprint)
        setting |= {"split": len(forward), "candidates": candidates, "shape": self.grid.shape}
        return (*forward, *adjoint), tuple(sorted(setting.items()))


def _adjoint_tables(grid, geometry, used, footprint):
    """Computes, in bins, where the shadow of pixel (i, j) begins: `(w + f)_j + (w + f)_i`.

    Returns:
        (tables, candidates): whole and fraction (views, width), whole and fraction (views, height), and per view
        the half width of the shadow, the widths of its two sides, and the factor of the weight; the number of
        bins that a shadow touches at most.
    """
    lines = geometry.lines(np.zeros(1))
    (a, b), (dy, dx) = (lines.x[:, 0], lines.y[:, 0]), grid.spacing
    widths = strip.sides(np.abs(a) * dx / geometry.spacing, np.abs(b) * dy / geometry.spacing)
    if footprint == "joseph":
        half, scale = np.maximum(*widths), joseph.path_lengths(grid, lines)[:, 0]
        scale = scale / half
    else:
        half = sum(widths) / 2 + 0.5
        scale = np.full(len(a), dx * dy / geometry.spacing)
    x, y = grid.centres()
    begin = (geometry.bins - 1) / 2 - geometry.offset / geometry.spacing - half
    columns = split_index(np.outer(a, x) / geometry.spacing + begin[:, None])
    rows = split_index(np.outer(b, y) / geometry.spacing)
    tables = (*columns, *rows, half, *widths, scale * used)
    return tables, int(np.ceil(2 * half.max() - 1e-9))


def _adjoint(tables, y, *, weights, candidates, shape):
    """Computes `x_ij = sum_v c_v sum_m weight_m y_v[k + m]` over the bins that the shadow of (i, j) touches."""

    *tables, scale = tables

    def locate(view):
        w_j, f_j, w_i, f_i, half, first, second = view
        f = f_i[:, None] + f_j[None, :]
        carry = jnp.floor(f)
        index = w_i[:, None] + w_j[None, :] + (carry.astype(jnp.int32) + 2)
        return index, list(weights(f - carry, half, first, second, candidates))

    y = jnp.pad(scale[:, None, None] * y, ((0, 0), (1, 1), (0, 0)))
    return gather_sum(locate, tuple(tables), y, shape)


def _joseph_weights(f, half, first, second, candidates):
    """The triangle over the shadow, times its half width."""
    for m in range(1, candidates + 1):
        yield jnp.maximum(0, jnp.minimum(m - f, 2 * half - (m - f)))


def _strip_weights(f, half, first, second, candidates):
    """The part of the pixel between the two edges of each bin; the outer edges of the shadow never cut it."""
    shape = strip.trapezoid(first, second)
    inner = [strip.one_side(m - 0.5 - f - half, shape) for m in range(2, candidates + 1)]
    sides = [-0.5, *inner, 0.5]
    for left, right in zip(sides, sides[1:], strict=False):
        yield jnp.maximum(right - left, 0)


def _pair(footprint, module, weights):
    def forward(tables, x, *, split, candidates, shape, **setting):
        return module.forward(tables[:split], x, **setting)

    def adjoint(tables, y, *, split, candidates, shape, **setting):
        return _adjoint(tables[split:], y, weights=weights, candidates=candidates, shape=shape)

    return linear_pair(f"parallel_beam_{footprint}", *turned(forward, adjoint))


_PAIRS = {
    "joseph": _pair("joseph", joseph, _joseph_weights),
    "strip": _pair("strip", strip, _strip_weights),
}

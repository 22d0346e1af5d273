"""The gather adjoint of a fan beam: which bins a pixel touches, and with which weight.

Seen from the source, a pixel has depth w along the central ray and distance q from it, and the line to detector
position k passes it at `N_k = q - t_k w`, with t the tangent of the fan angle: `t_k = t_0 + pitch u_k`, where u is
k on a flat detector and `k + c_k` on an arc, which bends away from the best straight line. N is a difference of
numbers as large as the image, so its straight part is computed exactly; lengths are in units of the smaller pixel
spacing h.

A gather takes as long as tens of multiplications on a CPU. So only the projections are gathered: the sides of a
pixel seen along a line are linear in u, and polynomials give the first bin and, unless an arc is very wide, u - k.
"""

import jax.numpy as jnp
import numpy as np

from pgm_jax.operators.ct import fan_strip, strip
from pgm_jax.operators.ct.gather import gather_sum, take

# What float32 makes of the place of a pixel, in bins.
_SLACK = 5e-3
# Coefficients of the polynomial that finds the bin of a tangent on an arc, at least and at most.
_TERMS = 2, 10
# Terms of a tangent that are no slower than a gather, and how far each one's sum goes.
_SERIES, _ODD = 24, 4000.0


def support(grid, geometry, footprint) -> tuple[float, int]:
    """Computes the half width in bins of the widest shadow of a pixel, and how many bins it may touch."""
    dy, dx = grid.spacing
    edges = np.arange(geometry.bins + 1) - 0.5
    lines = geometry.lines(edges)
    sides = np.abs(lines.x) * dx, np.abs(lines.y) * dy
    half = sum(strip.sides(*sides)) / 2 if footprint == "strip" else np.maximum(*sides)
    x, y = (np.abs(v).max() for v in grid.centres())
    c, s = np.abs(np.cos(geometry.angles)), np.abs(np.sin(geometry.angles))
    nearest = (geometry.source_to_axis - x * c - y * s)[:, None]
    if geometry.detector == "flat":
        spread = half / np.cos(geometry.fan_angles(edges)) / nearest
    else:
        # Whatever its direction, a ray passes a pixel that is nearer to the source than half its width.
        spread = np.where(half < nearest, np.arcsin(np.minimum(half / nearest, 1.0)), np.pi)
    reach = float(spread.max()) * geometry.source_to_detector / geometry.spacing
    # Wider than in exact arithmetic, since the first bin is found in float32 and by a polynomial.
    reach += 0.5 * (footprint == "strip") + _SLACK + _bins_of_tangents(grid, geometry)[1]
    return reach, int(np.floor(2 * reach)) + 1


def adjoint_tables(grid, geometry, used, footprint, support) -> tuple:
    """Computes what `adjoint` needs.

    Returns:
        Per view used (V,) and the sides of a pixel across and along a line, linear in u (V, 4); high and low parts
        of the terms of q per column (V, nx) and row (V, ny), then of w; the factor of every bin; `_first_bin`, and
        on an arc `_bends`.
    """
    h, (reach, candidates) = min(grid.spacing), support
    strips, flat = footprint == "strip", geometry.detector == "flat"
    pitch, middle = geometry.spacing / geometry.source_to_detector, geometry.bins // 2
    k = np.arange(-candidates, geometry.bins + candidates + 1) - middle
    s = geometry.offset / geometry.source_to_detector
    s = s + (k + middle - 0.5 * strips - (geometry.bins - 1) / 2) * pitch
    if flat:
        first, step, bends = s[middle + candidates], pitch, ()
    else:
        first, step = _straight(k, s, grid, geometry)
        bends = (_bends(grid, geometry, (first, step), k, s),)
    to_first = _first_bin(grid, geometry, first, step, -s[middle + candidates] / pitch - 0.5 * strips - reach)
    q, w = _pixels(grid, geometry, h)
    # From t_0, and in units of the pitch: N of position k is q' - u_k w'.
    q = [q_term - first * w_term for q_term, w_term in zip(q, w, strict=True)]
    w = [step * w_term for w_term in w]
    size = 2 * grid.radius() / h + geometry.bins * max(np.abs(term).max() for term in w)
    quantum = 2.0 ** (np.ceil(np.log2(size)) - 22)
    pixels = [part for term in (*q, *w) for part in _coarse(term, quantum)]
    scale = _factors(grid, geometry, strips) / h * (step if strips else 1.0)
    return used * 1.0, _sides(grid, geometry, first, step, h), *pixels, scale, to_first, *bends


def _straight(k, s, grid, geometry):
    """Returns t at k = 0 and the step of the straight line next to the tangents of positions that pixels see."""
    seen = np.abs(s) <= max(np.arctan(_widest(grid, geometry)), np.sort(np.abs(s))[1])
    step, first = np.polyfit(k[seen], np.tan(s[seen]), 1)
    return first, step


def _widest(grid, geometry):
    """Returns the largest tangent at which any view may see a pixel."""
    distance = np.hypot(*(np.abs(v).max() for v in grid.centres()))
    return np.tan(np.arcsin(distance / geometry.source_to_axis))


def _bins_of_tangents(grid, geometry):
    """Fits `atan(T z) / pitch = z sum_m c_m z^(2 m)` for |z| <= 1, T the widest tangent, on an arc.

    Returns:
        (coefficients, the first one last; largest error): on a flat detector, `T z / pitch` without error.
    """
    pitch, widest = geometry.spacing / geometry.source_to_detector, _widest(grid, geometry)
    if geometry.detector == "flat":
        return np.array([widest / pitch]), 0.0
    z = np.linspace(-1, 1, 1001)
    wanted = lambda z: np.arctan(widest * z) / pitch
    for terms in range(*_TERMS):
        fit = np.polynomial.Chebyshev.interpolate(wanted, 2 * terms - 1).convert(
            kind=np.polynomial.Polynomial
        )
        error = np.abs(fit(z) - wanted(z)).max()
        if error < _SLACK:
            break
    return fit.coef[:0:-2], error


def _bends(grid, geometry, straight, k, s):
    """Returns `u_k - k = (tan(s_k) - first) / step - k` on an arc, s the angles at positions k.

    Numbers (positions,), or where few terms will do, in the form of `_polynomial` as a map of k (1, terms).
    """
    (first, step), candidates = straight, -k[0] - geometry.bins // 2
    pitch = geometry.spacing / geometry.source_to_detector
    seen = np.arctan(_widest(grid, geometry)) + (candidates + 1) * pitch
    widest = min(seen, np.abs(s[candidates : -candidates - 1]).max())  # farther out no pixel has a share
    series = _tangent(widest) / step
    series[0] -= widest / pitch
    if len(series) > _SERIES:
        return (np.tan(s) - first) / step - k
    place = s[-k[0]] / pitch
    return np.array([[place * pitch / widest, pitch / widest, place - first / step, *series[::-1]]])


def _tangent(widest):
    """Returns c of `tan(widest z) = z sum_m c_m z^(2 m)` for |z| <= 1, as many as the default precision asks for.

    With n = m + 1, `tan x = sum_n 2 (2 / pi)^(2 n) lambda(2 n) x^(2 n - 1)` and `lambda(s) = sum_j (2 j + 1)^-s`.
    """
    ratio, n = (2 * widest / np.pi) ** 2, np.arange(2, _SERIES + 3)
    odd, power = np.arange(3.0, _ODD, 2)[:, None], 2.0 * n
    beyond = _ODD ** (1 - power) / (2 * (power - 1))  # the integral of what follows
    c = np.append(widest, 2 / widest * (1 + np.sum(odd**-power, axis=0) + beyond) * ratio**n)
    left_out = c * ratio / np.maximum(1 - ratio, 1e-9)
    # A bend is what the first, straight term leaves.
    needed = left_out > np.finfo(jnp.result_type(float)).eps * c[1:].sum()
    return c[: 1 + np.count_nonzero(needed)]


def _first_bin(grid, geometry, first, step, shift):
    """Returns the map from u to z, then shift and the coefficients of `_bins_of_tangents`."""
    widest = _widest(grid, geometry)
    return np.array([first / widest, step / widest, shift, *_bins_of_tangents(grid, geometry)[0]])


def _sides(grid, geometry, first, step, h):
    """Returns p, p', r, r' (V, 4): at u the sides of a pixel seem `|p + p' u|` (x) and `|r + r' u|` (y) wide."""
    c, s = np.cos(geometry.angles), np.sin(geometry.angles)
    dy, dx = (spacing / h for spacing in grid.spacing)
    parts = dx * (first * c - s), dx * step * c, dy * (c + first * s), dy * step * s
    return np.stack(parts, axis=1)


def _coarse(values, quantum):
    high = np.round(values / quantum) * quantum
    return high, values - high


def _factors(grid, geometry, strips):
    """The factor of a bin; a path length is `dx dy / D`, and the normal (1, -t) is longer than 1 by 1 / cos g."""
    if strips:
        return fan_strip.bin_scale(grid, geometry)
    return np.prod(grid.spacing) / np.cos(geometry.fan_angles(np.arange(geometry.bins)))


def _pixels(grid, geometry, h):
    """Returns q and w as sums of a term per column (V, nx) and one per row (V, ny)."""
    c, s = np.cos(geometry.angles), np.sin(geometry.angles)
    x, y = (v / h for v in grid.centres())
    return [np.outer(-s, x), np.outer(c, y)], [geometry.source_to_axis / h - np.outer(c, x), np.outer(-s, y)]


def adjoint(tables, y, *, candidates, strips):
    """Computes `x_ij = sum_v sum_k weight_k y_v[first + k]` over the bins that pixel (i, j) may touch.

    Args:
        tables: `adjoint_tables`, as arrays.
        y: projections (views, bins, slices).
        candidates: number of bins that a pixel may touch.
        strips: whether a weight is the share of a pixel in a beam, else linear interpolation.

    Returns:
        Image (height, width, slices).
    """
    used, sides, *pixels, scale, to_first = tables[:12]
    bins, middle = y.shape[1], y.shape[1] // 2
    bend_of = _bend_of(-candidates - middle, *tables[12:])
    y = used[:, None, None] * scale[None, :, None] * y
    if not strips:
        k = (jnp.arange(bins) - middle).astype(y.dtype)[None]
        u = k + bend_of(k)
        spans = [jnp.abs(line[:, :1] + line[:, 1:] * u) for line in (sides[:, :2], sides[:, 2:])]
        # No less than .7 wherever a pixel is.
        y = y / jnp.square(jnp.maximum(jnp.maximum(*spans), 0.5))[:, :, None]
    y = jnp.pad(y, ((0, 0), (candidates, candidates), (0, 0)))

    def locate(view):
        terms, (across, per_across, along, per_along) = view
        q, q_rest, w, w_rest = (terms[2 + p][:, None] + terms[p][None, :] for p in (0, 1, 4, 5))
        depth = w + w_rest
        first = _polynomial(to_first, (q + q_rest) / depth)
        first = jnp.clip(jnp.ceil(first), -candidates - middle, bins - middle)
        index = first.astype(jnp.int32) + (middle + candidates)
        n = (q - first * w) + (q_rest - first * w_rest)
        across, along = across + per_across * first, along + per_along * first
        # The left edge of the first bin never cuts the pixel, nor does the right edge of the last.
        ahead = [m + bend_of(first + m) for m in range(strips, candidates)]
        lines = [
            (n - u * depth, jnp.abs(across + per_across * u), jnp.abs(along + per_along * u)) for u in ahead
        ]
        return index, _strip_weights(lines, depth) if strips else _joseph_weights(lines)

    shape = pixels[2].shape[-1], pixels[0].shape[-1]
    return gather_sum(locate, (tuple(pixels), tuple(sides.T)), y, shape)


def _bend_of(first, bends=None):
    """Returns the map from positions k to `u - k`; see `_bends`, whose numbers begin at `first`."""
    if bends is None:
        return lambda k: 0.0
    if bends.ndim == 2:
        return lambda k: _polynomial(bends[0], k)
    return lambda k: take(bends, k.astype(jnp.int32) - first)


def _polynomial(tables, u):
    """Evaluates `_first_bin` or `_bends`: `shift + z sum_m c_m z^(2 m)` at `z = start + slope u`."""
    start, slope, shift, *coefficients = tables
    z = start + slope * u
    place = coefficients[0]
    for coefficient in coefficients[1:]:
        place = place * (z * z) + coefficient
    return place * z + shift


def _joseph_weights(lines):
    """The triangle of linear interpolation times `D = max(|n_x| dx, |n_y| dy)`, `D - |N|`."""
    return [jnp.maximum(0, jnp.maximum(*spans) - jnp.abs(distance)) for distance, *spans in lines]


def _strip_weights(lines, depth):
    """The part of the pixel between the two edges of each bin, over its depth."""
    per_depth = 1 / depth
    parts = [0.5 * per_depth, *(strip.part_beyond(*line) * per_depth for line in lines), -0.5 * per_depth]
    return [left - right for left, right in zip(parts, parts[1:], strict=False)]

"""The gather adjoint of a fan beam: which bins a pixel touches, and with which weight.

Seen from the source, a pixel has depth w along the central ray and distance q from it. The line to detector
position k passes the pixel at `N_k = a_k q - b_k w`, where a = 1, b = tan g on a flat detector and a = cos g,
b = sin g on an arc; the next lines follow by a shear, `N - pitch w`, or by a rotation. N is a difference of
numbers as large as the image, so its leading part is computed exactly; lengths are in units of the smaller pixel
spacing h.
"""

import jax.numpy as jnp
import numpy as np

from pgm_jax.operators.ct import fan_strip, strip
from pgm_jax.operators.ct.driving import split_float
from pgm_jax.operators.ct.gather import gather_sum, take

# Width in bins of a cell of the table that finds the first bin of a pixel on an arc.
_CELL = 0.1


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
        spread = np.arcsin(np.minimum(half / nearest, 1.0))
    reach = float(spread.max()) * geometry.source_to_detector / geometry.spacing
    # Wider than in exact arithmetic, since the first bin is found in float32 or from a table.
    reach += 0.5 * (footprint == "strip") + (2e-3 if geometry.detector == "flat" else _CELL / 2 + 2e-3)
    return reach, int(np.floor(2 * reach)) + 1


def adjoint_tables(grid, geometry, used, footprint, support) -> tuple:
    """Computes what `adjoint` needs.

    Returns:
        Per view cos b, sin b and used (V,); high and low parts of the terms of q per column (V, nx) and row
        (V, ny), then of w; high and low parts of a and b at every position; the steps to the next positions; the
        pixel sides in h; the map to the first bin and its table; and the factor of every bin.
    """
    h, (reach, candidates) = min(grid.spacing), support
    strips, flat = footprint == "strip", geometry.detector == "flat"
    pitch, middle = geometry.spacing / geometry.source_to_detector, geometry.bins // 2
    places = np.arange(-candidates, geometry.bins + candidates + 1) - 0.5 * strips
    s = geometry.offset / geometry.source_to_detector + (places - (geometry.bins - 1) / 2) * pitch
    q, w = _pixels(grid, geometry, h)
    steps, shift = np.arange(candidates + 1), -0.5 * strips - reach
    scale = _factors(grid, geometry, strips) / h
    if flat:
        # From the position in the middle, and in units of the pitch: N of position k is q' - k w'.
        q = [q_term - s[middle + candidates] * w_term for q_term, w_term in zip(q, w, strict=True)]
        w = [pitch * w_term for w_term in w]
        a, b, turns = np.ones_like(s), s, (np.ones(len(steps)), steps)
        to_first, firsts = np.array([shift, 1.0]), np.zeros(1, np.int32)
        scale = scale * pitch if strips else scale
    else:
        a, b, turns = np.cos(s), np.sin(s), (np.cos(pitch * steps), np.sin(pitch * steps))
        to_first, firsts = _arctangent_table(s, pitch, s[middle + candidates], shift)
    size = 2 * grid.radius() / h + geometry.bins * max(np.abs(term).max() for term in w) * flat
    quantum = 2.0 ** (np.ceil(np.log2(size)) - 22)
    pixels = [part for term in (*q, *w) for part in _coarse(term, quantum if flat else 1.0)]
    rays = *split_float(a, size), *split_float(b, size), np.stack(turns)
    view = np.cos(geometry.angles), np.sin(geometry.angles), used * 1.0
    return *view, *pixels, *rays, np.array([grid.spacing[1], grid.spacing[0]]) / h, to_first, firsts, scale


def _arctangent_table(s, pitch, middle, shift):
    """Tabulates `ceil((atan(t) - middle) / pitch + shift)` for cells of t = q / w narrower than `_CELL`."""
    low, high = np.tan(np.clip([s.min(), s.max()], -1.5, 1.5))
    cells = int(np.ceil((high - low) / (_CELL * pitch)))
    t = low + (high - low) * (np.arange(cells) + 0.5) / cells
    firsts = np.ceil((np.arctan(t) - middle) / pitch + shift).astype(np.int32)
    return np.array([-low * cells / (high - low), cells / (high - low)]), firsts


def _coarse(values, quantum):
    high = np.round(values / quantum) * quantum
    return high, values - high


def _factors(grid, geometry, strips):
    """The factor of a bin; a path length is `dx dy / D`, and the flat normal is longer than 1 by 1 / cos g."""
    if strips:
        return fan_strip.bin_scale(grid, geometry)
    cos = np.cos(geometry.fan_angles(np.arange(geometry.bins)))
    return np.prod(grid.spacing) * (1 / cos if geometry.detector == "flat" else np.ones_like(cos))


def _pixels(grid, geometry, h):
    """Returns q and w as sums of a term per column (V, nx) and one per row (V, ny)."""
    c, s = np.cos(geometry.angles), np.sin(geometry.angles)
    x, y = (v / h for v in grid.centres())
    return [np.outer(-s, x), np.outer(c, y)], [geometry.source_to_axis / h - np.outer(c, x), np.outer(-s, y)]


def adjoint(tables, y, *, candidates, flat, strips):
    """Computes `x_ij = sum_v sum_k weight_k y_v[first + k]` over the bins that pixel (i, j) may touch.

    Args:
        tables: `adjoint_tables`, as arrays.
        y: projections (views, bins, slices).
        candidates: number of bins that a pixel may touch.
        flat: whether the detector is flat.
        strips: whether a weight is the share of a pixel in a beam, else linear interpolation.

    Returns:
        Image (height, width, slices).
    """
    cos, sin, used, *pixels = tables[:11]
    a_high, a_low, b_high, b_low, turns, sides, to_first, firsts, scale = tables[11:]
    bins, middle = y.shape[1], y.shape[1] // 2
    a, b = a_high + a_low, b_high + b_low
    side_x = sides[0] * jnp.abs(b[None] * cos[:, None] - a[None] * sin[:, None])
    side_y = sides[1] * jnp.abs(a[None] * cos[:, None] + b[None] * sin[:, None])
    shapes = strip.trapezoid(*strip.sides(side_x, side_y)) if strips else (jnp.maximum(side_x, side_y),)
    y = jnp.pad(used[:, None, None] * scale[None, :, None] * y, ((0, 0), (candidates, candidates), (0, 0)))
    if not strips:
        y = y / jnp.square(shapes[0][:, : y.shape[1], None])

    def locate(view):
        terms, shapes = view
        q, q_rest, w, w_rest = (terms[2 + p][:, None] + terms[p][None, :] for p in (0, 1, 4, 5))
        place = (q + q_rest) / (w + w_rest)
        if flat:
            first = jnp.ceil(place + to_first[0]).astype(jnp.int32)
        else:
            first = take(firsts, (to_first[0] + to_first[1] * place).astype(jnp.int32))
        first = jnp.clip(first, -candidates - middle, bins - middle)
        index = first + (middle + candidates)
        if flat:
            k = first.astype(y.dtype)
            n, m = (q - k * w) + (q_rest - k * w_rest), w + w_rest
        else:
            a, a_rest, b, b_rest = (take(table, index) for table in (a_high, a_low, b_high, b_low))
            n = (a * q - b * w) + (a * q_rest - b * w_rest) + (a_rest * (q + q_rest) - b_rest * (w + w_rest))
            m = (b + b_rest) * (q + q_rest) + (a + a_rest) * (w + w_rest)

        lines = [
            (turns[0, k] * n - turns[1, k] * m, tuple(take(part, index + k) for part in shapes))
            for k in range(candidates + strips)
        ]
        return index, _strip_weights(lines, w + w_rest) if strips else _joseph_weights(lines)

    shape = pixels[2].shape[-1], pixels[0].shape[-1]
    return gather_sum(locate, (tuple(pixels), shapes), y, shape)


def _joseph_weights(lines):
    """The triangle of linear interpolation times `D = max(|n_x| dx, |n_y| dy)`, `D - |N|`."""
    return [jnp.maximum(0, half - jnp.abs(distance)) for distance, (half,) in lines]


def _strip_weights(lines, depth):
    """The part of the pixel between the two edges of each bin, over its depth."""
    parts = [strip.one_side(distance, shape) for distance, shape in lines]
    return [(left - right) / depth for left, right in zip(parts, parts[1:], strict=False)]

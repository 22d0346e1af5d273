"""Dense float64 matrices of the two-dimensional projectors, straight from their definitions."""

import numpy as np

from pgm_jax.operators.ct import Fan


def joseph_matrix(grid, geometry):
    """Linear interpolation where a ray crosses the rows (columns) of its driving axis, times the path length."""
    (dy, dx), (x, y) = grid.spacing, grid.centres()
    lines = geometry.lines(np.arange(geometry.bins))
    nx, ny, t = (part[..., None, None] for part in lines)
    by_rows = np.abs(nx) * dx >= np.abs(ny) * dy
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = np.abs((t - ny * y[:, None]) / nx - x[None]) / dx
        rows = np.abs((t - nx * x[None]) / ny - y[:, None]) / dy
    lengths = np.where(by_rows, dy / np.abs(nx), dx / np.maximum(np.abs(ny), 1e-300))
    return lengths * np.maximum(0, 1 - np.where(by_rows, columns, rows))


def strip_matrix(grid, geometry):
    """The area of each pixel within each beam, by clipping polygons, times the mean length per area."""
    (dy, dx), (x, y) = grid.spacing, grid.centres()
    lines = geometry.lines(np.arange(geometry.bins + 1) - 0.5)
    areas = np.zeros((geometry.views, geometry.bins + 1, len(y), len(x)))
    for v, k, i, j in np.ndindex(areas.shape):
        corners = [
            (x[j] + a * dx, y[i] + b * dy) for a, b in ((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5))
        ]
        areas[v, k, i, j] = _area(_clip(corners, lines.x[v, k], lines.y[v, k], lines.t[v, k]))
    shares = np.diff(areas, axis=1) / geometry.spacing
    if not isinstance(geometry, Fan):
        return shares
    c, s = np.cos(geometry.angles), np.sin(geometry.angles)
    depth = geometry.source_to_axis - c[:, None, None] * x - s[:, None, None] * y[:, None]
    cos = np.cos(geometry.fan_angles(np.arange(geometry.bins)))
    per_bin = geometry.source_to_detector * (1 / cos if geometry.detector == "flat" else cos)
    return shares * per_bin[None, :, None, None] / depth[:, None]


def _clip(polygon, nx, ny, t):
    """The part of a polygon with n . p <= t."""
    part = []
    for p, q in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        a, b = nx * p[0] + ny * p[1] - t, nx * q[0] + ny * q[1] - t
        if a <= 0:
            part.append(p)
        if a * b < 0:
            part.append((p[0] + a / (a - b) * (q[0] - p[0]), p[1] + a / (a - b) * (q[1] - p[1])))
    return part


def _area(polygon):
    sides = zip(polygon, polygon[1:] + polygon[:1], strict=True)
    return 0.5 * abs(sum(p[0] * q[1] - p[1] * q[0] for p, q in sides))

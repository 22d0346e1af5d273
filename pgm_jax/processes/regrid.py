"""Changes of a grid: rises for churn and resampling, and a time of its own for every voxel."""

import itertools
import math

import numpy as np

from pgm_jax.processes.diffusion import EDM
from pgm_jax.processes.grid import subset

# EDM's largest growth of the noise level by one churn (Karras et al. 2022, Algorithm 2).
_LARGEST_CHURN = math.sqrt(2) - 1


def churn(grid, s_churn, s_min=0.0, s_max=math.inf, process=None):
    """Adds EDM's churn to a grid, as rises (Karras et al. 2022, Algorithm 2, S_noise = 1).

    Before the step from a level in [s_min, s_max] the grid rises to `(1 + gamma)` times that level,
    `gamma = min(s_churn / n, sqrt(2) - 1)`, n the number of steps.

    Args:
        grid: (n + 1,) falling times.
        s_churn: amount of churn; 0 returns the grid.
        s_min: smallest level that is churned, as `sigma / alpha`.
        s_max: largest level that is churned.
        process: the process; `EDM()` by default.

    Returns:
        float64 times: t_0, risen t_0, t_1, risen t_1, ..., t_n.

    Raises:
        ValueError: for a grid that `subset` refuses, or a negative or non-finite s_churn.
    """
    grid = subset(grid)
    if not (math.isfinite(s_churn) and s_churn >= 0):
        raise ValueError(f"churn needs a finite s_churn >= 0, got {s_churn}.")
    process = EDM() if process is None else process
    gamma = min(s_churn / (len(grid) - 1), _LARGEST_CHURN)
    visited = []
    for t in grid[:-1]:
        visited.append(t)
        level = float(process.ratio(t))
        if gamma > 0 and s_min <= level <= s_max and math.isfinite(level):
            risen = float(process.time((1 + gamma) * level))
            # At the noisy end of a bounded chain there is nowhere to rise to.
            visited.extend([risen] if risen > t else [])
    return np.array([*visited, grid[-1]])


def resample(grid, repeats, last=False):
    """Adds RePaint's resampling to a grid: every step is taken `repeats` times (Lugmayr et al. 2022, Alg. 1).

    A pair (t, s) becomes t, s, t, s, ..., s; the rises are exact forward moves.

    Args:
        grid: (n + 1,) falling times.
        repeats: number of descents per pair; 1 returns the grid.
        last: whether the last pair, which usually ends at the clean image, is repeated too.

    Returns:
        float64 times.

    Raises:
        ValueError: for a grid that `subset` refuses, or fewer than 1 repeat.
    """
    grid = subset(grid)
    if int(repeats) != repeats or repeats < 1:
        raise ValueError(f"resample needs a whole number of repeats >= 1, got {repeats}.")
    visited = [grid[0]]
    for t, s in itertools.pairwise(grid):
        again = int(repeats) - 1 if last or s != grid[-1] else 0
        visited.extend([s, t] * again + [s])
    return np.array(visited)


def voxelwise(grid, scale):
    """Returns a grid with its own times in every voxel: `grid * scale`.

    Where the scale is 0 the voxel is clean from the start and never changes; 1 is the grid itself.

    Args:
        grid: (n + 1,) times, rising or falling.
        scale: map in [0, 1], of the shape of the image or one that broadcasts to it.

    Returns:
        (n + 1, *scale.shape) float64.

    Raises:
        ValueError: for a grid that is not one-dimensional, or a map that leaves [0, 1].
    """
    grid, scale = np.asarray(grid, np.float64), np.asarray(scale, np.float64)
    if grid.ndim != 1:
        raise ValueError(f"voxelwise needs a (n + 1,) grid, got shape {grid.shape}.")
    if not np.all((scale >= 0) & (scale <= 1)):
        raise ValueError(f"voxelwise needs a map in [0, 1], got [{np.min(scale):.3g}, {np.max(scale):.3g}].")
    return grid.reshape((-1,) + (1,) * scale.ndim) * scale

"""Noise levels and Langevin step size of NCSN, by the rules of NCSNv2 (Song and Ermon 2020)."""

import math

import numpy as np


def ncsn_levels(data_or_max, size, sigma_min=0.01):
    """Returns geometric noise levels (NCSNv2, Techniques 1 and 2).

    The largest is the largest distance between two images (Technique 1). The ratio g of neighbours solves
    `Phi(sqrt(2 N) (g - 1) + 3 g) - Phi(sqrt(2 N) (g - 1) - 3 g) = 0.5`, so that the shells of neighbouring
    levels overlap (Technique 2); the count is rounded up, which brings the levels slightly closer.

    Args:
        data_or_max: (n, ...) images, or the largest level itself.
        size: number N of real components of one image.
        sigma_min: smallest level.

    Returns:
        (L,) float64, falling from the largest level to sigma_min.

    Raises:
        ValueError: for a size below 1, or levels that are not 0 < sigma_min < sigma_max < inf.
    """
    largest = float(data_or_max) if np.ndim(data_or_max) == 0 else largest_distance(data_or_max)
    if not (math.isfinite(largest) and 0 < sigma_min < largest):
        raise ValueError(f"ncsn_levels needs 0 < sigma_min < sigma_max < inf, got {sigma_min} and {largest}.")
    count = math.ceil(math.log(largest / sigma_min) / math.log(level_ratio(size))) + 1
    return np.geomspace(largest, sigma_min, max(count, 2))


def level_ratio(size):
    """Solves Technique 2 of NCSNv2 for the ratio g > 1 of neighbouring levels, by bisection.

    Args:
        size: number N of real components of one image.

    Returns:
        The ratio, a float.

    Raises:
        ValueError: for a size below 1.
    """
    if size < 1:
        raise ValueError(f"level_ratio needs a size of at least 1, got {size}.")
    normal = lambda u: 0.5 * math.erfc(-u / math.sqrt(2))
    root = math.sqrt(2 * size)
    overlap = lambda g: normal(root * (g - 1) + 3 * g) - normal(root * (g - 1) - 3 * g) - 0.5
    # For a handful of pixels the shells overlap at any ratio; ten is as coarse as the rule is useful.
    low, high = 1.0, 10.0
    if overlap(high) > 0:
        return high
    for _ in range(80):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if overlap(middle) > 0 else (low, middle)
    return 0.5 * (low + high)


def ncsn_step_size(levels, steps_per_level):
    """Returns the Langevin step size at the smallest level (NCSNv2, Technique 4).

    With e = eps / sigma_L^2, T steps a level and the ratio g, the variance after a level relative to its
    target is `(1 - e)^(2 T) (g^2 - k) + k`, `k = 2 e / (1 - (1 - e)^2)`. It is above 1 for every e; the
    result minimises it. The update is `x + a score + sqrt(2 a) z`, `a = eps sigma_i^2 / sigma_L^2`
    (review Eq. 4).

    Args:
        levels: (L,) geometric levels, falling; see `ncsn_levels`.
        steps_per_level: Langevin steps T at each level.

    Returns:
        eps, a float, in squared units of the levels.

    Raises:
        ValueError: for fewer than two levels, levels that do not fall, or fewer than 1 step.
    """
    levels = np.asarray(levels, np.float64)
    if levels.ndim != 1 or len(levels) < 2 or np.any(np.diff(levels) >= 0) or levels[-1] <= 0:
        raise ValueError("ncsn_step_size needs two or more falling, positive levels.")
    if steps_per_level < 1:
        raise ValueError(f"ncsn_step_size needs at least 1 step per level, got {steps_per_level}.")
    g_sq = (levels[0] / levels[-1]) ** (2 / (len(levels) - 1))
    # k = 2 / (2 - e), so k - 1 = e / (2 - e)
    excess = lambda e: (1 - e) ** (2 * steps_per_level) * (g_sq - 2 / (2 - e)) + e / (2 - e)
    return float(_minimise(excess, 0.0, 1.0) * levels[-1] ** 2)


def largest_distance(data, rows=512):
    """Returns the largest Euclidean distance between two of the images.

    Args:
        data: (n, ...) real or complex images.
        rows: images compared, evenly chosen from more; the result is then a lower bound.

    Returns:
        The distance, a float, in units of the data.
    """
    data = np.asarray(data)
    chosen = data[np.unique(np.linspace(0, len(data) - 1, min(rows, len(data))).astype(int))]
    flat = chosen.reshape(len(chosen), -1)
    if np.iscomplexobj(flat):
        flat = np.concatenate([flat.real, flat.imag], axis=1)
    # Centring first keeps the difference of squares accurate.
    flat = flat.astype(np.float64) - flat.mean(0, dtype=np.float64)
    energy = np.sum(flat**2, axis=1)
    squared = energy[:, None] + energy[None, :] - 2 * flat @ flat.T
    return float(np.sqrt(max(squared.max(), 0.0)))


def _minimise(f, low, high):
    """Golden-section search of a function with one minimum."""
    golden = (math.sqrt(5) - 1) / 2
    for _ in range(100):
        left, right = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, right) if f(left) < f(right) else (left, high)
    return 0.5 * (low + high)

"""Grids: the times that a sampler visits, float64 on the host, in visiting order.

Times are the process's own variable and consecutive entries are explicit pairs (t, s): no step recomputes its
predecessor, whatever the spacing. A grid may rise; the driver answers a rise with `process.renoise`.
"""

import math

import numpy as np

# Fast-DDPM's published non-uniform indices for 10 steps of 1000.
_FAST_DDPM_10 = (0, 199, 399, 599, 699, 799, 849, 899, 949, 999)


def karras(steps, sigma_min=0.002, sigma_max=80.0, rho=7.0, process=None):
    """Returns EDM's grid (Karras et al. 2022, Eq. 5): levels even in `sigma^(1 / rho)`, then 0.

    Levels are `sigma / alpha` ratios, turned into times by `process.time`.

    Args:
        steps: number of steps; 1 is allowed and goes from sigma_max to 0.
        sigma_min: smallest positive level.
        sigma_max: largest level.
        rho: exponent; larger puts more levels at the clean end.
        process: the process; `EDM()` by default, whose time is the level.

    Returns:
        (steps + 1,) float64, ending at 0.

    Raises:
        ValueError: for fewer than 1 step, levels that are not 0 < sigma_min < sigma_max, or levels outside
            the process's range.
    """
    _check_levels(steps, sigma_min, sigma_max)
    if not rho > 0:
        raise ValueError(f"karras needs rho > 0, got {rho}.")
    place = np.linspace(0.0, 1.0, steps) if steps > 1 else np.zeros(1)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return _times(np.append((high + place * (low - high)) ** rho, 0.0), process)


def log_snr(steps, sigma_min=0.002, sigma_max=80.0, process=None, end_at_zero=True):
    """Returns geometric levels: even in log signal-to-noise ratio.

    Args:
        steps: number of steps.
        sigma_min: smallest positive level.
        sigma_max: largest level.
        process: the process; `EDM()` by default.
        end_at_zero: True ends at 0 after `steps` levels; False ends at sigma_min after `steps + 1`.

    Returns:
        (steps + 1,) float64.

    Raises:
        ValueError: as `karras`.
    """
    _check_levels(steps, sigma_min, sigma_max)
    count = steps if end_at_zero else steps + 1
    levels = np.geomspace(sigma_max, sigma_min, count) if count > 1 else np.array([float(sigma_max)])
    return _times(np.append(levels, 0.0) if end_at_zero else levels, process)


def few_step_grid(process, steps, sigma_max, *, sigma_min=0.002, rho=3.0):
    """Returns the grid of multistep consistency: Karras' levels from sigma_max, without sigma_min, then 0.

        sigma_i = (sigma_max^(1/rho) + i / steps (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho,   i < steps

    From each level the consistency function goes to a clean image, so none is left at sigma_min. The exponent is
    smaller than a denoiser's 7: from 20 the second of two levels is 2.9. A first image from pure noise needs that
    much noise anew; on chest CT its kernel distance to real patches is a third of that at .27, the median level of
    the training (`benchmarks/README.md`, "Few steps").

    Args:
        process: the process, whose times are returned; levels are `sigma / alpha`.
        steps: number of steps, each one evaluation of the consistency function.
        sigma_max: level at which the sampler starts.
        sigma_min: smallest level of the training.
        rho: exponent.

    Returns:
        (steps + 1,) float64, ending at 0.

    Raises:
        ValueError: as `karras`.
    """
    _check_levels(steps, sigma_min, sigma_max)
    return np.append(karras(steps + 1, sigma_min, sigma_max, rho, process)[:steps], 0.0)


def linear(steps, t_max=1.0, t_min=0.0):
    """Returns evenly spaced times from t_max down to t_min.

    Args:
        steps: number of steps.
        t_max: first time.
        t_min: last time.

    Returns:
        (steps + 1,) float64.

    Raises:
        ValueError: for fewer than 1 step, or times that are not finite with t_max > t_min >= 0.
    """
    _check_steps(steps)
    if not (math.isfinite(t_max) and math.isfinite(t_min)):
        raise ValueError(f"linear needs finite times, got t_max={t_max}, t_min={t_min}.")
    return subset(np.linspace(t_max, t_min, steps + 1))


def trailing(steps, total=1000):
    """Returns integer times of a chain of `total` steps, from total to 0 (Lin et al. 2024, Table 2).

    The first time is always `total` and the last always 0, the clean image; `steps` need not divide `total`.

    Args:
        steps: number of steps, at most `total`.
        total: length T of the chain, as in `DDPM(betas)`.

    Returns:
        (steps + 1,) float64 of whole numbers.

    Raises:
        ValueError: for fewer than 1 step or more than `total`.
    """
    _check_steps(steps)
    if steps > total:
        raise ValueError(f"trailing: {steps} steps do not fit into a chain of {total}.")
    return subset(np.floor(np.arange(steps, -1, -1) * (total / steps) + 0.5))


def subset(times):
    """Returns a grid of chosen times, checked.

    Args:
        times: two or more times in strictly falling order; add the 0 yourself.

    Returns:
        (n + 1,) float64.

    Raises:
        ValueError: for fewer than two times, and non-finite, negative or not strictly falling ones.
    """
    grid = np.asarray(times, np.float64)
    if grid.ndim != 1 or len(grid) < 2:
        raise ValueError(f"A grid needs a list of at least two times, got shape {grid.shape}.")
    if not np.all(np.isfinite(grid)):
        raise ValueError(f"A grid needs finite times, got {grid}.")
    if np.any(grid < 0) or np.any(np.diff(grid) >= 0):
        raise ValueError(
            f"A grid needs times >= 0 in strictly falling order, noisiest first, got {grid}; churn() and "
            "resample() add rises."
        )
    return grid


def fast_ddpm(steps=10, spacing="uniform", total=1000):
    """Returns Fast-DDPM's grid, for training on these times only as well as for sampling (Jiang et al. 2025).

    The time is the reference's index + 1 (time 0 is the clean image), and 0 is added at the end.
    "uniform" has indices 0, T / K - 1, 2 T / K - 1, ..., T - 1: K + 1 of them, as in the reference, so K + 1
    steps. "nonuniform" has K: the published list for K = 10, else 40 % of them in the first 70 % of the chain
    and 60 % in the rest.

    Args:
        steps: the reference's K.
        spacing: "uniform" or "nonuniform".
        total: length T of the chain.

    Returns:
        (K + 2,) or (K + 1,) float64 of whole numbers, from T to 0.

    Raises:
        ValueError: for another spacing, or a K that is below 1, above T / 2 or (uniform) no divisor of T.
    """
    _check_steps(steps)
    if 2 * steps > total:
        raise ValueError(f"fast_ddpm: {steps} steps are too many for a chain of {total}; use trailing().")
    if spacing == "uniform":
        if total % steps:
            raise ValueError(f"fast_ddpm: {steps} uniform steps must divide {total}; use trailing().")
        indices = np.maximum(np.arange(-1, total, total // steps), 0)
    elif spacing == "nonuniform":
        indices = _nonuniform(steps, total)
    else:
        raise ValueError(f'fast_ddpm: spacing must be "uniform" or "nonuniform", got {spacing!r}.')
    return subset(np.append(indices[::-1] + 1.0, 0.0))


def _nonuniform(steps, total):
    if steps == 10:
        return np.floor((np.array(_FAST_DDPM_10) + 1) * (total / 1000) + 0.5).clip(1) - 1
    turn = 0.7 * total - 1
    early = int(0.4 * steps)
    coarse = np.linspace(0, turn, early + 1)[:-1]
    # One index alone is the noisiest one: a sampler starts there.
    fine = np.linspace(turn, total - 1, steps - early) if steps - early > 1 else np.array([total - 1.0])
    # Rounding before the ceiling keeps whole numbers whole.
    return np.ceil(np.round(np.concatenate([coarse, fine]), 9))


def _times(levels, process):
    times = levels if process is None else np.asarray(process.time(levels), np.float64)
    if levels[-1] == 0:
        times = np.append(times[:-1], 0.0)
    if not np.all(np.isfinite(times)) or np.any(np.diff(times) >= 0):
        raise ValueError(
            f"The levels {levels[0]:.4g} to {levels[levels > 0][-1]:.4g} leave the range of this "
            f"process: their times {times} do not fall strictly. "
            "Choose sigma_max and sigma_min inside process.ratio's range."
        )
    return times


def _check_steps(steps):
    if int(steps) != steps or steps < 1:
        raise ValueError(f"A grid needs a whole number of steps >= 1, got {steps}.")


def _check_levels(steps, sigma_min, sigma_max):
    _check_steps(steps)
    if not (math.isfinite(sigma_max) and 0 < sigma_min < sigma_max):
        raise ValueError(f"A grid needs 0 < sigma_min < sigma_max < inf, got {sigma_min} and {sigma_max}.")

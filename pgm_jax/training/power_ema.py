"""Power-function averages of parameters, and their reconstruction after training (Karras et al. 2024, Sec. 3).

An average with exponent gamma at time t weighs the parameters of time tau by

    p(tau) = (gamma + 1) tau^gamma / t^(gamma + 1),   0 <= tau <= t.

Its relative width, the standard deviation of p over t, is `std`, which names it.
"""

import jax
import numpy as np

# The uniform average, gamma = 0, has the largest width of all.
_LARGEST = 12**-0.5


def power_exponent(std) -> float:
    """Returns the exponent gamma of an average of relative width std (Karras et al. 2024, Sec. 3.1).

    `std^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3))`: gamma is the largest root of
    `gamma^3 + 7 gamma^2 + (16 - std^-2) gamma + 12 - std^-2`.

    Args:
        std: relative width, in (0, 0.2887); .05 is gamma 16.97, .10 is 6.94.

    Returns:
        Python float.

    Raises:
        ValueError: for another width.
    """
    if not 0 < std < _LARGEST:
        raise ValueError(f"a power-function average has a relative width in (0, {_LARGEST:.4f}), got {std}.")
    roots = np.roots([1.0, 7.0, 16.0 - std**-2, 12.0 - std**-2])
    return float(np.max(roots.real))


def profile_products(times, stds, other_times, other_stds):
    """Returns the inner products `int p_i(tau) q_j(tau) dtau` of two lists of profiles, in float64.

    With t the earlier of the two times, and exponents a at t and b at the later time u, the product is
    `(a + 1) (b + 1) (t / u)^b / ((a + b + 1) u)` (Karras et al. 2024, Sec. 3.2).

    Args:
        times: (n,) times t_i.
        stds: (n,) relative widths.
        other_times: (m,) times.
        other_stds: (m,) relative widths.

    Returns:
        (n, m) array.
    """
    t, u = (np.asarray(v, np.float64) for v in (times, other_times))
    a, b = (np.array([power_exponent(s) for s in widths]) for widths in (stds, other_stds))
    t, a, u, b = t[:, None], a[:, None], u[None], b[None]
    earlier = t <= u
    last = np.maximum(t, u)
    # The exponent of the later profile, whose tail beyond the earlier time is cut off.
    exponent = np.where(earlier, b, a)
    return (a + 1) * (b + 1) / (a + b + 1) * (np.minimum(t, u) / last) ** exponent / last


def post_hoc_weights(times, stds, target_std, target_time):
    """Returns the weights with which stored averages best give another one: `min_w |sum_i w_i p_i - p|_2`.

    Args:
        times: (n,) positive steps at which averages were stored.
        stds: (n,) relative width of each.
        target_std: relative width wanted.
        target_time: step wanted.

    Returns:
        (n,) float64; some may be negative, and they add up to nearly 1.

    Raises:
        ValueError: for lists of different lengths, times that are not positive, or widths out of range.
    """
    times, stds = np.asarray(times, np.float64), np.asarray(stds, np.float64)
    if times.ndim != 1 or times.shape != stds.shape or not times.size or not np.all(times > 0):
        raise ValueError(
            f"post_hoc needs as many positive times as stds, got shapes {times.shape} and {stds.shape}."
        )
    products = profile_products(times, stds, times, stds)
    wanted = profile_products(times, stds, [target_time], [target_std])[:, 0]
    # Profiles of unit norm, so that early and late snapshots are judged alike.
    scale = 1 / np.sqrt(np.diag(products))
    weights, *_ = np.linalg.lstsq(scale[:, None] * products * scale, scale * wanted, rcond=1e-14)
    return scale * weights


def post_hoc(snapshots, times, stds, target_std, target_time=None):
    """Reconstructs the power-function average of any width from stored ones (Karras et al. 2024, Sec. 3.2).

    Store the averages of two widths, such as .05 and .10, every few thousand steps; any width between them,
    at any time that they cover, can then be chosen after training.

    Args:
        snapshots: list of n parameter pytrees of one structure: stored averages.
        times: (n,) steps at which they were stored, counted after the optimiser's update, as `ema.power` does.
        stds: (n,) relative width of each.
        target_std: relative width wanted.
        target_time: step wanted; the last of times if None.

    Returns:
        Pytree of NumPy arrays of the snapshots' dtypes, summed in float64.

    Raises:
        ValueError: for numbers of snapshots, times and stds that differ, or as `post_hoc_weights`.
    """
    if len(snapshots) != len(times):
        raise ValueError(f"post_hoc got {len(snapshots)} snapshots and {len(times)} times.")
    weights = post_hoc_weights(times, stds, target_std, max(times) if target_time is None else target_time)

    def combined(*leaves):
        total = sum(w * np.asarray(leaf, np.float64) for w, leaf in zip(weights, leaves, strict=True))
        return total.astype(leaves[0].dtype)

    return jax.tree.map(combined, *snapshots)

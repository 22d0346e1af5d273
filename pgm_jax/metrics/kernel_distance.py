"""The kernel distance of two sets of feature vectors, with an interval."""

from typing import NamedTuple

import numpy as np

_NORMAL_975 = 1.959964


class Interval(NamedTuple):
    """An estimate with its 95 % interval.

    Attributes:
        value: the estimate.
        low: lower end.
        high: upper end.
    """

    value: float
    low: float
    high: float


def standardised(features, reference, limit: float = 5.0):
    """Scales features to mean 0 and deviation 1 over a reference, and cuts them off.

    Without the cut, the cube in KID's kernel leaves one diverged image to decide the distance.

    Args:
        features: (n, d) feature vectors.
        reference: (m, d) feature vectors of real images.
        limit: largest magnitude of the result, in deviations.

    Returns:
        (n, d) float64; features that never change over the reference are 0.
    """
    features, reference = np.asarray(features, np.float64), np.asarray(reference, np.float64)
    scale = reference.std(axis=0)
    scale = np.where(scale > 1e-6 * np.abs(reference).max(), scale, np.inf)
    return np.clip((features - reference.mean(axis=0)) / scale, -limit, limit)


def kernel_distance(a, b, *, groups_a=None, groups_b=None) -> Interval:
    """Estimates the squared maximum mean discrepancy with KID's kernel, `k(x, y) = (x . y / d + 1)^3`.

    `E k(x, x') + E k(y, y') - 2 E k(x, y)`, means over pairs of different vectors, so that it is unbiased for any
    numbers of samples, and may be below 0 where the laws are close. The interval is the estimate +- 1.96 standard
    errors by the jackknife that leaves out one group of a, or one of b, at a time: vectors that are not
    independent, such as patches of one slice, belong into one group. It covers the draw of the samples, not the
    choice of features.

    Source: A. Gretton et al., A kernel two-sample test, JMLR 13 (2012), Eq. 3, with the kernel of M. Binkowski et
    al., Demystifying MMD GANs, ICLR 2018.

    Args:
        a: (n, d) feature vectors, see `standardised`.
        b: (m, d) feature vectors.
        groups_a: (n,) labels of groups; by default each vector is one.
        groups_b: (m,) likewise.

    Returns:
        `Interval` in the unit of the kernel, 0 for equal laws.

    Raises:
        ValueError: if the lengths differ, or a set has fewer than three groups.
    """
    a, b = (np.asarray(values, np.float64) for values in (a, b))
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"kernel_distance needs (n, d) and (m, d) feature vectors, got {a.shape}, {b.shape}")
    first, second = _indicator(groups_a, len(a), "a"), _indicator(groups_b, len(b), "b")
    kernel = lambda x, y: (x @ y.T / a.shape[1] + 1) ** 3
    # Sums over pairs of groups hold all that the jackknife asks for.
    within = [g.T @ (k - np.diag(np.diag(k))) @ g for g, k in ((first, kernel(a, a)), (second, kernel(b, b)))]
    across = first.T @ kernel(a, b) @ second
    sizes = [first.sum(axis=0), second.sum(axis=0)]
    sums, counts = [w.sum() for w in within], [size.sum() for size in sizes]
    value = _distance(sums, across.sum(), counts)
    variance = 0.0
    for side in (0, 1):
        own, joint = within[side], across.sum(axis=1 - side)
        # Without each group in turn: its pairs with all others, both ways, and those inside it.
        left_sums = _replaced(sums, side, sums[side] - 2 * own.sum(axis=0) + np.diag(own))
        left_counts = _replaced(counts, side, counts[side] - sizes[side])
        left = _distance(left_sums, across.sum() - joint, left_counts)
        variance += (len(left) - 1) / len(left) * np.sum((left - left.mean()) ** 2)
    reach = _NORMAL_975 * np.sqrt(variance)
    return Interval(float(value), float(value - reach), float(value + reach))


def _distance(sums, across, counts):
    n, m = counts
    return sums[0] / (n * (n - 1)) + sums[1] / (m * (m - 1)) - 2 * across / (n * m)


def _replaced(pair, side, value):
    return [value, pair[1]] if side == 0 else [pair[0], value]


def _indicator(groups, count, name):
    labels = np.arange(count) if groups is None else np.asarray(groups)
    if labels.shape != (count,):
        raise ValueError(
            f"groups_{name} has shape {labels.shape} for {count} vectors: give one label a vector"
        )
    numbers = np.unique(labels, return_inverse=True)[1]
    if numbers.max(initial=0) < 2:
        raise ValueError(
            f"set {name} of {count} vectors has {numbers.max(initial=-1) + 1} groups: the interval needs at least 3"
        )
    return (numbers[:, None] == np.arange(numbers.max() + 1)).astype(np.float64)

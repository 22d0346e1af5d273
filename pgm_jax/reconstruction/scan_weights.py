"""What views and rays count in an analytic reconstruction: angular steps, redundancy. Host functions."""

import numpy as np

# A gap this many times the median is a missing wedge.
_WEDGE = 4.0


def angular_steps(angles, period: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Computes the step of every view, half the gaps to its two neighbours on a circle of angles.

    A gap wider than four median gaps is a wedge that was not measured: the views beside it get the median in its
    place, so nothing stands in for what is missing.

    Args:
        angles: (views,) radians, in any order.
        period: 2 pi, or pi where opposite views see the same lines.

    Returns:
        (steps (views,) radians, place (views,) of each view from the start of the scan, coverage): place is the
        middle of the view's step, and the coverage is the sum of steps, radians.
    """
    turned = np.mod(np.asarray(angles, np.float64), period)
    # A view at 2 pi - 1e-16 is one at 0.
    turned = np.where(period - turned < 1e-9, 0.0, turned)
    order = np.argsort(turned, kind="stable")
    sorted_angles = turned[order]
    gaps = np.diff(sorted_angles, append=sorted_angles[0] + period)
    # Where views repeat, as opposite views do, gaps of 0 are not the typical ones.
    median = np.median(gaps[gaps > 1e-9])
    closed = gaps.max() <= _WEDGE * median
    filled = np.where(gaps > _WEDGE * median, median, gaps)
    start = 0 if closed else (int(np.argmax(gaps)) + 1) % len(gaps)
    steps = np.zeros(len(turned))
    place = np.zeros(len(turned))
    steps[order] = (filled + np.roll(filled, 1)) / 2
    place[order] = np.mod(sorted_angles - sorted_angles[start], period)
    return steps, place + (0 if closed else filled[start - 1] / 2), float(min(steps.sum(), period))


def offset_weights(s, reach: tuple[float, float]) -> np.ndarray:
    """Computes weights w(s) + w(-s) = 1 of a detector that sees [-reach[0], reach[1]] in a full turn.

    Where only one of s and -s is seen, w = 1; in between `w = sin^2(pi / 4 (1 + s / d))`, d the smaller reach,
    turned round if the detector reaches further to the other side.

    Args:
        s: positions of the bins, mm or radians.
        reach: how far the detector sees to both sides, same unit.

    Returns:
        float64 array like s.
    """
    side = 1.0 if reach[1] >= reach[0] else -1.0
    overlap = max(min(reach), 1e-12)
    return np.sin(np.pi / 4 * (1 + np.clip(side * np.asarray(s) / overlap, -1, 1))) ** 2


def parker_weights(place, fan_angles, coverage: float) -> np.ndarray:
    """Computes smooth weights of a short scan, 1 in sum over the two rays that see a line.

    The ray at place p of the scan and fan angle g is seen again at `(p + pi - 2 g, -g)`. With
    `d = (coverage - pi) / 2`, w rises as `sin^2(pi / 4 p / (d + g))` for p < 2 (d + g) and falls as
    `sin^2(pi / 4 (coverage - p) / (d - g))` for p > pi + 2 g.

    Source: D. L. Parker, Optimal short scan convolution reconstruction for fan beam CT, Med. Phys. 9 (1982),
    for any coverage between a half turn plus the fan and a full one.

    Args:
        place: (views,) radians from the start of the scan.
        fan_angles: (bins,) radians from the central ray.
        coverage: radians, at least `pi + 2 max |fan angle|`.

    Returns:
        float64 array (views, bins) in [0, 1].
    """
    p, g, d = place[:, None], np.asarray(fan_angles)[None], (coverage - np.pi) / 2
    rise = np.clip(p / np.maximum(d + g, 1e-12), 0, 2)
    fall = np.clip((coverage - p) / np.maximum(d - g, 1e-12), 0, 2)
    return (np.sin(np.pi / 4 * rise) * np.sin(np.pi / 4 * fall)) ** 2

"""Calibration of pixel-wise uncertainty: miscoverage of intervals and the factor that corrects it."""

import numpy as np


def miscoverage(mean, std, truth, factor=1.0, mask=None):
    """Computes the share of pixels outside `mean +- factor std`, for each image.

    Args:
        mean: (images, *image) real.
        std: (images, *image), at least 0.
        truth: (images, *image) real, in the same unit.
        factor: half width of the intervals in standard deviations.
        mask: (images, *image) or (*image) of truth values; pixels outside it are left out.

    Returns:
        (images,) float64 in [0, 1].

    Raises:
        ValueError: if the shapes differ, or a mask leaves no pixel of an image.
    """
    return np.mean(_scores(mean, std, truth, mask) > factor, axis=1, where=_inside(truth, mask))


def conformal_factor(mean, std, truth, level: float = 0.9, mask=None) -> float:
    """Finds the smallest factor for which intervals `mean +- factor std` cover a new image's pixels on average.

    The smallest `q` with `(sum_i miscoverage_i(q) + 1) / (n + 1) <= 1 - level` over n calibration images, so
    that an image exchangeable with them has an expected share of at least `level` of its pixels inside, whatever
    the distribution of images and however wrong `std` is. Slices of one person are not exchangeable with those
    of another: give one image a person, or as many of each.

    Source: A. N. Angelopoulos et al., Conformal risk control, ICLR 2024, Eq. 4.

    Args:
        mean: (images, *image) real, of the calibration images.
        std: (images, *image), at least 0.
        truth: (images, *image) real.
        level: share of pixels to cover, in (0, 1).
        mask: see `miscoverage`.

    Returns:
        The factor, a Python number.

    Raises:
        ValueError: if the shapes differ, the level is not in (0, 1), there are fewer than `1 / (1 - level) - 1`
            images, or no finite factor suffices (pixels of spread 0 that are wrong).
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}: give a share of pixels between 0 and 1, such as 0.9")
    scores, inside = _scores(mean, std, truth, mask), _inside(truth, mask)
    images = len(scores)
    allowed = (images + 1) * (1 - level) - 1
    if allowed < -1e-9:
        raise ValueError(
            f"{images} calibration images cannot show a coverage of {level:g}: give at least "
            f"{int(np.ceil(1 / (1 - level) - 1 - 1e-9))}"
        )
    # Each pixel of an image weighs the same, each image 1; the risk falls by that weight as q passes a score.
    weights = (inside / inside.sum(axis=1, keepdims=True))[inside]
    order = np.argsort(scores[inside])[::-1]
    risk = np.cumsum(weights[order])
    passed = np.searchsorted(risk, allowed + 1e-12, side="right")
    if passed == len(order):
        return 0.0
    factor = float(scores[inside][order[passed]])
    if not np.isfinite(factor):
        raise ValueError(
            "no finite factor covers the truth: pixels with a standard deviation of 0 are wrong; mask them, or "
            "draw more"
        )
    return factor


def _scores(mean, std, truth, mask):
    """|truth - mean| / std of every pixel (images, pixels); 0 where both are 0, infinite where only std is."""
    mean, std, truth = (np.asarray(array, np.float64) for array in (mean, std, truth))
    if not mean.shape == std.shape == truth.shape or mean.ndim < 2:
        raise ValueError(
            f"mean, std and truth have shapes {mean.shape}, {std.shape}, {truth.shape}: give the same (images, ...)"
        )
    if np.any(std < 0) or not all(np.isfinite(array).all() for array in (mean, std, truth)):
        raise ValueError("mean, std and truth must be finite and std at least 0: check the draws")
    error = np.abs(truth - mean)
    scores = np.divide(error, std, out=np.where(error > 0, np.inf, 0.0), where=std > 0)
    return scores.reshape(len(scores), -1)


def _inside(truth, mask):
    shape = np.shape(truth)
    inside = np.ones(shape, bool) if mask is None else np.broadcast_to(np.asarray(mask, bool), shape)
    inside = inside.reshape(shape[0], -1)
    if not inside.any(axis=1).all():
        raise ValueError("the mask leaves no pixel of an image: leave that image out")
    return inside

"""Suggested hyper-parameters for a data set, each with the figure that it rests on."""

import math
from typing import NamedTuple

import numpy as np

from pgm_jax.processes.ncsn import largest_distance, ncsn_levels


class Suggestion(NamedTuple):
    """Hyper-parameters measured on a data set by `suggest`.

    Attributes:
        sigma_data: standard deviation of the data per real component; EDM's sigma_data.
        sigma_min: smallest noise level of a sampler.
        sigma_max: largest noise level, where the state's law no longer shows the data.
        P_mean: mean of ln sigma in training.
        P_std: standard deviation of ln sigma in training.
        D: PFGM++ dimension; infinity is EDM.
        levels: (L,) NCSNv2 levels from sigma_max to sigma_min.
        size: number N of real components of one image.
        reasons: one sentence a value, with its figures.
    """

    sigma_data: float
    sigma_min: float
    sigma_max: float
    P_mean: float
    P_std: float
    D: float
    levels: np.ndarray
    size: int
    reasons: list


def suggest(data):
    """Suggests noise levels, training law and PFGM++ dimension for a data set.

    Published values (sigma 0.002 to 80, P_mean -1.2, sigma_data 0.5) are those of 3 x 32 x 32 images in
    [-1, 1]; other images need their own (NVlabs/edm issues 21 and 24 ask how). The rules:

        sigma_data   root mean square after subtracting the mean
        sigma_min    .004 sigma_data, EDM's own proportion
        sigma_max    the largest distance between two images (NCSNv2, Technique 1)
        P_mean       -1.2 + ln(sigma_data / .5) + ln(N / 3072) / 2 for N > 3072: averaging over neighbours
                     hides noise in large images, so the interesting levels move up with sqrt(N)
        P_std        1.2
        D            infinity: N / D, not D, says how far from Gaussian a kernel is; the best D is empirical
        levels       NCSNv2, Technique 2

    Args:
        data: (n, ...) real or complex images, in the units in which the model will see them.

    Returns:
        `Suggestion`.

    Raises:
        ValueError: for fewer than two images, images without pixels, NaN or infinite values, or data that do
            not vary.
    """
    data = _checked(data)
    components = 2 if np.iscomplexobj(data) else 1
    size = int(np.prod(data.shape[1:])) * components
    centred = data - data.mean(dtype=np.complex128 if components == 2 else np.float64)
    sigma_data = float(np.sqrt(np.mean(np.abs(centred) ** 2) / components))
    sigma_max = largest_distance(data)
    if not (sigma_data > 0 and sigma_max > 0):
        raise ValueError("suggest needs images that differ: every one of these is the same.")
    # Images that hardly differ leave a short range; keep at least a decade below sigma_max.
    sigma_min = min(0.004 * sigma_data, 0.1 * sigma_max)
    growth = 0.5 * math.log(max(size / 3072, 1.0))
    p_mean, p_std = -1.2 + math.log(sigma_data / 0.5) + growth, 1.2
    levels = ncsn_levels(sigma_max, size, sigma_min)
    reasons = _reasons(data, sigma_data, sigma_min, sigma_max, p_mean, p_std, growth, levels, size)
    return Suggestion(sigma_data, sigma_min, sigma_max, p_mean, p_std, math.inf, levels, size, reasons)


def _reasons(data, sigma_data, sigma_min, sigma_max, p_mean, p_std, growth, levels, size):
    compared = min(len(data), 512)
    # KL of N(0, (s^2 + m^2) I) from N(0, m^2 I): what starting from pure noise costs.
    share = (sigma_data / sigma_max) ** 2
    mismatch = 0.5 * size * (share - math.log1p(share))
    top = math.exp(p_mean + 3.72 * p_std)
    reasons = [
        f"sigma_data {sigma_data:.4g}: rms of {len(data)} images of {size} values about their mean.",
        f"sigma_min {sigma_min:.4g}: 0.004 sigma_data, as 0.002 is to EDM's 0.5.",
        f"sigma_max {sigma_max:.4g}: largest distance among {compared} images; starting from pure noise "
        f"there costs {mismatch:.2g} nat for white data of this spread.",
        f"P_mean {p_mean:.3f}: EDM's -1.2, {math.log(sigma_data / 0.5):+.3f} for sigma_data, {growth:+.3f} "
        f"for size {size} against 3072.",
        f"P_std {p_std}: EDM's; the largest level in 10,000 training draws is about {top:.3g}.",
        f"D inf (EDM): N / D is {size / 128:.3g} at D = 128 and {size / 2048:.3g} at 2048; try finite D by "
        "experiment, published gains are small.",
        f"levels {len(levels)}: NCSNv2's ratio {levels[0] / levels[1]:.4f} for size {size}.",
    ]
    if sigma_max > 10 * top:
        reasons.append(
            f"Warning: sigma_max {sigma_max:.3g} is more than a decade above the trained levels (about "
            f"{top:.3g}): raise P_mean or P_std, or start sampling lower."
        )
    return reasons


def _checked(data):
    data = np.asarray(data)
    if not np.iscomplexobj(data):
        data = data.astype(np.float64)
    if data.ndim < 2 or len(data) < 2 or data[0].size == 0:
        raise ValueError(f"suggest needs two or more images, (n, ...) with n >= 2, got shape {data.shape}.")
    if not np.all(np.isfinite(data)):
        raise ValueError(
            f"suggest: {int(np.sum(~np.isfinite(data)))} values are NaN or infinite; clean them first."
        )
    return data

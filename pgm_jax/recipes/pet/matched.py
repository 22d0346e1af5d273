"""Comparison at matched bias: what a method reaches among its settings that are no more biased than a given one."""

import math

import numpy as np


def at_matched_bias(biases, qualities, bias) -> float:
    """Reads the quality of a method at a given bias off the curve of its settings.

    Settings are points (|bias|, quality). The curve joins by straight lines the points whose quality no point
    of less bias reaches, so the method is given its best setting. Two methods are compared at equal bias
    because a smooth image has a good PSNR and the wrong activity.

    Args:
        biases: bias of each setting, of either sign.
        qualities: quality of each, such as PSNR in dB.
        bias: the bias to be matched, of either sign.

    Returns:
        Quality; NaN where every setting is more biased.

    Raises:
        ValueError: if the lists differ in length, are empty or not finite.
    """
    points = sorted(zip(map(abs, biases), qualities, strict=True))
    if not points or not np.isfinite(points).all():
        raise ValueError(f"at_matched_bias: {len(points)} settings: give finite numbers of at least one")
    vertices = []
    for size, quality in points:
        if not vertices or quality > vertices[-1][1]:
            vertices.append((size, quality))
    return float(np.interp(abs(bias), *zip(*vertices, strict=True), left=math.nan))

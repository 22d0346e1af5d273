"""The samplers as loops of Python over a grid of numbers: what a PyTorch user writes. They hold for any tensors."""

import math
from typing import NamedTuple


class Plan(NamedTuple):
    """A grid in numbers, for n steps.

    Attributes:
        alpha: n + 1 signal scales.
        sigma: n + 1 noise levels.
        c_skip: n coefficients of x0 = c_skip x + c_out F(c_in x, c_noise).
        c_out: n of them.
        c_in: n of them.
        c_noise: n of them.
    """

    alpha: list[float]
    sigma: list[float]
    c_skip: list[float]
    c_out: list[float]
    c_in: list[float]
    c_noise: list[float]


def heun(denoise, plan, x):
    """Samples by EDM's Heun (Karras et al. 2022, Algorithm 1, without churn).

    Args:
        denoise: `(x, n) -> x0` at the n-th time.
        plan: `Plan` of a process with alpha 1, its last sigma 0.
        x: the state at the first time.

    Returns:
        The image.
    """
    for n, (t, s) in enumerate(zip(plan.sigma[:-1], plan.sigma[1:], strict=True)):
        slope = (x - denoise(x, n)) / t
        trial = x + (s - t) * slope
        if s > 0:
            trial = x + (s - t) * 0.5 * (slope + (trial - denoise(trial, n + 1)) / s)
        x = trial
    return x


def ddim(denoise, plan, x):
    """Samples by deterministic DDIM (Song et al. 2021, Eq. 12); arguments and result as `heun`, any alpha.

    Args:
        denoise: see `heun`.
        plan: `Plan`.
        x: see `heun`.

    Returns:
        The image.
    """
    for n in range(len(plan.c_in)):
        x0 = denoise(x, n)
        noise = (x - plan.alpha[n] * x0) / plan.sigma[n]
        x = plan.alpha[n + 1] * x0 + plan.sigma[n + 1] * noise
    return x


def dpmpp_2m(denoise, plan, x):
    """Samples by DPM-Solver++ 2M (Lu et al. 2022, Algorithm 2); arguments and result as `heun`.

    Args:
        denoise: see `heun`.
        plan: see `heun`.
        x: see `heun`.

    Returns:
        The image.
    """
    previous, previous_h = None, None
    for n, (t, s) in enumerate(zip(plan.sigma[:-1], plan.sigma[1:], strict=True)):
        x0 = denoise(x, n)
        h = math.log(t / s) if s > 0 else None
        moved = x0
        if previous is not None and h is not None:
            moved = x0 + 0.5 * h / previous_h * (x0 - previous)
        x = s / t * x + (1 - s / t) * moved
        previous, previous_h = x0, h
    return x

"""The consistency posterior: draws given a measurement from one or two evaluations of a network.

The network reads a simple reconstruction of the scan (total variation, stopped early) beside the noisy image, and
was tuned by easy consistency tuning from a shipped prior on simulated pairs, so that one evaluation goes from noise
to an image that fits the simple one. Each evaluation is corrected by the measurement itself (few-step DDS), and new
noise leads to the next level. A prior that reads no image can be drawn from in the same way, and needs more
evaluations.
"""

import functools
from typing import NamedTuple

import jax.numpy as jnp

from pgm_jax.reconstruction import Posterior, fbp, natural_balance, posterior, tv

# Iterations of total variation before the network; its weight over the data's variance, of complex and real images.
FIRST_STEPS = 100
_WEIGHTS = {True: 20.0, False: 10.0}
FEW_LEVELS = {1: (0.3,), 2: (0.3, 0.03)}
"""Noise levels by the number of evaluations where none were tuned."""


class FewSteps(NamedTuple):
    """Numbers of a few-step posterior, tuned on validation people by `benchmarks/few_step_posterior.py`.

    Attributes:
        levels: falling noise levels, one for each evaluation, in units of the image.
        trust: variance that the correction gives the clean image around the network's, in units of sigma^2.
        cg: conjugate gradient steps of each correction.
    """

    levels: tuple[float, ...]
    trust: float = 2.0
    cg: int = 10


def early_tv(operator, y, noise_std):
    """Reconstructs the image that the network reads: total variation, stopped after 100 iterations.

    `|A x - y|^2 / 2 + weight TV(x)`, the weight 20 or 10 `noise_std^2` for complex and real images, as tuned for
    MRI and CT; real ones start from FBP and stay positive.

    Args:
        operator: operator of images in the prior's unit; of CT where they are real.
        y: the measurement.
        noise_std: its noise per real component.

    Returns:
        Image.
    """
    is_complex = jnp.issubdtype(operator.domain.dtype, jnp.complexfloating)
    weight = _WEIGHTS[is_complex] * noise_std**2
    if is_complex:
        return tv(operator, y, weight, FIRST_STEPS)[0]
    first = jnp.maximum(fbp(operator, y, "hann"), 0.0)
    balance = natural_balance(operator, y, weight)
    return tv(operator, y, weight, FIRST_STEPS, first, balance=balance, keep_positive=True)[0]


def consistency_posterior(key, prior, likelihood, first, chosen: FewSteps, draws: int = 4) -> Posterior:
    """Draws images from few evaluations, each from noise of its own around the simple reconstruction.

    For levels `sigma_1 > sigma_2 > ...`, from `x = first + sigma_1 noise`:

        x0 = argmin_v |v - f(x, sigma_k, first)|^2 / (2 trust sigma_k^2) - ln p(y | v)
        x = x0 + sigma_(k+1) noise

    Args:
        key: PRNG key; draw i depends on it and on i alone.
        prior: trained prior, given `first` as its image if it reads one.
        likelihood: likelihood in the prior's units.
        first: the simple reconstruction, such as `recipes.mri.first_image(scan)`.
        chosen: `FewSteps`.
        draws: number of draws.

    Returns:
        `reconstruction.Posterior`.

    Raises:
        ValueError: see `reconstruction.posterior`.
    """
    cond = {"image": first} if prior.reads_image else None
    return posterior(
        key, prior, likelihood, method="dds", levels=chosen.levels, draws=draws, start=first, cond=cond,
        gamma=annealed(chosen.trust), cg=chosen.cg,
    )  # fmt: skip


@functools.cache
def annealed(trust: float):
    """Returns the variance `(process, t) -> trust sigma(t)^2` for DDS, the same function for the same trust."""
    return lambda process, t: trust * process.sigma(t) ** 2

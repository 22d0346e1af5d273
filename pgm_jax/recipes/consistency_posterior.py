"""Posterior images from one or two evaluations of a network that reads a fast reconstruction of the scan.

The network takes the fast image (total variation, stopped early) for a second noisy observation
(`networks.fused`) and was tuned from a shipped prior on simulated pairs, to read and then to jump (easy consistency
tuning). Two ways to use it: draws, each evaluation corrected by the measurement and followed by new noise (few-step
DDS), and one image by accelerated plug-and-play, which has the smaller error. A prior that reads no image can be
used in the same way, and needs more evaluations.
"""

import functools
import math
from typing import NamedTuple

import jax.numpy as jnp

from pgm_jax.reconstruction import (
    PlugStep,
    Posterior,
    fbp,
    natural_balance,
    plug_and_play,
    posterior,
    tv,
)

FIRST_STEPS = 100
"""Iterations of total variation before the network."""

# Its weight over the data's variance, of complex and of real images.
_WEIGHTS = {True: 20.0, False: 10.0}


class FewDraws(NamedTuple):
    """Numbers of the draws.

    Attributes:
        levels: falling noise levels, one for each evaluation, in units of the image.
        trust: variance that the correction gives the clean image around the network's, over the network's own.
        spread: deviation of the network's image at a high level, where it knows the fast image alone.
        cg: conjugate gradient steps of each correction.
    """

    levels: tuple[float, ...] = (1.0, 0.03)
    trust: float = 0.6
    spread: float = 0.06
    cg: int = 10


class FewSteps(NamedTuple):
    """Numbers of the single image, tuned on validation people by `benchmarks/export_posterior.py`.

    Attributes:
        steps: level, relaxation, trust and extrapolation of each evaluation, see `reconstruction.PlugStep`.
        cg: conjugate gradient steps of each proximal map.
    """

    steps: tuple
    cg: int = 10


FEW_DRAWS = FewDraws()
"""Numbers of the draws, chosen on the validation people at 4x."""


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
    is_complex = bool(jnp.issubdtype(operator.domain.dtype, jnp.complexfloating))
    weight = _WEIGHTS[is_complex] * noise_std**2
    if is_complex:
        return tv(operator, y, weight, FIRST_STEPS)[0]
    first = jnp.maximum(fbp(operator, y, "hann"), 0.0)
    balance = natural_balance(operator, y, weight)
    return tv(operator, y, weight, FIRST_STEPS, first, balance=balance, keep_positive=True)[0]


def consistency_posterior(
    key, prior, likelihood, first, chosen: FewDraws = FEW_DRAWS, draws: int = 4
) -> Posterior:
    """Draws images from few evaluations, each draw from noise of its own around the fast reconstruction.

    For levels `sigma_1 > sigma_2 > ...`, from `x = first + sigma_1 noise`, with `1 / v_k = 1 / sigma_k^2 +
    1 / spread^2`:

        x0 = argmin_v |v - f(x, sigma_k, first)|^2 / (2 trust v_k) - ln p(y | v)
        x = x0 + sigma_(k+1) noise

    Args:
        key: PRNG key; draw i depends on it and on i alone.
        prior: trained prior, given `first` as its image if it reads one.
        likelihood: likelihood in the prior's units.
        first: the fast reconstruction, such as `recipes.mri.first_image(scan)`.
        chosen: `FewDraws`.
        draws: number of draws.

    Returns:
        `reconstruction.Posterior`.

    Raises:
        ValueError: see `reconstruction.posterior`.
    """
    return posterior(
        key, prior, likelihood, method="dds", levels=chosen.levels, draws=draws, start=first,
        cond=_condition(prior, first), gamma=annealed(chosen.trust, chosen.spread), cg=chosen.cg,
    )  # fmt: skip


def few_step_image(prior, likelihood, first, chosen: FewSteps):
    """Reconstructs one image by accelerated plug-and-play from the fast one, see `reconstruction.plug_and_play`.

    Args:
        prior: trained prior, given `first` as its image if it reads one.
        likelihood: likelihood in the prior's units.
        first: the fast reconstruction.
        chosen: `FewSteps`; its numbers may be traced.

    Returns:
        Image like first.

    Raises:
        ValueError: see `reconstruction.plug_and_play`.
    """
    steps = [PlugStep(*row) for row in chosen.steps]
    cond = _condition(prior, first)
    return plug_and_play(prior.denoiser(), prior.process, likelihood, first, steps, chosen.cg, cond)


@functools.cache
def annealed(trust: float, spread: float = math.inf):
    """Returns `(process, t) -> trust / (1 / sigma^2 + 1 / spread^2)`, the variance of DDS's clean image.

    Args:
        trust: factor.
        spread: deviation at high levels; infinite leaves `trust sigma^2`.

    Returns:
        The function, the same one for the same numbers, so that nothing compiles again.
    """
    return lambda process, t: trust / (1 / process.sigma(t) ** 2 + 1 / spread**2)


def _condition(prior, first):
    return {"image": first} if prior.reads_image else None

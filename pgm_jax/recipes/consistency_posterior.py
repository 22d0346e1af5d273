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

from pgm_jax.operators import Diagonal
from pgm_jax.reconstruction import (
    PlugStep,
    Posterior,
    fbp,
    natural_balance,
    piccs,
    plug_and_play,
    posterior,
    tv,
)

FIRST_STEPS = 100
"""Iterations of total variation before the network, for real images."""

# Of complex images or not: its weight over the data's variance, its iterations, and its step ratio over the natural
# one; heads at 8x are after 100 iterations where the natural one takes them in 400.
_FIRST = {True: (20.0, 200, 3.0), False: (10.0, FIRST_STEPS, 1.0)}


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


class PiccsStep(NamedTuple):
    """Numbers of one evaluation of the single image that PICCS corrects.

    Attributes:
        level: sigma, the noise level that the denoiser is told, in units of the image.
        relax: how far the image follows the denoiser; 1 takes its output.
        weight: weight of the correction's total variation, over the data's variance.
        share: share of the variation that is that of the difference from the network's image.
        extrapolate: how far the next evaluation is moved on along the change of this one.
    """

    level: float
    relax: float
    weight: float
    share: float
    extrapolate: float = 0.0


class FewSteps(NamedTuple):
    """Numbers of the single image, tuned by `benchmarks/export_posterior.py` on people that are not the test's.

    Attributes:
        steps: the numbers of each evaluation, those of `PiccsStep` or `reconstruction.PlugStep`.
        correction: "piccs", or "prox" for the proximal map of the likelihood, a quadratic distance.
        iterations: primal-dual iterations of the former, or conjugate gradient steps of the latter.
    """

    steps: tuple
    correction: str = "piccs"
    iterations: int = 40


FEW_DRAWS = FewDraws()
"""Numbers of the draws, chosen on the validation people at 4x."""


def early_tv(operator, y, noise_std):
    """Reconstructs the image that the network reads: total variation after 200 iterations in MRI, 100 in CT.

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
    factor, steps, ratio = _FIRST[is_complex]
    weight = factor * noise_std**2
    balance = ratio * natural_balance(operator, y, weight)
    if is_complex:
        return tv(operator, y, weight, steps, balance=balance)[0]
    first = jnp.maximum(fbp(operator, y, "hann"), 0.0)
    return tv(operator, y, weight, steps, first, balance=balance, keep_positive=True)[0]


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
    """Reconstructs one image from few evaluations, without noise of its own, from the fast reconstruction.

    With `u_0 = x_0 = first`, for each evaluation

        z = u_k + relax (f(u_k, level, first) - u_k)
        x_(k+1) = argmin_v -ln p(y | v) + weight sum(share |grad(v - z)| + (1 - share) |grad v|)
        u_(k+1) = x_(k+1) + extrapolate (x_(k+1) - x_k),

    plug-and-play with the correction of PICCS (Chen et al. 2008), real images staying positive; or with a quadratic
    distance in its place, `reconstruction.plug_and_play`, which leaves what no sample sees as the network has it.
    PICCS is much the better for MRI; in CT it needs many more iterations than it is given here.

    Args:
        prior: trained prior, given `first` as its image if it reads one.
        likelihood: likelihood in the prior's units, Gaussian for PICCS.
        first: the fast reconstruction.
        chosen: `FewSteps`; the numbers of its steps may be traced.

    Returns:
        Image like first.

    Raises:
        ValueError: for an unknown correction, and see `reconstruction.plug_and_play`.
    """
    given = prior.denoiser(), prior.process, likelihood, first
    cond, rows, count = _condition(prior, first), chosen.steps, chosen.iterations
    if chosen.correction == "prox":
        return plug_and_play(*given, [PlugStep(*row) for row in rows], count, cond)
    if chosen.correction != "piccs":
        raise ValueError(f"Unknown correction {chosen.correction!r}: choose piccs or prox.")
    root = jnp.sqrt(1.0 if likelihood.weights is None else likelihood.weights) / likelihood.noise_std
    root = jnp.broadcast_to(root, likelihood.y.shape)
    whitened, y = Diagonal(root) @ likelihood.operator, root * likelihood.y
    # Found once for all corrections.
    norm, is_real = whitened.norm(), not jnp.iscomplexobj(first)

    def correct(z, step):
        numbers = step.weight, step.share, count
        return piccs(whitened, y, z, *numbers, norm=norm, keep_positive=is_real)[0]

    return plug_and_play(*given, [PiccsStep(*row) for row in rows], cond=cond, correct=correct)


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

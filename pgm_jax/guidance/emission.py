"""Guidance by the counts of PET and SPECT: preconditioned EM-like steps, DPS, and the naive gradient.

A network sees `x = activity / c`; the scale c of a scan is its typical activity, such as the mean of a quick OSEM
image over the voxels with activity, where the images of the prior have mean 1 there. It may be traced.
"""

import jax
import jax.numpy as jnp

from pgm_jax.core import safe_divide
from pgm_jax.guidance.makers import correct, likelihood_gradient
from pgm_jax.guidance.subsets import first_position, parts


def pet_dds(
    likelihood, scale=1.0, steps=5, *, weight=None, penalty=None, penalty_weight=0.0, keep_noise=True
):
    """Makes PET-DDS: at each level K preconditioned gradient steps of penalised likelihood from the clean image.

    In units of activity, with `m = max(0, c x0)`, sensitivity `s = A^T 1` and one subset i of S a step,

        v <- max(0, v + v (S grad L_i(v) + lambda (m - v) - beta grad R(v)) / (s + v (lambda + beta R''(v))))

    and the clean image becomes v / c. At lambda = beta = 0 and S = 1 a step is that of ML-EM. The published
    preconditioner is v / s, which leaves the same fixed points but overshoots once lambda v exceeds 2 s; the
    curvature of both penalties in it, as in `reconstruction.bsrem`, lets lambda grow with the level. A voxel at
    0 stays there until the denoiser lifts it. K subsets a level are visited in the order of Herman and Meyer.

    Bias: on eight pixels seen alone, where the posterior is known, with `ancestral()` and 100 levels, the mean
    errs by 1.25 posterior standard deviations and the spread is .49 of its own; with the state kept, .03 and .95.

    Source: I. R. D. Singh et al., Score-based generative models for PET image reconstruction, MELBA (2024),
    PET-DDS. For volumes `penalty=RelativeDifference(axes=(0,))` acts along z only.

    Args:
        likelihood: `PoissonEmission` or `ListModeEmission`; of an operator with `subsets` for S > 1.
        scale: c, activity over the units of x: a number, or an array that broadcasts (one a slice).
        steps: K, each one A_i and one A_i^T.
        weight: lambda, precision of the activity around c x0: a number or a function `(process, t) -> number`.
            By default `1 / (c r)^2`, `r^2 = sigma^2 / (sigma^2 + alpha^2)` as in `dds`.
        penalty: R with `grad` and `curvature`, such as `RelativeDifference()`, or None.
        penalty_weight: beta >= 0, in nats over the units of R.
        keep_noise: True keeps the noise of the uncorrected image, as published; False keeps the state.

    Returns:
        A guidance for real images, valid for every noise law.

    Raises:
        ValueError: for a likelihood without a sensitivity, or subsets of unequal size.
    """
    sensitivity = require_emission("pet_dds", likelihood)
    rows, subsets = likelihood.operator.range.shape[0], parts(likelihood)
    if rows % subsets.count:
        raise ValueError(
            f"pet_dds: {subsets.count} subsets of {rows} views or events differ in size, so the image would "
            "cycle with them: use a number of subsets that divides it."
        )

    def update(key, process, x0, t, position):
        start = activity_of(x0, scale)
        data, prior = _trade(weight, process, t, scale)

        def move(visit, v):
            gradient = subsets.count * subsets.pick(position + visit).grad(v)
            bend = jnp.zeros_like(v)
            if penalty is not None:
                gradient = gradient - penalty_weight * penalty.grad(v)
                bend = penalty_weight * penalty.curvature(v)
            change = v * (data * gradient + prior * (start - v))
            bent = data * (sensitivity + v * bend) + prior * v
            return jnp.maximum(v + safe_divide(change, bent), 0.0).astype(x0.dtype)

        end = jax.lax.fori_loop(0, steps, move, start)
        return safe_divide(end, scale), position + steps

    return correct(update, first_position, keep_noise=keep_noise)


def pet_dps(likelihood, scale=1.0, weight=1.0):
    """Makes PET-DPS: the gradient of the likelihood through the denoiser, over the value of the divergence.

    `grad = weight J^T c grad L(c x0) / KL(y, A c x0 + b)`, J = dx0 / dx_t, c x0 raised to 0 where it is
    negative. The gain is sigma^2, so the clean image moves by `sigma^2 grad / alpha`, the state is kept. Biased
    like `dps`, as the weight decides: .52 standard deviations and 1.13 of the spread in the case of `pet_dds`
    with weight 4.

    Source: I. R. D. Singh et al., MELBA (2024), PET-DPS, after H. Chung et al. (2023); the divergence is the
    loss by whose value they divide the step.

    Args:
        likelihood: `PoissonEmission`.
        scale: c, see `pet_dds`.
        weight: step.

    Returns:
        A guidance for real images, valid for every noise law.

    Raises:
        ValueError: for a list of events or another likelihood.
    """
    require_emission("pet_dps", likelihood)
    if not hasattr(likelihood, "y"):
        raise ValueError(
            "pet_dps divides by the divergence from counts, which a list of events lacks: bin it."
        )
    saturated = likelihood.log_prob_at(likelihood.counts)

    def gradient(key, process, evaluation, t, state, pullback, covariance):
        x0 = evaluation.estimate.x0
        image = activity_of(x0, scale)
        slope = jnp.where(x0 > 0, scale * likelihood.grad(image), 0.0)
        divergence = saturated - likelihood.log_prob(image)
        return (safe_divide(weight, divergence) * pullback(slope), 0.0, process.sigma(t) ** 2), state

    return likelihood_gradient(gradient)


def pet_naive(likelihood, levels, scale=1.0, weight=1.0):
    """Makes PET-Naive: the gradient of the likelihood at the noisy state itself, with falling weight.

    At evaluation k = 0, 1, ... of N levels, `grad = weight (N - k) / N c / alpha grad L(c x_t / alpha)`, the state
    raised to 0 where it is negative; the index k is carried. No derivative of the network. The gain is
    sigma^2. Biased at every level, since the likelihood takes noise for activity: .19 standard deviations and .95
    of the spread in the case of `pet_dds`.

    Source: A. Jalal et al., Robust compressed sensing MRI with deep generative priors (2021), as used for PET
    by I. R. D. Singh et al., MELBA (2024): likelihood at x_t with weight i / N.

    Args:
        likelihood: `PoissonEmission` or `ListModeEmission`.
        levels: N, number of steps of the grid.
        scale: c, see `pet_dds`.
        weight: step at the first level.

    Returns:
        A guidance for real images, valid for every noise law.

    Raises:
        ValueError: for a likelihood that is none of emission.
    """
    require_emission("pet_naive", likelihood)

    def gradient(key, process, evaluation, t, state, pullback, covariance):
        alpha = process.alpha(t)
        x = safe_divide(evaluation.x_t, alpha).astype(evaluation.x_t.dtype)
        slope = safe_divide(scale, alpha) * likelihood.grad(activity_of(x, scale))
        share = (jnp.maximum(levels - state, 0) / levels).astype(x.dtype)
        return (weight * share * jnp.where(x > 0, slope, 0.0), 0.0, process.sigma(t) ** 2), state + 1

    return likelihood_gradient(gradient, first_position)


def _trade(weight, process, t, scale):
    """Returns (1, lambda), or both times the variance `(c r)^2` by default, which is finite at sigma 0."""
    if weight is not None:
        return 1.0, weight(process, t) if callable(weight) else weight
    alpha, sigma = process.alpha(t), process.sigma(t)
    return scale**2 * sigma**2 / (sigma**2 + alpha**2), 1.0


def activity_of(x0, scale):
    """Returns the activity `max(0, c x0)` of a network's image.

    Args:
        x0: real image.
        scale: c.

    Raises:
        ValueError: for a complex image.
    """
    if jnp.iscomplexobj(x0):
        raise ValueError("Emission guidance needs a real image of activities, got a complex one.")
    return jnp.maximum(scale * x0, 0.0).astype(x0.dtype)


def require_emission(name, likelihood):
    """Returns the sensitivity image of a likelihood of emission counts.

    Args:
        name: name of the guidance, for the message.
        likelihood: the likelihood.

    Raises:
        ValueError: for another likelihood.
    """
    if not hasattr(likelihood, "sensitivities"):
        raise ValueError(
            f"{name} needs a likelihood of emission counts, got {type(likelihood).__name__}: build one by "
            "PoissonEmission.create(operator, y, background)."
        )
    return likelihood.sensitivities()

"""Guidance by a measurement: exact, moment matching, DPS and DDS.

What each is worth on a Gaussian prior, where the exact posterior is known, is printed by `pgm verify`.
"""

import jax
import jax.numpy as jnp

from pgm_jax.core import Estimator, safe_divide, squared_norm
from pgm_jax.guidance.least_squares import towards_data
from pgm_jax.guidance.makers import correct, likelihood_gradient
from pgm_jax.guidance.requirements import require_noise


def residual_adjoint(likelihood, x0, r):
    """Computes `J^H r`, J the derivative of the expected data; `A^H r` for linear data, summed over a sum.

    Args:
        likelihood: any likelihood with a residual.
        x0: clean image.
        r: data, like its residual.

    Returns:
        Image like x0.
    """
    _, vjp = jax.vjp(likelihood.residual, x0)
    return -jnp.conj(vjp(jax.tree.map(jnp.conj, r))[0])


def clean_variance(variance, process, t):
    """Returns the assumed variance r^2 of the clean image given the state, per real component.

    Args:
        variance: a number, a function `(process, t) -> variance`, or None for `sigma^2 / (sigma^2 + alpha^2)`,
            the posterior variance of unit-variance data.
        process: affine process.
        t: time of the state.

    Returns:
        Number, or array that broadcasts against the image.
    """
    if variance is None:
        alpha, sigma = process.alpha(t), process.sigma(t)
        return sigma**2 / (sigma**2 + alpha**2)
    return variance(process, t) if callable(variance) else variance


def exact(prior, likelihood, **options):
    """Makes the exact guidance of an exact prior: every sampler converges to the exact posterior.

    The estimate becomes the posterior's own, `E[x0 | x_t, y]`, for Normal and Student-t noise alike. It equals
    `process.tilt` with the true gradient of ln p(y | x_t), its derivative in sigma and the true gain
    (foundations 2.7.6), without the cancellation of two log densities far in the tail, and holds at alpha = 0.

    Args:
        prior: an exact prior of `pgm_jax.priors`, the one that made the denoiser.
        likelihood: one `GaussianLikelihood` without weights.
        **options: options of `prior.posterior`: a stationary prior cannot see under `jit`, so in
            `reconstruction.posterior`, that `A^H A` is a Fourier multiplier, and is told `circulant=True`.

    Returns:
        A guidance.

    Raises:
        ValueError: for another likelihood, or if the posterior has no closed form, as under a stationary prior
            and a general operator.
    """
    if not hasattr(likelihood, "operator") or getattr(likelihood, "weights", None) is not None:
        raise ValueError(
            f"exact needs one GaussianLikelihood without weights, got {type(likelihood).__name__}: stack the "
            "operators of several measurements, and keep only measured entries in place of weights."
        )
    posterior = prior.posterior(likelihood.operator, likelihood.y, likelihood.noise_std, **options)
    if not hasattr(posterior, "denoiser"):
        raise ValueError(
            f"exact: the posterior of {type(prior).__name__} under this operator has no closed-form denoiser; use "
            "moment_matching or dds, or draw from prior.posterior(...) itself."
        )

    def guidance(inner):
        denoise = posterior.denoiser(inner.process)

        def apply(key, x_t, t, state, *, cond=None, s=None):
            estimate, state = inner.apply(key, x_t, t, state, cond=cond, s=s)
            return inner.process.estimate(x_t, t, denoise(x_t, t), estimate.x1), state

        return Estimator(inner.process, inner.init, apply)

    return guidance


def moment_matching(likelihood, *, rtol=1e-5, max_steps=100, probes=4):
    """Makes moment matching (Rozet et al. 2024; Boys et al. 2024): the default for linear operators.

    `x0 + C A^H (A C A^H + noise)^-1 (y - A x0)` with `C = Cov[x0 | x_t]` from the denoiser's own Jacobian:
    sigma^2 J^T / alpha for Normal noise, where it is exact for a Gaussian prior; for Student-t noise less a
    rank-one term, see `StudentT.covariance`: there it is as good as the true covariance at the effective noise,
    measured up to 4096 numbers (`verify.covariance_errors`), with a bias that `pgm verify` prints.

    Args:
        likelihood: linear Gaussian likelihood, or a sum of them.
        rtol: relative tolerance of conjugate gradients in data space.
        max_steps: largest number of their steps; each costs one pullback of the network.
        probes: probes for the trace that Student-t noise needs.

    Returns:
        A guidance.
    """

    def gradient(key, process, evaluation, t, state, pullback, covariance):
        x0 = evaluation.estimate.x0
        cov = covariance()
        weights = likelihood.solve(likelihood.residual(x0), cov, rtol=rtol, max_steps=max_steps)
        towards = residual_adjoint(likelihood, x0, weights)
        # As a gradient, so that x0 moves by C A^H weights whatever the law: gain grad / alpha.
        alpha, gain = process.alpha(t), process.sigma(t) ** 2
        return (safe_divide(alpha, gain) * cov(towards), 0.0, gain), state

    return likelihood_gradient(gradient, probes=probes)


def dps(likelihood, weight=1.0, *, normalise=True):
    """Makes diffusion posterior sampling (Chung et al. 2023, Algorithm 1), per sample.

    `grad = -weight d|y - A x0(x_t)| / dx_t` as published, or `weight d ln p(y | x0(x_t)) / dx_t` with
    `normalise=False`. The gain is sigma^2, so the clean image moves by `sigma^2 grad / alpha`. Biased: its
    spread depends on the weight, and no weight is calibrated; .66 standard deviations and 72 % on the Gaussian
    case of `pigdm` at weight 1 with 100 steps.

    Args:
        likelihood: any likelihood with a residual (normalised) or a gradient.
        weight: step, zeta of the paper.
        normalise: divide by the norm of the residual, as published.

    Returns:
        A guidance.

    Raises:
        ValueError: for a noise_std of 0 with `normalise=False`.
    """
    if not normalise:
        require_noise(likelihood, "dps(normalise=False)")

    def gradient(key, process, evaluation, t, state, pullback, covariance):
        x0 = evaluation.estimate.x0
        if normalise:
            residual = likelihood.residual(x0)
            norm = jnp.sqrt(sum(squared_norm(part) for part in jax.tree.leaves(residual)))
            slope = residual_adjoint(likelihood, x0, jax.tree.map(lambda r: safe_divide(r, norm), residual))
        else:
            slope = likelihood.grad(x0)
        return (weight * pullback(slope), 0.0, process.sigma(t) ** 2), state

    return likelihood_gradient(gradient)


def dds(likelihood, gamma=None, steps=5, *, keep_noise=True):
    """Makes decomposed diffusion sampling (Chung, Lee and Ye 2024; review Eq. 29 and 30, corrected).

    The clean image takes a few conjugate gradient steps towards
    `argmin_v |v - x0|^2 / 2 - gamma ln p(y | v)`, no network derivative needed; valid for every noise law. For
    Gaussian data the weight of `|A v - y|^2 / 2`, the paper's gamma, is `r_t^2 / s^2`: it follows the level
    of the state and of the measurement. Without noise the steps are those of plain CG on `A^H A v = A^H y` from
    x0, at noise_std 0 or, whatever the noise_std, with `gamma=math.inf`.

    Biased: a round covariance as in PiGDM, stopped early, and a noise that belongs to another clean image: .14
    standard deviations and 33 % on the Gaussian case of `pigdm` with `ddim(.85, of="marginal")`, .34 and 52 %
    without noise.

    Args:
        likelihood: any likelihood with a proximal map; a linear Gaussian one for an infinite gamma.
        gamma: the variance of the clean image around x0: a number, or a function `(process, t) -> variance`.
            By default `r^2 = sigma^2 / (sigma^2 + alpha^2)`, the posterior variance of unit-variance data.
        steps: conjugate gradient steps at each evaluation.
        keep_noise: True (DDS) keeps the noise of the uncorrected image; False keeps the state.

    Returns:
        A guidance.

    Raises:
        ValueError: for a sum of likelihoods one of which has a noise_std of 0.
    """
    if hasattr(likelihood, "parts"):
        require_noise(likelihood, "dds of several measurements")

    def update(key, process, x0, t, state):
        return towards_data(likelihood, x0, clean_variance(gamma, process, t), steps), state

    return correct(update, keep_noise=keep_noise)

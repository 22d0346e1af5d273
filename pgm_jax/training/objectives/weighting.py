"""Loss weightings: functions `(process, t) -> w` that give the weight on `|x0_hat - x0|^2`.

They depend on the noise level sigma / alpha alone, so they mean the same in every frame. Many grow without
bound as sigma -> 0, where the error falls as fast; `denoising` multiplies them into the network's own output,
where the product is bounded, and keeps t above 0. Where sigma is exactly 0 they are 0.
"""

import jax.numpy as jnp

from pgm_jax.core import safe_divide
from pgm_jax.processes import Normal
from pgm_jax.processes.parameterisation import schedule_rates


def simple(process, t):
    """DDPM's simple loss, `|noise_hat - noise|^2`: `w = SNR = alpha^2 / sigma^2` (Ho et al. 2020, Eq. 14).

    Args:
        process: affine process.
        t: time.

    Returns:
        Weight, of the shape of sigma(t).
    """
    alpha, sigma = _levels(process, t)
    return safe_divide(alpha, sigma) ** 2


def snr(process, t):
    """The SNR weighting of networks that predict x0: the same weight as `simple`, by its other name.

    Args:
        process: affine process.
        t: time.

    Returns:
        Weight, of the shape of sigma(t).
    """
    return simple(process, t)


def min_snr(gamma=5.0):
    """Makes the min-SNR weighting, `w = min(SNR, gamma)` (Hang et al. 2023).

    On the loss of the noise it is `min(SNR, gamma) / SNR`, on that of v `min(SNR, gamma) / (SNR + 1)`.

    Args:
        gamma: largest weight, positive.

    Returns:
        `(process, t) -> w`.

    Raises:
        ValueError: if gamma is not positive.
    """
    if not gamma > 0:
        raise ValueError(f"min_snr needs gamma > 0, got {gamma}; the paper's is 5.")

    def weight(process, t):
        alpha, sigma = _levels(process, t)
        return safe_divide(alpha**2, jnp.maximum(sigma**2, alpha**2 / gamma))

    return weight


def v(process, t):
    """The loss of v on variance-preserving paths, `|v_hat - v|^2`: `w = SNR + 1` (Salimans and Ho 2022, App. D).

    Args:
        process: affine process.
        t: time.

    Returns:
        Weight, of the shape of sigma(t).
    """
    return simple(process, t) + _noisy(process, t)


def edm(sigma_data=0.5):
    """Makes EDM's weighting, `w = (s^2 + d^2) / (s d)^2`, s = sigma / alpha (Karras et al. 2022, Table 1).

    Under `precondition.edm(sigma_data)` it is the unit-weight loss of the network's output.

    Args:
        sigma_data: the d above, standard deviation of the data per real component.

    Returns:
        `(process, t) -> w`.

    Raises:
        ValueError: if sigma_data is not positive.
    """
    if not sigma_data > 0:
        raise ValueError(f"edm weighting needs sigma_data > 0, got {sigma_data}; see processes.suggest.")

    def weight(process, t):
        return simple(process, t) + _noisy(process, t) / sigma_data**2

    return weight


def x0(process, t):
    """The plain loss of the clean image: `w = 1`.

    Args:
        process: affine process.
        t: time.

    Returns:
        Weight, of the shape of sigma(t).
    """
    return jnp.ones_like(_levels(process, t)[1])


def likelihood(process, t):
    """Likelihood weighting: `g^2` on `|score_hat - score|^2`, `w = g^2 alpha^2 / sigma^4 = -d SNR / dt`.

    With t uniform, half the expected sum over components bounds the negative log-likelihood (Song et al. 2021b,
    Theorem 1; Kingma et al. 2021). It grows as 1 / t on the noise's loss as t -> 0: train from a
    positive time, `levels.uniform(1e-5, 1.)`.

    Args:
        process: affine process with Normal noise, a differentiable schedule and no end point.
        t: time.

    Returns:
        Weight, of the shape of sigma(t).

    Raises:
        ValueError: for another noise law, a bridge or a discrete chain.
    """
    if not isinstance(process.law, Normal):
        raise ValueError(
            f"likelihood weighting holds for Normal noise, got {type(process.law).__name__}: use edm(sigma_data)."
        )
    alpha, sigma = _levels(process, t)
    d_alpha, d_sigma = schedule_rates(process, t)
    # g^2 / (2 sigma^2) is the rate of ln(sigma / alpha); alpha is multiplied in, so alpha = 0 divides nothing.
    rate = safe_divide(d_sigma * alpha - d_alpha * sigma, sigma)
    return 2 * safe_divide(alpha, sigma) * safe_divide(rate, sigma)


def _levels(process, t):
    return jnp.asarray(process.alpha(t)), jnp.asarray(process.sigma(t))


def _noisy(process, t):
    sigma = _levels(process, t)[1]
    return (sigma > 0).astype(sigma.dtype)

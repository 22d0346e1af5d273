"""What a network predicts: each parameterisation gives the coefficients that turn its output into x0.

    x0 = c_skip x_t + c_out F(c_in x_t, c_noise)

A parameterisation is a function `(process, t) -> Coefficients`, right for every affine process. The plain
ones are here; `precondition` has those that also scale the network's input.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pgm_jax.core import safe_divide
from pgm_jax.processes.schedules import Tabulated


class Coefficients(NamedTuple):
    """Coefficients of `x0 = c_skip x_t + c_out F(c_in x_t, c_noise)`, arrays of the shape of the time.

    Attributes:
        c_skip: weight of the state.
        c_out: weight of the network's output.
        c_in: scale of the state at the network's input; conditions are not scaled by it.
        c_noise: what the network is told of the time.
    """

    c_skip: Any
    c_out: Any
    c_in: Any
    c_noise: Any


def predict_x0(process, t):
    """The network predicts the clean image: `x0 = F(x_t, t)`.

    Args:
        process: affine process.
        t: time.

    Returns:
        `Coefficients` (0, 1, 1, t).
    """
    t = _real(t)
    return Coefficients(jnp.zeros_like(t), jnp.ones_like(t), jnp.ones_like(t), t)


def predict_noise(process, t):
    """The network predicts the unit noise: `x0 = (x_t - sigma F) / alpha` (Ho et al. 2020, Eq. 15).

    Where alpha is 0 the noise says nothing about the image and x0 is taken as 0; predict v or x0 on such a
    schedule (zero terminal SNR, flow matching from pure noise).

    Args:
        process: affine process.
        t: time.

    Returns:
        `Coefficients` (1 / alpha, -sigma / alpha, 1, t).
    """
    t = _real(t)
    alpha, sigma = _levels(process, t)
    return Coefficients(
        safe_divide(jnp.ones_like(alpha), alpha), -safe_divide(sigma, alpha), jnp.ones_like(t), t
    )


def predict_v(process, t):
    """The network predicts `v = alpha noise - sigma x0` (Salimans and Ho 2022, App. D), finite at both ends.

    `x0 = (alpha x_t - sigma v) / (alpha^2 + sigma^2)`; the denominator is 1 for variance-preserving ones.

    Args:
        process: affine process.
        t: time.

    Returns:
        `Coefficients`.
    """
    t = _real(t)
    alpha, sigma = _levels(process, t)
    power = alpha**2 + sigma**2
    return Coefficients(alpha / power, -sigma / power, jnp.ones_like(t), t)


def predict_score(process, t):
    """The network predicts the score of p(x_t): `x0 = (x_t + sigma^2 F) / alpha` (Tweedie; review Eq. 1).

    Args:
        process: affine process with Normal noise.
        t: time.

    Returns:
        `Coefficients` (1 / alpha, sigma^2 / alpha, 1, t), 0 where alpha is 0.

    Raises:
        ValueError: for a noise law whose score is not -noise / sigma; predict x0 or the noise then.
    """
    t = _real(t)
    # A law other than Normal refuses here, with the reason.
    process.law.score(0.0, 1.0)
    alpha, sigma = _levels(process, t)
    return Coefficients(
        safe_divide(jnp.ones_like(alpha), alpha), safe_divide(sigma**2, alpha), jnp.ones_like(t), t
    )


def predict_velocity(process, t):
    """The network predicts `u = d x_t / dt = alpha' x0 + sigma' noise` (flow matching; Lipman et al. 2023).

    `x0 = (sigma' x_t - sigma u) / (alpha sigma' - sigma alpha')`, the derivatives by `jax.jvp`; for flow
    matching `x_t - t u`. Where sigma is 0, x0 is x_t.

    Args:
        process: affine process without an end point, with a differentiable schedule.
        t: time.

    Returns:
        `Coefficients`.

    Raises:
        ValueError: for a bridge, or for a discrete chain.
    """
    t = _real(t)
    alpha, sigma = _levels(process, t)
    d_alpha, d_sigma = schedule_rates(process, t)
    # Dividing by sigma' first: it is unbounded near t = 0 of a VP process.
    steep = safe_divide(sigma, d_sigma)
    determinant = alpha - steep * d_alpha
    flat = d_sigma == 0
    c_skip = jnp.where(flat, 0.0, safe_divide(jnp.ones_like(determinant), determinant))
    c_out = jnp.where(flat, safe_divide(jnp.ones_like(d_alpha), d_alpha), -safe_divide(steep, determinant))
    clean = sigma == 0
    c_skip = jnp.where(clean, safe_divide(jnp.ones_like(alpha), alpha), c_skip)
    return Coefficients(c_skip, jnp.where(clean, 0.0, c_out), jnp.ones_like(t), t)


def predict_residual(process, t):
    """The network predicts I2SB's residual `(x_t - x0) / sqrt(F(t))` on a bridge (Liu et al. 2023, Eq. 12).

    Args:
        process: a `Bridge`.
        t: time; at 0 the network is ignored and x0 is x_t.

    Returns:
        `Coefficients` (1, -sqrt(F), 1, t).

    Raises:
        ValueError: for a process that is not a bridge.
    """
    if not process.schedule.paired:
        raise ValueError("predict_residual is for Bridge(): predict x0, v or the noise on other processes.")
    t = _real(t)
    return Coefficients(jnp.ones_like(t), -jnp.sqrt(process.schedule.variance(t)), jnp.ones_like(t), t)


def schedule_rates(process, t):
    """Returns `(alpha', sigma')`, the time derivatives of the schedule; sigma' is 0 where sigma is.

    Args:
        process: affine process without an end point.
        t: time.

    Returns:
        Two arrays of the shape of alpha and sigma.

    Raises:
        ValueError: for a bridge, whose velocity needs both ends, or a discrete chain, which has none.
    """
    if process.schedule.paired:
        raise ValueError("A bridge's velocity depends on its end point: predict x0 or the noise instead.")
    if isinstance(process.schedule, Tabulated):
        raise ValueError(
            "A discrete chain (DDPM) has no time derivative: predict v, x0 or the noise instead."
        )
    t = _real(t)
    clean = process.sigma(t) == 0
    # A square root has an infinite slope at 0, so the derivative is taken elsewhere there and dropped.
    inside = jnp.where(clean, 0.5, t) if jnp.ndim(clean) == jnp.ndim(t) else t
    tangent = (jnp.ones_like(t),)
    _, d_alpha = jax.jvp(process.alpha, (t,), tangent)
    _, d_sigma = jax.jvp(process.sigma, (inside,), tangent)
    return d_alpha, jnp.where(clean, 0.0, d_sigma)


def _real(t):
    return jnp.asarray(
        t, jnp.result_type(float) if not hasattr(t, "dtype") else jnp.result_type(t, jnp.float32)
    )


def _levels(process, t):
    if process.schedule.paired:
        raise ValueError(
            "This parameterisation knows no end point x1: on a bridge use predict_x0 or "
            "predict_residual, with x1 as a condition."
        )
    return jnp.asarray(process.alpha(t)), jnp.asarray(process.sigma(t))

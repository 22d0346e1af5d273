"""Conversions between the clean image and noise, v, score, velocity and Poisson field, both ways.

All take the state x_t of an affine process at a time t; x0 is the clean image or a denoiser's posterior mean.
"""

import math

import jax.numpy as jnp

from pgm_jax.core import inner, real_size, safe_divide
from pgm_jax.processes import parameterisation


def noise_from_x0(process, x_t, t, x0, x1=None):
    """Returns the unit noise `(x_t - alpha x0 - beta x1) / sigma`, 0 where sigma is 0.

    Args:
        process: affine process.
        x_t: state.
        t: its time.
        x0: clean image.
        x1: given end point of a bridge.

    Returns:
        Array of the shape of x_t.
    """
    return process.estimate(x_t, t, x0, x1).noise


def x0_from_noise(process, x_t, t, noise):
    """Returns `(x_t - sigma noise) / alpha`, 0 where alpha is 0; see `predict_noise`.

    Args:
        process: affine process without an end point.
        x_t: state.
        t: its time.
        noise: unit noise.

    Returns:
        Array of the shape of x_t.
    """
    return _apply(parameterisation.predict_noise(process, t), x_t, noise)


def v_from_x0(process, x_t, t, x0):
    """Returns `v = alpha noise - sigma x0` (Salimans and Ho 2022).

    Args:
        process: affine process without an end point.
        x_t: state.
        t: its time.
        x0: clean image.

    Returns:
        Array of the shape of x_t.
    """
    estimate = process.estimate(x_t, t, x0)
    return process.alpha(t) * estimate.noise - process.sigma(t) * estimate.x0


def x0_from_v(process, x_t, t, v):
    """Returns `(alpha x_t - sigma v) / (alpha^2 + sigma^2)`; see `predict_v`.

    Args:
        process: affine process without an end point.
        x_t: state.
        t: its time.
        v: the prediction target of `v_from_x0`.

    Returns:
        Array of the shape of x_t.
    """
    return _apply(parameterisation.predict_v(process, t), x_t, v)


def score_from_x0(process, x_t, t, x0):
    """Returns the score `-noise / sigma` of p(x_t), 0 where sigma is 0.

    Args:
        process: affine process with Normal noise.
        x_t: state.
        t: its time.
        x0: posterior mean.

    Returns:
        Array of the shape of x_t.

    Raises:
        ValueError: for a noise law that has no such score.
    """
    return safe_divide(process.law.score(noise_from_x0(process, x_t, t, x0), 1.0), process.sigma(t))


def x0_from_score(process, x_t, t, score):
    """Returns the posterior mean `(x_t + sigma^2 score) / alpha` (Tweedie); see `predict_score`.

    Args:
        process: affine process with Normal noise.
        x_t: state.
        t: its time.
        score: gradient of ln p(x_t).

    Returns:
        Array of the shape of x_t.

    Raises:
        ValueError: for a noise law that has no such score.
    """
    return _apply(parameterisation.predict_score(process, t), x_t, score)


def velocity_from_x0(process, x_t, t, x0):
    """Returns `d x_t / dt = alpha' x0 + sigma' noise` along the probability flow.

    Args:
        process: affine process without an end point, with a differentiable schedule.
        x_t: state.
        t: its time.
        x0: posterior mean.

    Returns:
        Array of the shape of x_t.

    Raises:
        ValueError: for a bridge or a discrete chain.
    """
    d_alpha, d_sigma = parameterisation.schedule_rates(process, t)
    estimate = process.estimate(x_t, t, x0)
    return d_alpha * estimate.x0 + d_sigma * estimate.noise


def x0_from_velocity(process, x_t, t, velocity):
    """Returns the x0 whose path through x_t has this velocity; see `predict_velocity`.

    Args:
        process: affine process without an end point, with a differentiable schedule.
        x_t: state.
        t: its time.
        velocity: d x_t / dt.

    Returns:
        Array of the shape of x_t.

    Raises:
        ValueError: for a bridge or a discrete chain.
    """
    return _apply(parameterisation.predict_velocity(process, t), x_t, velocity)


def poisson_field(x_t, z, x0, gamma=5.0):
    """Returns PFGM's normalised field at (x_t, z) of a posterior mean (Xu et al. 2022, Eq. 7; review Eq. 10).

    `sqrt(N) e / (|e| + gamma)`, `e = (x0 - x_t, -z)`: it points to the data. With gamma 0 it is sqrt(N) times
    the unit direction.

    Args:
        x_t: state, alpha = 1.
        z: augmented coordinate, a positive scalar.
        x0: posterior mean at (x_t, z), D = 1.
        gamma: softening of the norm, in units of the data.

    Returns:
        `(v_x, v_z)`: an array of the shape of x_t and a scalar.
    """
    e = x0 - x_t
    scale = math.sqrt(real_size(x_t)) / (jnp.sqrt(inner(e, e) + z**2) + gamma)
    return scale * e, -scale * z


def x0_from_poisson_field(x_t, z, v_x, v_z, gamma=5.0, z_small=5.0):
    """Returns the x0 that a predicted field points to: `x0 = x_t - z v_x / v_z`.

    Below z_small the predicted v_z, then a small difference, is replaced by the one that |v_x| implies (Xu et
    al. 2022, App. B.2.3): `q = |v_x| / sqrt(N)`, `rho = sqrt((gamma q / (1 - q))^2 + z^2)`,
    `v_z = -sqrt(N) z / (rho + gamma)`, with q at most 1 - 1e-4.

    Args:
        x_t: state.
        z: augmented coordinate, a scalar; 0 is allowed.
        v_x: predicted field along the image, of the shape of x_t.
        v_z: predicted field along z, a scalar, negative.
        gamma: softening with which the network was trained.
        z_small: level below which the predicted v_z is replaced.

    Returns:
        Array of the shape of x_t.
    """
    root = math.sqrt(real_size(x_t))
    energy = inner(v_x, v_x)
    # The square root of an exact 0 has no gradient.
    norm = jnp.where(energy > 0, jnp.sqrt(jnp.where(energy > 0, energy, 1.0)), 0.0)
    q = jnp.clip(norm / root, 0.0, 1 - 1e-4)
    rho = jnp.sqrt((gamma * q / (1 - q)) ** 2 + jnp.maximum(z, 1e-12) ** 2)
    predicted = z / jnp.maximum(-v_z, 1e-6 * root)
    stride = jnp.where(z < z_small, (rho + gamma) / root, predicted)
    return x_t + stride * v_x


def _apply(coefficients, x_t, output):
    return (coefficients.c_skip * x_t + coefficients.c_out * output).astype(x_t.dtype)

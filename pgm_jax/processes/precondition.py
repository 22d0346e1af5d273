"""Preconditionings: parameterisations that also scale the network's input and output.

Each is written for EDM's frame (x = x0 + sigma noise) in its paper and holds here for any affine process, in
alpha and sigma themselves, so that nothing overflows where alpha or sigma is 0. With s the process's sigma
and d = sigma_data, `r^2 = s^2 + alpha^2 d^2` is the variance of the state.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax.processes.parameterisation import Coefficients, _levels, _real, predict_noise

# ln(sigma / alpha) is clipped here: 2e-9 to 5e8, far beyond every grid, keeps the network's input finite.
_LOG_LEVEL = 20.0


def edm(sigma_data=0.5):
    """Builds EDM's preconditioning (Karras et al. 2022, Table 1).

    In EDM's frame `c_skip = d^2 / (sigma^2 + d^2)`, `c_out = sigma d / sqrt(sigma^2 + d^2)`,
    `c_in = 1 / sqrt(sigma^2 + d^2)`, `c_noise = ln(sigma) / 4`.

    Args:
        sigma_data: standard deviation of the data per real component; measure it, see `suggest`.

    Returns:
        `(process, t) -> Coefficients`.
    """

    def coefficients(process, t):
        return _edm(*_levels(process, _real(t)), sigma_data, 1.0)

    return coefficients


def student_t(sigma_data, D):
    """Builds EDM's preconditioning for Student-t noise, whose variance is `sigma^2 D / (D - 2)`.

    PFGM++'s reference keeps EDM's scalings (use `edm`); these give unit variance at the network's border for
    small D too (foundations 2.7.2).

    Args:
        sigma_data: standard deviation of the data per real component.
        D: PFGM++ dimension, above 2; infinity is `edm`.

    Returns:
        `(process, t) -> Coefficients`.

    Raises:
        ValueError: for D <= 2, where the noise has no variance.
    """
    if isinstance(D, (int, float)):
        if not D > 2:
            raise ValueError(
                f"Student-t noise has a variance only for D > 2, got D = {D}: use edm(sigma_data)."
            )
        widening = 1.0 if math.isinf(D) else math.sqrt(D / (D - 2))
    else:
        widening = jnp.sqrt(D / (D - 2))

    def coefficients(process, t):
        return _edm(*_levels(process, _real(t)), sigma_data, widening)

    return coefficients


def consistency(sigma_data=0.5, sigma_min=0.002):
    """Builds the scalings of consistency models: f(x, sigma_min) = x exactly (Song et al. 2023, App. C).

    In EDM's frame `c_skip = d^2 / ((sigma - e)^2 + d^2)`, `c_out = d (sigma - e) / sqrt(sigma^2 + d^2)`,
    e = sigma_min. Below sigma_min the function stays the identity.

    Args:
        sigma_data: standard deviation of the data per real component.
        sigma_min: level at which the function is the identity.

    Returns:
        `(process, t) -> Coefficients`.
    """

    def coefficients(process, t):
        alpha, sigma = _levels(process, _real(t))
        base = _edm(alpha, sigma, sigma_data, 1.0)
        above = jnp.maximum(sigma - alpha * sigma_min, 0.0)
        c_skip = sigma_data**2 * alpha / (above**2 + (alpha * sigma_data) ** 2)
        return base._replace(c_skip=c_skip, c_out=sigma_data * above * base.c_in)

    return coefficients


def trigonometric(sigma_data=0.5):
    """Builds TrigFlow's preconditioning (Lu and Song 2025, Eq. 5): `x0 = cos(t) x - sin(t) d F(x / d, t)`.

    On another process t is TrigFlow's angle, `arctan(sigma / (alpha d))`. The output is minus EDM's.

    Args:
        sigma_data: standard deviation of the data per real component.

    Returns:
        `(process, t) -> Coefficients`, with `c_noise` the angle in [0, pi / 2].
    """

    def coefficients(process, t):
        alpha, sigma = _levels(process, _real(t))
        base = _edm(alpha, sigma, sigma_data, 1.0)
        return base._replace(c_out=-base.c_out, c_noise=jnp.arctan2(sigma, alpha * sigma_data))

    return coefficients


def vp(beta_min=0.1, beta_max=20.0, scale=999.0):
    """Builds the VP preconditioning of imported networks (Karras et al. 2022, Table 1; Song et al. 2021).

    The network predicts the noise, sees unit-variance input `x / sqrt(sigma^2 + 1)` and is told
    `scale t(sigma)`, t the time of the VP process with these rates. Where alpha is 0, x0 is taken as 0.

    Args:
        beta_min: rate at t = 0.
        beta_max: rate at t = 1.
        scale: factor on the time, 999 for 1000 training steps.

    Returns:
        `(process, t) -> Coefficients`.
    """

    def coefficients(process, t):
        t = _real(t)
        alpha, sigma = _levels(process, t)
        # ln(1 + sigma^2), without overflow
        integral = jax.nn.softplus(2 * _log_level(alpha, sigma))
        time = 2 * integral / (beta_min + jnp.sqrt(beta_min**2 + 2 * (beta_max - beta_min) * integral))
        return predict_noise(process, t)._replace(
            c_in=1 / jnp.sqrt(alpha**2 + sigma**2), c_noise=scale * time
        )

    return coefficients


def ve():
    """Builds the VE preconditioning of imported networks: `x0 = x + sigma F(x, ln(sigma / 2))`.

    Karras et al. 2022, Table 1, for NCSN++ of Song et al. 2021. Where alpha is 0, x0 is taken as 0.

    Returns:
        `(process, t) -> Coefficients`.
    """

    def coefficients(process, t):
        t = _real(t)
        plain = predict_noise(process, t)
        level = _log_level(*_levels(process, t)) - math.log(2.0)
        return Coefficients(plain.c_skip, -plain.c_out, plain.c_skip, level)

    return coefficients


def iddpm(table):
    """Builds the preconditioning of imported DDPM and iDDPM networks (Karras et al. 2022, Table 1).

    As `vp`, but told a whole step: `c_noise = M - 1 - argmin_j |u_j - sigma|`. The level itself is not
    rounded; sample on levels of the table.

    Args:
        table: (M,) levels u_j of the training chain, falling; a 0 at the end is left out. For betas they are
            `sqrt(1 / abar - 1)`, noisiest first.

    Returns:
        `(process, t) -> Coefficients`.

    Raises:
        ValueError: for a table that does not fall.
    """
    table = np.asarray(table, np.float64)
    table = table[:-1] if table.size and table[-1] == 0 else table
    if table.ndim != 1 or len(table) < 1 or np.any(np.diff(table) >= 0):
        raise ValueError("iddpm needs a (M,) table of falling noise levels.")

    def coefficients(process, t):
        t = _real(t)
        alpha, sigma = _levels(process, t)
        level = jnp.exp(_log_level(alpha, sigma))
        distance = jnp.abs(jnp.asarray(table, level.dtype).reshape((-1,) + (1,) * level.ndim) - level[None])
        step = len(table) - 1 - jnp.argmin(distance, axis=0)
        return predict_noise(process, t)._replace(
            c_in=1 / jnp.sqrt(alpha**2 + sigma**2), c_noise=step.astype(t.dtype)
        )

    return coefficients


def latent_consistency(inner=predict_noise, sigma_data=0.5, scaling=10.0):
    """Builds LCM's boundary scaling around another parameterisation (Luo et al. 2023, App. A).

    `f = c_skip x + c_out x0_hat`, `c_skip = d^2 / ((scaling t)^2 + d^2)`,
    `c_out = scaling t / sqrt((scaling t)^2 + d^2)`, t the time of a discrete chain; f(x, 0) = x exactly.

    Args:
        inner: parameterisation of x0_hat.
        sigma_data: the d above; .5 whatever the data.
        scaling: factor on the time.

    Returns:
        `(process, t) -> Coefficients`.
    """

    def coefficients(process, t):
        t = _real(t)
        base = inner(process, t)
        power = (scaling * t) ** 2 + sigma_data**2
        c_skip, c_out = sigma_data**2 / power, scaling * t / jnp.sqrt(power)
        return base._replace(c_skip=c_skip + c_out * base.c_skip, c_out=c_out * base.c_out)

    return coefficients


def _edm(alpha, sigma, sigma_data, widening):
    """EDM's scalings for noise of standard deviation `widening * sigma`."""
    spread = widening * sigma
    c_in = 1 / jnp.sqrt(spread**2 + (alpha * sigma_data) ** 2)
    c_noise = 0.25 * _log_level(alpha, sigma)
    return Coefficients(alpha * sigma_data**2 * c_in**2, spread * sigma_data * c_in, c_in, c_noise)


def _log_level(alpha, sigma):
    tiny = jnp.finfo(sigma.dtype).tiny
    level = jnp.log(jnp.maximum(sigma, tiny)) - jnp.log(jnp.maximum(alpha, tiny))
    return jnp.clip(level, -_LOG_LEVEL, _LOG_LEVEL)

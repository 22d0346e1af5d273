"""Log likelihood of an image by the probability-flow ODE (Song et al. 2021, Appendix D.2)."""

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax.core import lift, real_size
from pgm_jax.samplers.adaptive import velocity


def log_likelihood(
    key, denoise, process, x, times, *, cond=None, divergence="hutchinson", probes=1, log_volume_per_dim=0.0
):
    """Computes `log p(x)` of a clean (or slightly noisy) image under a generative model.

    The state and the integral of the divergence move up the grid by classical Runge-Kutta steps:
    `log p_first(x) = log p_last(x(T)) + int div v dt`, `v` the velocity of the probability-flow ODE, for any
    noise law. The prior at the last time is the process's own, so its mismatch is of order
    `Var(data) / ratio(T)^2`.

    Args:
        key: PRNG key of the probes; the probes are held along the path.
        denoise: raw denoiser `(x_t, t, cond) -> x0_hat`.
        process: affine process.
        x: real image at the first time.
        times: rising times, (n + 1,) float64 on the host, first > 0; `grid[::-1]` of a sampling grid.
        cond: condition handed to the denoiser.
        divergence: "exact" (N products) or "hutchinson" (Rademacher probes, unbiased; exact where the
            Jacobian is a multiple of the identity).
        probes: number of Hutchinson probes.
        log_volume_per_dim: natural log of the change of volume per dimension between the units of x and the
            units in which a density is wanted. Bits per dimension of dequantised 8-bit data scaled to
            [-1, 1] need ln(127.5); the reported number is `-log p / (N ln 2)`.

    Returns:
        Real scalar, the log density in nats.

    Raises:
        ValueError: for complex images, grids that do not rise from above 0, or another divergence.
    """
    times = np.asarray(times, np.float64)
    if times.ndim != 1 or len(times) < 2 or not (np.diff(times) > 0).all() or times[0] <= 0:
        raise ValueError(
            "log_likelihood needs rising scalar times that start above 0: karras(...)[:-1][::-1]."
        )
    if jnp.iscomplexobj(x):
        raise ValueError("log_likelihood takes real images: give a complex image as two channels.")
    estimator = lift(process, denoise)

    def field(x, t):
        estimate, _ = estimator.apply(key, x, t, (), cond=cond)
        return velocity(process, estimate, t)

    rate = _divergence(field, divergence, key, probes, x)

    def step(carry, pair):
        t, s = pair
        return _runge_kutta(rate, carry, t, s), None

    knots = jnp.asarray(times, x.dtype)
    (x_last, integral), _ = jax.lax.scan(step, (x, jnp.zeros((), x.dtype)), (knots[:-1], knots[1:]))
    return process.log_prior(x_last, knots[-1]) + integral - real_size(x) * log_volume_per_dim


def _divergence(field, kind, key, probes, x):
    """Returns `(x, t) -> (velocity, divergence)`."""
    if kind == "exact":
        vectors, weight = jnp.eye(x.size, dtype=x.dtype).reshape(-1, *x.shape), 1.0
    elif kind == "hutchinson":
        vectors, weight = jax.random.rademacher(key, (probes, *x.shape), x.dtype), 1.0 / probes
    else:
        raise ValueError(f'divergence must be "exact" or "hutchinson", got {kind!r}.')

    def rate(x, t):
        value, push = jax.linearize(lambda u: field(u, t), x)
        return value, weight * jnp.sum(jax.vmap(lambda v: jnp.sum(v * push(v)))(vectors))

    return rate


def _runge_kutta(rate, carry, t, s):
    x, integral = carry
    h = s - t
    v1, d1 = rate(x, t)
    v2, d2 = rate(x + 0.5 * h * v1, t + 0.5 * h)
    v3, d3 = rate(x + 0.5 * h * v2, t + 0.5 * h)
    v4, d4 = rate(x + h * v3, s)
    return x + h / 6 * (v1 + 2 * v2 + 2 * v3 + v4), integral + h / 6 * (d1 + 2 * d2 + 2 * d3 + d4)

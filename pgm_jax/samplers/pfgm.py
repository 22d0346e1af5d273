"""PFGM's own form of the backward ODE: a Runge-Kutta step in t' = ln z."""

import jax
import jax.numpy as jnp

from pgm_jax.core import Sampler, safe_divide
from pgm_jax.samplers.ancestral import empty
from pgm_jax.samplers.ode import finite_start


def pfgm_ode():
    """Makes the classical fourth-order Runge-Kutta step of PFGM's ODE in t' = ln z (Xu et al. 2022, Eq. 6).

    In the frame where alpha is 1, `dx / dt' = z v_x / v_z = x - x0(x, z)`, z the noise level (`sigma / alpha`):
    smooth over all magnitudes, so that a geometric grid (`log_snr`) suits it. It is the probability-flow ODE
    of every other process as well. The step to sigma 0, where ln z ends, is Euler's in z.

    Returns:
        `Sampler` with four evaluations a step, one on the step to sigma 0; it refuses grids that start at
        alpha 0.
    """

    def step(key, process, estimate, state, t, s):
        keys = jax.random.split(key, 4)
        start, guidance = estimate(keys[0], state.x, t, state.guidance)

        def runge_kutta(x):
            log_z = [jnp.log(_ratio(process, u)) for u in (t, s)]
            h = log_z[1] - log_z[0]
            middle = process.time(jnp.exp(0.5 * (log_z[0] + log_z[1])))

            def slope(key, x, u):
                current, _ = estimate(key, (process.alpha(u) * x).astype(state.x.dtype), u, guidance)
                return x - current.x0

            x = process.mix(start, t) / process.alpha(t)
            k1 = x - start.x0
            k2 = slope(keys[1], x + 0.5 * h * k1, middle)
            k3 = slope(keys[2], x + 0.5 * h * k2, middle)
            k4 = slope(keys[3], x + h * k3, s)
            return (process.alpha(s) * (x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4))).astype(state.x.dtype)

        arrived = jnp.any(process.sigma(s) == 0)
        x = jax.lax.cond(arrived, lambda x: process.mix(start, s), runge_kutta, state.x)
        return state._replace(x=x, guidance=guidance)

    return Sampler(empty, step, finite_start)


def _ratio(process, t):
    return safe_divide(process.sigma(t), process.alpha(t), jnp.inf)

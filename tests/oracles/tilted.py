"""Exact guidance by its gradient: proves `process.tilt` on exact priors (foundations 2.7.6)."""

import jax
import jax.numpy as jnp

from pgm_jax.core import safe_divide
from pgm_jax.guidance import likelihood_gradient


def exact_by_tilt(prior, likelihood):
    """`exact`, from grad ln g, d ln g / d sigma and the true gain, ln g the difference of two log potentials."""
    posterior = prior.posterior(likelihood.operator, likelihood.y, likelihood.noise_std)

    def gradient(key, process, evaluation, t, state, pullback, covariance):
        x_t = evaluation.x_t
        t = jnp.asarray(t, jnp.finfo(x_t.dtype).dtype)

        def log_g(x, u):
            return posterior.log_potential(process, x, u) - prior.log_potential(process, x, u)

        slope, dt = jax.grad(log_g, argnums=(0, 1))(x_t, t)
        grad, one = jnp.conj(slope), jnp.ones_like(t)
        alpha, d_alpha = jax.jvp(process.alpha, (t,), (one,))
        _, d_ratio = jax.jvp(lambda u: safe_divide(process.sigma(u), process.alpha(u)), (t,), (one,))
        # From d/dt to d/dsigma at fixed x_t and alpha.
        along = safe_divide(d_alpha, alpha) * jnp.sum(jnp.real(jnp.conj(grad) * x_t))
        dsigma = safe_divide(dt + along, d_ratio * alpha)
        return (grad, dsigma, prior.noise_variance(process, x_t, t)), state

    return likelihood_gradient(gradient)

"""Three covariances for guidance at finite D, against the exact posterior's denoiser, at any size."""

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax.core import lift, squared_norm
from pgm_jax.guidance import likelihood_gradient, moment_matching
from pgm_jax.guidance.likelihoods import residual_adjoint
from pgm_jax.operators import GaussianLikelihood, inpainting
from pgm_jax.priors import DiagonalGaussianPrior
from pgm_jax.processes import PFGMpp


def covariance_errors(D, size, level, decay=1.0, *, noise_std=0.3, samples=16, seed=0):
    """Measures the covariances of x0 given x_t with which a measurement can guide at finite D, at one level.

    The prior has independent coefficients of variance `(1 + k)^-decay`, scaled to mean 1, every second of which
    is measured; states are drawn from the process. Each covariance gives x0 its Gaussian update, and the
    error is `|x0 - exact| / |exact - x0 of the prior|`:

        matched: `StudentT.covariance`, the Jacobian less its rank-one term, as `moment_matching` uses it.
        plugin: the nominal gain times the Jacobian, `(D sigma^2 + |d|^2) / (N + D - 2) J`.
        true: the covariance of the prior at the effective noise `E[sigma^2 v | x_t]`, which no network tells.

    Args:
        D: degrees of freedom of PFGM++, finite.
        size: number N of coefficients.
        level: sigma.
        decay: exponent of the spectrum; 0 is white.
        noise_std: noise of the measurement.
        samples: number of states.
        seed: seed of the states.

    Returns:
        dict `{D, size, level, decay, matched, plugin, true}`, medians over the states.
    """
    process, variance = PFGMpp(D), _spectrum(size, decay)
    prior = DiagonalGaussianPrior(jnp.zeros(size), variance)
    mask = np.arange(size) % 2 == 0

    @jax.jit
    def errors(key):
        key_clean, key_noise, key_state = jax.random.split(key, 3)
        clean = prior.sample(key_clean)
        y = mask * (clean + noise_std * jax.random.normal(key_noise, (size,)))
        x_t = process.perturb(key_state, clean, level)
        likelihood = GaussianLikelihood(inpainting(mask, (size,)), y, noise_std)
        plain = prior.denoiser(process)(x_t, level)
        # Coefficient by coefficient, since prior, measurement and so the posterior are diagonal.
        gain = mask * variance / (variance + noise_std**2)
        exact = DiagonalGaussianPrior(gain * y, (1 - gain) * variance).denoiser(process)(x_t, level)
        effective = prior.noise_variance(process, x_t, level)
        spread = variance * effective / (variance + effective)
        found = {
            "matched": _guided(moment_matching(likelihood), prior, process, x_t, level),
            "plugin": _guided(_plugin(likelihood), prior, process, x_t, level),
            "true": plain + mask * spread / (spread + noise_std**2) * (y - plain),
        }
        return {
            name: jnp.linalg.norm(x0 - exact) / jnp.linalg.norm(exact - plain) for name, x0 in found.items()
        }

    rows = [errors(key) for key in jax.random.split(jax.random.key(seed), samples)]
    medians = {name: float(np.median([row[name] for row in rows])) for name in rows[0]}
    return {"D": D, "size": size, "level": level, "decay": decay, **medians}


def _spectrum(size, decay):
    variance = (1.0 + np.arange(size)) ** -decay
    return jnp.asarray(variance / variance.mean(), jnp.result_type(float))


def _guided(guidance, prior, process, x_t, level):
    estimator = guidance(lift(process, prior.denoiser(process)))
    return estimator.apply(jax.random.key(0), x_t, jnp.asarray(level), estimator.init(x_t))[0].x0


def _plugin(likelihood):
    """Moment matching with the nominal gain: what a network gives without a further derivative."""

    def gradient(key, process, evaluation, t, state, pullback, covariance):
        x0 = evaluation.estimate.x0
        # alpha is 1 on this process.
        residual = evaluation.x_t - x0
        gain = process.law.gain(t, squared_norm(residual), residual.size)
        weights = likelihood.solve(likelihood.residual(x0), lambda v: gain * pullback(v))
        return (pullback(residual_adjoint(likelihood, x0, weights)), 0.0, gain), state

    return likelihood_gradient(gradient)

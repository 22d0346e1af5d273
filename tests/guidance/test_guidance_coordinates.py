"""Guidance in other coordinates, and corrections with physics of their own (contracts, rows 11 and 15)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from oracles.problems import gaussian_problem

from pgm_jax.core import lift
from pgm_jax.guidance import correct, dds, dps, moment_matching
from pgm_jax.operators import GaussianLikelihood, Matrix
from pgm_jax.priors import GaussianPrior
from pgm_jax.processes import EDM, karras
from pgm_jax.samplers import ddim, sample_one


def _haar(size=8):
    rows = [np.ones(size) / np.sqrt(size)]
    width = size
    while width > 1:
        for start in range(0, size, width):
            row = np.zeros(size)
            row[start : start + width // 2], row[start + width // 2 : start + width] = 1, -1
            rows.append(row / np.sqrt(width))
        width //= 2
    return np.stack(rows)


class Orthogonal(NamedTuple):
    """A codec that is an orthogonal matrix."""

    matrix: jax.Array
    linear: bool = True
    exact: bool = True

    def encode(self, x):
        return self.matrix @ x

    def decode(self, z):
        return self.matrix.T @ z


def _apply(guidance, denoise, process, x_t, t):
    estimator = guidance(lift(process, denoise))
    return estimator.apply(jax.random.key(0), x_t, jnp.asarray(t), estimator.init(x_t))[0]


def test_a_measurement_moves_into_wavelets_by_a_product_of_operators(x64):
    """Row 11: `A @ W.H` with moment matching is the posterior's denoiser, seen in Haar coordinates."""
    problem, process, haar = gaussian_problem(), EDM(), jnp.asarray(_haar())
    np.testing.assert_allclose(haar @ haar.T, np.eye(8), atol=1e-15)
    prior = GaussianPrior(haar @ problem.prior.mean, haar @ problem.prior.cov @ haar.T)
    likelihood = GaussianLikelihood.create(
        problem.likelihood.operator @ Matrix(haar).H, problem.likelihood.y, problem.noise_std
    )
    x_t = jnp.linspace(-1, 2, 8)
    guidance = moment_matching(likelihood, rtol=1e-15, max_steps=50)
    estimate = _apply(guidance, prior.denoiser(process), process, haar @ x_t, 0.7)
    truth = problem.posterior.denoiser(process)(x_t, 0.7)
    np.testing.assert_allclose(haar.T @ estimate.x0, truth, atol=1e-13)


def test_a_codec_conjugates_a_correction(x64):
    """Row 11: DDS decoded, corrected and encoded in Haar coordinates is DDS in pixels."""
    problem, process, haar = gaussian_problem(), EDM(), jnp.asarray(_haar())
    denoise, x_t = problem.prior.denoiser(process), jnp.linspace(-1, 2, 8)
    in_haar = lambda z, t, cond: haar @ denoise(haar.T @ z, t)
    prox = lambda key, process, x0, t, state: (problem.likelihood.prox(x0, t**2 / (1 + t**2), 5), state)
    plain = _apply(dds(problem.likelihood), denoise, process, x_t, 0.7)
    conjugated = _apply(
        correct(prox, keep_noise=True, codec=Orthogonal(haar)), in_haar, process, haar @ x_t, 0.7
    )
    np.testing.assert_allclose(haar.T @ conjugated.x0, plain.x0, atol=1e-12)
    np.testing.assert_allclose(haar.T @ conjugated.noise, plain.noise, atol=1e-12)


def test_a_gradient_through_a_nonlinear_decoder_fits_the_data(x64):
    """Row 11: DPS through decode lowers the residual of the decoded image well below the prior's."""
    problem, process = gaussian_problem(), EDM()
    decode = lambda z: z + 0.3 * jnp.tanh(z)
    latent = problem.likelihood.through(decode)
    residual = {}
    for name, guidance in (("none", None), ("dps", dps(latent, 0.5, normalise=False))):
        z = sample_one(
            jax.random.key(1), ddim(), problem.prior.denoiser(process), process, karras(200), shape=(8,),
            dtype=jnp.float64, guidance=guidance,
        )  # fmt: skip
        residual[name] = float(jnp.sqrt(jnp.mean(problem.likelihood.residual(decode(z)) ** 2)))
    assert residual["dps"] < 0.35 * residual["none"]


def test_expectation_maximisation_runs_as_a_correction(x64):
    """Row 15: PET's EM step inside `correct`: more steps a level close the gap in Poisson log likelihood."""
    rng = np.random.default_rng(0)
    system = jnp.asarray(rng.uniform(0.1, 1.0, (12, 5)))
    counts = jnp.asarray(rng.poisson(system @ rng.uniform(1, 6, 5)), jnp.float64)
    sensitivity = system.sum(axis=0)
    em = lambda x: x / sensitivity * (system.T @ (counts / (system @ x)))
    log_likelihood = lambda x: jnp.sum(counts * jnp.log(system @ x) - system @ x)
    best = log_likelihood(jax.lax.fori_loop(0, 20000, lambda i, x: em(x), jnp.ones(5)))
    gaps = []
    for steps in (1, 5, 50):
        update = lambda key, process, x0, t, state, n=steps: (
            jax.lax.fori_loop(0, n, lambda i, v: em(v), jnp.maximum(x0, 1e-6)),
            state,
        )
        # A constant prior: its denoiser knows the same image everywhere.
        x = sample_one(
            jax.random.key(0), ddim(), lambda x, t, cond: jnp.ones_like(x), EDM(), karras(5), shape=(5,),
            dtype=jnp.float64, guidance=correct(update, keep_noise=True),
        )  # fmt: skip
        gaps.append(float(best - log_likelihood(x)))
    assert gaps[0] > gaps[1] > gaps[2] >= 0 and gaps[2] < 0.5 * gaps[0], gaps

"""DDRM coordinate by coordinate: the published cases, noise-free data, real and complex images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles.moments import Moments
from oracles.problems import gaussian_problem

from pgm_jax.core import lift
from pgm_jax.guidance import ddrm
from pgm_jax.operators import Diagonal, GaussianLikelihood, RealImage, Sense, spectral
from pgm_jax.processes import EDM, VP, karras
from pgm_jax.samplers import ctm, sample_one


def _published(x_t, clean, y, d, noise_std, r_t, r, eta, eta_b):
    """Mean and standard deviation of the next state of one coordinate (Eq. 8), written case by case in numpy."""
    if d == 0:
        return clean + np.sqrt(1 - eta**2) * r * (x_t - clean) / r_t, eta * r
    if r < noise_std / d:
        return clean + np.sqrt(1 - eta**2) * r * (y / d - clean) / (noise_std / d), eta * r
    return (1 - eta_b) * clean + eta_b * y / d, np.sqrt(r**2 - (eta_b * noise_std / d) ** 2)


@pytest.mark.parametrize("process, eta_b", [(EDM(), 1.0), (VP(), 0.6)], ids=["edm", "vp"])
def test_every_coordinate_follows_its_case(x64, process, eta_b):
    """Mean and spread of the step of a diagonal operator whose data are absent, too noisy and good."""
    d, noise_std, eta = np.array([0.0, 0.1, 0.5, 2.0, -1.5]), 0.2, 0.7
    y, x_t = np.array([0.0, 0.4, -1.0, 2.0, 0.3]), np.linspace(-1, 2, 5)
    likelihood = GaussianLikelihood.create(Diagonal(jnp.asarray(d)), jnp.asarray(y), noise_std)
    # r = 0.5: the second coordinate has c = 2, above the level; c = 0.4 and less for the others.
    t, s = (float(process.time(r)) for r in (0.9, 0.5))
    denoise = lambda x, t, cond=None: 0.5 * x
    moments = Moments(ctm(), denoise, process, ddrm(likelihood, eta=eta, eta_b=eta_b))
    mean, cov = moments(np.array([t, s]), jnp.asarray(x_t), jnp.zeros((5, 5)))
    scale_t, scale = float(process.alpha(t)), float(process.alpha(s))
    for i in range(5):
        case = x_t[i] / scale_t, 0.5 * x_t[i], y[i], d[i], noise_std, 0.9, 0.5, eta, eta_b
        expected, spread = _published(*case)
        assert float(mean[i]) == pytest.approx(scale * expected, abs=1e-9)
        assert float(jnp.sqrt(cov[i, i])) == pytest.approx(scale * spread, abs=1e-9)
    np.testing.assert_allclose(cov, jnp.diag(jnp.diag(cov)), atol=1e-14)


def test_rotations_move_with_the_decomposition(x64):
    """A dense operator is a diagonal one in other coordinates: same means and covariances, rotated."""
    rng = np.random.default_rng(0)
    problem = gaussian_problem()
    left, values, right = np.linalg.svd(problem.matrix)
    flat = GaussianLikelihood.create(
        Diagonal(jnp.asarray(np.append(values, np.zeros(4)))),
        jnp.asarray(np.append(left.T @ np.asarray(problem.likelihood.y), np.zeros(4))),
        0.3,
    )
    v, start = jnp.asarray(right.T), jnp.asarray(rng.normal(size=8))
    mix = jnp.asarray(rng.normal(size=(8, 8))) / 4
    run = lambda guidance, matrix, x: Moments(ctm(), lambda x, t, c: matrix @ x, EDM(), guidance)(
        np.array([2.0, 0.6, 0.1]), x, jnp.zeros((8, 8))
    )
    mean, cov = run(ddrm(problem.likelihood), mix, start)
    flat_mean, flat_cov = run(ddrm(flat), v.T @ mix @ v, v.T @ start)
    np.testing.assert_allclose(mean, v @ flat_mean, atol=1e-12)
    np.testing.assert_allclose(cov, v @ flat_cov @ v.T, atol=1e-12)


@pytest.mark.parametrize("kind", ["complex", "real"])
def test_noise_free_data_are_reproduced(x64, kind):
    """Masked Fourier transform of a complex image in closed form, of a real image by a dense decomposition."""
    rng = np.random.default_rng(1)
    operator = Sense.single(4, 4, jnp.asarray([1.0, 0.0, 1.0, 1.0]))
    truth = rng.normal(size=(4, 4, 1)) + (1j * rng.normal(size=(4, 4, 1)) if kind == "complex" else 0)
    operator = operator if kind == "complex" else RealImage(operator)
    y = operator(jnp.asarray(truth))
    x = sample_one(
        jax.random.key(0), ctm(), lambda x, t, c: x / (1 + t**2), EDM(), karras(4), shape=(4, 4, 1),
        dtype=jnp.asarray(truth).dtype, guidance=ddrm(GaussianLikelihood.create(operator, y, 0.0)),
    )  # fmt: skip
    np.testing.assert_allclose(operator(x), y, atol=1e-12)


def test_a_real_image_needs_a_real_basis():
    operator = Sense.single(4, 4, jnp.ones(4))
    likelihood = GaussianLikelihood.create(operator, jnp.zeros((1, 4, 4), jnp.complex64), 0.1)
    estimator = ddrm(likelihood, spectral(operator))(lift(EDM(), lambda x, t, c: x))
    with pytest.raises(ValueError, match="RealImage"):
        estimator.apply(jax.random.key(0), jnp.ones((4, 4, 1)), 0.5, (), s=0.2)

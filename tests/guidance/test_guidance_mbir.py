"""DiffusionMBIR's ADMM across slices: the iteration by hand, warm duals, boundaries, complex volumes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax.core import lift
from pgm_jax.guidance import mbir
from pgm_jax.operators import FiniteDifference, GaussianLikelihood, Identity, Matrix, Sense
from pgm_jax.processes import EDM, VP, karras
from pgm_jax.reconstruction import tv
from pgm_jax.samplers import ddim, sample_one

SHAPE = (5, 2, 1, 1)


def _problem(noise_std=0.5):
    rng = np.random.default_rng(0)
    operator = Matrix(jnp.asarray(rng.normal(size=(6, 10))), image_shape=SHAPE)
    return GaussianLikelihood.create(operator, jnp.asarray(rng.normal(size=6)), noise_std)


@pytest.mark.parametrize("boundary, keep_noise", [("neumann", True), ("periodic", False)])
def test_two_evaluations_by_hand(x64, boundary, keep_noise):
    """Eq. 31 with dense matrices and enough CG steps: x, z and w, the state handed on, the noise kept or not."""
    likelihood, weight, rho, process, t = _problem(), 0.3, 2.0, VP(), 0.4
    a = likelihood.operator.values
    rows = np.roll(np.eye(5), -1, axis=0) @ np.eye(5) - np.eye(5)
    rows[-1] = rows[-1] if boundary == "periodic" else 0
    d = jnp.asarray(np.kron(rows, np.eye(2)))
    x_t, denoise = jnp.linspace(-1, 1, 10).reshape(SHAPE), lambda x, t, c: jnp.tanh(x)
    guidance = mbir(likelihood, weight, rho, steps=30, boundary=boundary, keep_noise=keep_noise)
    estimator = guidance(lift(process, denoise))
    state, z, w = estimator.init(x_t), jnp.zeros(10), jnp.zeros(10)
    normal = a.T @ a / 0.25 + rho * d.T @ d
    for _ in range(2):
        estimate, state = estimator.apply(jax.random.key(0), x_t, jnp.asarray(t), state)
        x = jnp.linalg.solve(normal, a.T @ likelihood.y / 0.25 + rho * d.T @ (z - w))
        shifted = d @ x + w
        z = jnp.sign(shifted) * jnp.maximum(jnp.abs(shifted) - weight / rho, 0.0)
        w = shifted - z
        np.testing.assert_allclose(estimate.x0.ravel(), x, atol=1e-8)
        np.testing.assert_allclose(state[1][0].ravel(), z, atol=1e-8)
        np.testing.assert_allclose(state[1][1].ravel(), w, atol=1e-8)
    kept = (x_t - process.alpha(t) * (denoise(x_t, t, None) if keep_noise else estimate.x0)) / process.sigma(
        t
    )
    np.testing.assert_allclose(estimate.noise, kept, atol=1e-12)


def test_cg_starts_from_the_denoised_volume(x64):
    """No step leaves x0; one step is a move along the gradient there."""
    likelihood, x0 = _problem(), jnp.linspace(-1, 1, 10).reshape(SHAPE)
    difference = FiniteDifference(SHAPE, axes=(0,))
    estimator = mbir(likelihood, 0.1, 1.0)(lift(EDM(), lambda x, t, c: x0))
    found = estimator.apply(jax.random.key(0), jnp.zeros(SHAPE), 0.5, estimator.init(x0))[0].x0
    slope = likelihood.grad(x0) - difference.gram(x0)
    cosine = jnp.sum((found - x0) * slope) / (jnp.linalg.norm(found - x0) * jnp.linalg.norm(slope))
    assert float(cosine) == pytest.approx(1, abs=1e-12)


def test_warm_duals_reach_the_minimum_of_its_objective(x64):
    """Row 3 of the contracts with the shipped method: nearer with 40 levels than with 10, 5 CG steps each."""
    likelihood, weight = _problem(), 0.5
    difference = FiniteDifference(SHAPE, axes=(0,))
    objective = lambda x: (
        jnp.sum(likelihood.residual(x) ** 2) / 0.5 + weight * jnp.sum(jnp.abs(difference(x)))
    )
    scaled = likelihood.operator.values / 0.5
    best = objective(
        tv(Matrix(scaled, image_shape=SHAPE), likelihood.y / 0.5, weight, 4000, gradient=difference)[0]
    )
    gaps = []
    for steps in (10, 40):
        x = sample_one(
            jax.random.key(0), ddim(), lambda x, t, c: x / (1 + t**2), EDM(), karras(steps), shape=SHAPE,
            dtype=jnp.float64, guidance=mbir(likelihood, weight, 0.5, steps=5),
        )  # fmt: skip
        gaps.append(float(objective(x) - best))
    assert -1e-6 < gaps[1] < 1e-2 and gaps[1] < 0.1 * gaps[0], gaps


def test_iterations_within_an_evaluation_are_those_of_several(x64):
    likelihood, x_t = _problem(), jnp.linspace(-1, 1, 10).reshape(SHAPE)
    inner = lift(EDM(), lambda x, t, c: 0.5 * x)
    once, thrice = (mbir(likelihood, 0.3, 2.0, steps=30, iterations=n)(inner) for n in (1, 3))
    state = once.init(x_t)
    for _ in range(3):
        estimate, state = once.apply(jax.random.key(0), x_t, 0.5, state)
    found, found_state = thrice.apply(jax.random.key(0), x_t, 0.5, thrice.init(x_t))
    np.testing.assert_allclose(found.x0, estimate.x0, atol=1e-10)
    np.testing.assert_allclose(found_state[1][1], state[1][1], atol=1e-10)


def test_complex_volumes_commute_with_their_phase(x64):
    """A volume, its data and its duals turned by one phase: Hermitian products and complex shrinkage."""
    rng = np.random.default_rng(2)
    maps = jnp.ones((1, 3, 4, 4), complex)
    operator = Sense(maps, jnp.asarray([1.0, 0.0, 1.0, 1.0]))
    x_t = jnp.asarray(rng.normal(size=(3, 4, 4, 1)) + 1j * rng.normal(size=(3, 4, 4, 1)))
    y, turn = operator(x_t[::-1]), np.exp(0.7j)
    inner, found = lift(EDM(), lambda x, t, c: 0.5 * x), []
    for phase in (1.0, turn):
        estimator = mbir(GaussianLikelihood.create(operator, phase * y, 0.5), 0.3, 1.0, steps=3)(inner)
        state = estimator.init(phase * x_t)
        for _ in range(2):
            estimate, state = estimator.apply(jax.random.key(0), phase * x_t, 0.5, state)
        found.append(estimate.x0)
    np.testing.assert_allclose(found[1], turn * found[0], atol=1e-12)


def test_total_variation_joins_slices_denoised_alone(x64):
    """Noisy slices of one image: with the term they agree, and noise_std 1 takes the published weights."""
    rng = np.random.default_rng(3)
    truth = jnp.broadcast_to(jnp.asarray(rng.normal(size=(1, 4, 4, 1))), (6, 4, 4, 1))
    y = truth + 0.3 * jnp.asarray(rng.normal(size=truth.shape))
    likelihood = GaussianLikelihood.create(Identity(truth.shape), y, 1.0)
    errors = []
    for weight in (1e-6, 0.3):
        x = sample_one(
            jax.random.key(0), ddim(), lambda x, t, c: x / (1 + t**2), EDM(), karras(12), shape=truth.shape,
            dtype=jnp.float64, guidance=mbir(likelihood, weight, steps=5),
        )  # fmt: skip
        errors.append(float(jnp.sqrt(jnp.mean((x - truth) ** 2))))
    assert errors[1] < 0.7 * errors[0], errors


def test_gamma_is_a_term_of_the_minimum(x64):
    """With gamma, converged CG solves (A^T A / s^2 + 1 / gamma) x = A^T y / s^2 + x0 / gamma, D of no weight."""
    likelihood, x0, variance = _problem(), jnp.linspace(-1, 1, 10).reshape(SHAPE), 0.3
    guidance = mbir(
        likelihood, 1e-9, 1e-9, steps=40, gamma=lambda process, t: variance * process.sigma(t) ** 2
    )
    estimator = guidance(lift(EDM(), lambda x, t, c: x0))
    found = estimator.apply(jax.random.key(0), jnp.zeros(SHAPE), 0.5, estimator.init(x0))[0].x0
    gamma, a = variance * 0.25, likelihood.operator.values
    exact = jnp.linalg.solve(
        a.T @ a / 0.25 + jnp.eye(10) / gamma, a.T @ likelihood.y / 0.25 + x0.ravel() / gamma
    )
    np.testing.assert_allclose(found.ravel(), exact, atol=1e-6, equal_nan=False)

"""The empirical prior: foundations O6, O9, and the exact conditional velocity O13."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax.operators import Matrix
from pgm_jax.priors import EmpiricalPrior, MixturePrior
from pgm_jax.processes import EDM, VP, FlowMatching, PFGMpp, StudentT


@pytest.mark.parametrize(
    "df,expected",
    [
        (1, 0.7258759922),
        (2, 0.7269992479),
        (8, 0.7452910574),
        (128, 0.7677220594),
        (2048, 0.7698840208),
        (float("inf"), 0.7700327308),
    ],
)
def test_two_points_o6(x64, df, expected):
    prior = EmpiricalPrior(jnp.asarray([[1.0, 0.0], [-1.0, 0.0]]).reshape(2, 2, 1, 1))
    x0 = prior.denoiser(PFGMpp(df))(jnp.asarray([0.5, 0.3]).reshape(2, 1, 1), 0.7)
    np.testing.assert_allclose(np.ravel(x0), [expected, 0.0], atol=1e-9)


@pytest.mark.parametrize("process", [EDM(), VP(), FlowMatching(), PFGMpp(1), FlowMatching(StudentT(8.0))])
def test_point_mass_o9_and_ends(x64, process):
    point = jnp.asarray([0.3, -1.0, 2.0]).reshape(3, 1, 1)
    prior, x = EmpiricalPrior(point[None]), jnp.ones((3, 1, 1))
    np.testing.assert_allclose(prior.denoiser(process)(x, 0.5), point, atol=1e-15)
    np.testing.assert_array_equal(prior.denoiser(process)(x, 0.0), x)
    two = EmpiricalPrior(jnp.stack([point, -point]), jnp.asarray([3.0, 1.0]))
    if float(process.alpha(1.0)) == 0:
        np.testing.assert_allclose(two.denoiser(process)(x, 1.0), 0.5 * point, atol=1e-12)


@pytest.mark.parametrize("process", [EDM(), FlowMatching(StudentT(3.0)), PFGMpp(64)])
@pytest.mark.parametrize("is_complex", [False, True])
def test_closed_form_equals_the_quadrature_over_conditionals(x64, process, is_complex):
    rng = np.random.default_rng(0)
    points = rng.standard_normal((5, 2, 2, 1)) + (1j * rng.standard_normal((5, 2, 2, 1)) if is_complex else 0)
    prior, x, t = EmpiricalPrior(jnp.asarray(points)), jnp.asarray(0.7 * points[0] + 0.1), 0.6
    a, s = process.alpha(t), process.sigma(t)
    size = 8 if is_complex else 4
    log_p, mean = process.law.marginalise(lambda v: prior.conditional(x, a, s**2 * v), size=size)
    np.testing.assert_allclose(prior.log_marginal(process, x, t), log_p, rtol=1e-10)
    np.testing.assert_allclose(prior.denoiser(process)(x, t), mean, rtol=1e-9)
    with_v = lambda v: (prior.conditional(x, a, s**2 * v)[0], s**2 * v)
    np.testing.assert_allclose(
        prior.noise_variance(process, x, t), process.law.marginalise(with_v, size=size)[1], rtol=1e-8
    )
    density = lambda v: (prior.conditional(x, a, s**2 * v)[0], ())
    log_q = process.law.marginalise(density, power=1.0, size=size)[0]
    np.testing.assert_allclose(prior.log_potential(process, x, t), log_q, rtol=1e-8)


def test_equals_a_mixture_of_narrow_gaussians(x64):
    rng = np.random.default_rng(1)
    points, x = jnp.asarray(rng.standard_normal((4, 3, 1, 1))), jnp.asarray(rng.standard_normal((3, 1, 1)))
    weights = jnp.asarray([0.1, 0.2, 0.3, 0.4])
    narrow = MixturePrior(weights, points, 1e-12 * jnp.stack([jnp.eye(3)] * 4))
    for process in (EDM(), PFGMpp(5)):
        got = EmpiricalPrior(points, weights).denoiser(process)(x, 0.8)
        np.testing.assert_allclose(got, narrow.denoiser(process)(x, 0.8), atol=1e-9)


@pytest.mark.parametrize("df,expected", [(3, 0.31462549650), (8, 0.19285141303), (64, 0.06822071107)])
def test_exact_conditional_velocity_o13(x64, df, expected):
    """v_m = (v - kappa grad ln g) / (1 - kappa d_r ln g) is the posterior's own velocity (2.7.6)."""
    prior = EmpiricalPrior(jnp.asarray([-1.0, 0.2, 1.5]).reshape(3, 1, 1, 1), jnp.asarray([0.2, 0.5, 0.3]))
    post = prior.posterior(Matrix(jnp.ones((1, 1)), (1, 1, 1)), jnp.asarray([0.6]), 0.4)
    process, x, sigma, root = PFGMpp(df), jnp.full((1, 1, 1), 0.9), 1.1, np.sqrt(df)
    velocity = lambda p: (x - p.denoiser(process)(x, sigma)) / (sigma * root)
    log_g = lambda u, s: post.log_potential(process, u, s) - prior.log_potential(process, u, s)
    grad, d_sigma = jax.grad(log_g, argnums=(0, 1))(x, jnp.asarray(sigma))
    # kappa = E[|x - y|^2 + r^2] / ((N + D - 2) r) and d_r = d_sigma / sqrt(D)
    kappa = prior.noise_variance(process, x, sigma) / (sigma * root) * 1.0
    v_m = (velocity(prior) - kappa * grad) / (1 - kappa * d_sigma / root)
    np.testing.assert_allclose(np.ravel(velocity(post)), expected, atol=1e-10)
    np.testing.assert_allclose(np.ravel(v_m), expected, atol=1e-9)
    # and as the process's tilt writes it
    estimate = process.estimate(x, sigma, prior.denoiser(process)(x, sigma))
    gain = prior.noise_variance(process, x, sigma)
    tilted = process.tilt(estimate, x, sigma, grad, d_sigma, gain)
    np.testing.assert_allclose(tilted.x0, post.denoiser(process)(x, sigma), atol=1e-12)


def test_posterior_weights_with_complex_data(x64):
    rng = np.random.default_rng(2)
    points, a = (
        rng.standard_normal((4, 3, 1, 1)),
        rng.standard_normal((2, 3)) + 1j * rng.standard_normal((2, 3)),
    )
    y = a @ points[1].ravel() + 0.1
    post = EmpiricalPrior(jnp.asarray(points)).posterior(
        Matrix(jnp.asarray(a), (3, 1, 1)), jnp.asarray(y), 0.5
    )
    misfit = np.array([np.sum(np.abs(y - a @ p.ravel()) ** 2) for p in points])
    expected = np.exp(-0.5 * misfit / 0.25)
    np.testing.assert_allclose(post.weights, expected / expected.sum(), rtol=1e-12)


def test_sample_and_refusals():
    prior = EmpiricalPrior(jnp.arange(3.0).reshape(3, 1, 1, 1), jnp.asarray([1.0, 2.0, 1.0]))
    draws = np.ravel(jax.vmap(prior.sample)(jax.random.split(jax.random.key(0), 8000)))
    np.testing.assert_allclose(np.bincount(draws.astype(int)) / 8000, [0.25, 0.5, 0.25], atol=0.025)
    with pytest.raises(ValueError, match="no density"):
        prior.log_prob(jnp.zeros((1, 1, 1)))
    with pytest.raises(ValueError, match="one time per image"):
        EmpiricalPrior(jnp.zeros((2, 2, 2, 1))).denoiser(EDM())(
            jnp.zeros((2, 2, 1)), jnp.full((2, 2, 1), 0.5)
        )


@pytest.mark.parametrize("weights", [[0.0, 0.0], [1.0, -0.5], [1.0, np.nan]])
def test_impossible_weights_are_refused(weights):
    with pytest.raises(ValueError, match="weights >= 0 with a positive sum"):
        MixturePrior(jnp.asarray(weights), jnp.zeros((2, 3)), jnp.stack([jnp.eye(3)] * 2))

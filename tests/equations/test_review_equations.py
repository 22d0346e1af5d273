"""The review's numbered equations 1 to 31, each in its corrected form, as one short numerical check.

The corrections are those of foundations.md 7 (E1 to E17) and reconstruction.md 9. Training losses (Eq. 1, 3,
9, 14, 19, 22) are checked by their minimiser, which is what an exact prior gives in closed form.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from oracles.closed_forms import linear_denoiser, log_sphere, radius_law
from oracles.moments import Moments, variance

from pgm_jax.core import lift
from pgm_jax.guidance import correct, dds, exact, move
from pgm_jax.operators import FiniteDifference, GaussianLikelihood, Matrix
from pgm_jax.priors import EmpiricalPrior, GaussianPrior, MixturePrior
from pgm_jax.processes import DDPM, EDM, VP, PFGMpp, StudentT
from pgm_jax.samplers import (
    ancestral,
    consistency,
    ddim,
    euler,
    euler_maruyama,
    langevin,
    sample_one,
    velocity,
)

POINTS, WEIGHTS = np.array([[-1.0, 0.3], [0.2, -0.8], [1.5, 0.4]]), np.array([0.2, 0.5, 0.3])


def _state():
    return jnp.array([0.5, 0.3])


def _atoms():
    return EmpiricalPrior(jnp.asarray(POINTS), jnp.asarray(WEIGHTS))


def _mixture():
    covs = jnp.array([[[0.3, 0.1], [0.1, 0.2]], [[0.1, 0.0], [0.0, 0.4]], [[0.2, -0.1], [-0.1, 0.2]]])
    return MixturePrior(jnp.asarray(WEIGHTS), jnp.asarray(POINTS), covs)


def _score(process, x_t, t, prior):
    estimate = lift(process, prior.denoiser(process)).apply(None, x_t, t, ())[0]
    return process.law.score(estimate.noise, process.sigma(t))


def test_kernel_of_ddpm_corrected(x64):
    """Section 2.1: one step is N(sqrt(1 - beta_i) x_{i-1}, beta_i I); the review mixes it with the marginal.

    Composing the steps gives the marginal N(sqrt(abar_i) x_0, (1 - abar_i) I) that the process states.
    """
    process, betas = DDPM(), np.linspace(1e-4, 0.02, 1000)
    mean, var = 1.0, 0.0
    for i in range(1, 1001):
        mean, var = math.sqrt(1 - betas[i - 1]) * mean, (1 - betas[i - 1]) * var + betas[i - 1]
        if i in (1, 500, 1000):
            assert float(process.alpha(float(i))) == pytest.approx(mean, rel=1e-12)
            assert float(process.sigma(float(i))) ** 2 == pytest.approx(var, rel=1e-12)
    assert mean**2 == pytest.approx(4.03583e-5, rel=1e-6)


@pytest.mark.parametrize("process, t", [(DDPM(), 400.0), (VP(), 0.4)])
def test_equation_1_minimiser_of_denoising_score_matching(x64, process, t):
    """Eq. 1: the minimiser is the score of the marginal, `E[grad log p(x_t | x_0) | x_t]`."""
    log_p = lambda x: _mixture().log_marginal(process, x, t)
    np.testing.assert_allclose(_score(process, _state(), t, _mixture()), jax.grad(log_p)(_state()), rtol=1e-9)


def test_equation_1_target_is_the_conditional_score(x64, key):
    """`grad log p(x_t | x_0) = -noise / sigma`, and perturb draws that kernel."""
    process, t = DDPM(), 400.0
    x0 = jnp.array([0.4, -0.6])
    x_t = process.perturb(key, x0, t)
    estimate = process.estimate(x_t, t, x0)
    log_kernel = lambda x: process.log_prior(x - process.alpha(t) * x0, t)
    target = process.law.score(estimate.noise, process.sigma(t))
    np.testing.assert_allclose(target, jax.grad(log_kernel)(x_t), rtol=1e-12)


def test_equation_2_reverse_chain(x64):
    """Eq. 2: `x_{i-1} = (x_i + beta_i s) / sqrt(1 - beta_i) + sqrt(beta_i) z`, with no noise at i = 1.

    The correction E2: z = 0 on the last step. The parentheses of the printed reverse kernel (E1) are those
    of this equation.
    """
    process, prior = DDPM(), _mixture()
    betas = np.linspace(1e-4, 0.02, 1000)
    for i in (700, 2, 1):
        x_t = _state() * 0.9
        frozen = prior.denoiser(process)(x_t, float(i))
        moments = Moments(ancestral("large"), lambda x, t, c, at=frozen: at + 0 * x, process)
        mean, cov = moments([i, i - 1], x_t, jnp.zeros((2, 2)))
        score = _score(process, x_t, float(i), prior)
        beta = betas[i - 1]
        np.testing.assert_allclose(mean, (x_t + beta * score) / math.sqrt(1 - beta), rtol=1e-9)
        np.testing.assert_allclose(cov, (beta if i > 1 else 0.0) * np.eye(2), rtol=1e-9, atol=1e-18)


def test_equation_3_score_of_the_exploding_kernel(x64):
    """Eq. 3: the score of p_sigma(x~) = int p(x) N(x~; x, sigma^2 I) dx (E3: a function of x~)."""
    sigma = 0.7
    squares = lambda x: jnp.sum((x[None] - jnp.asarray(POINTS)) ** 2, 1)
    density = lambda x: jnp.log(jnp.sum(jnp.asarray(WEIGHTS) * jnp.exp(-squares(x) / (2 * sigma**2))))
    np.testing.assert_allclose(
        _score(EDM(), _state(), sigma, _atoms()), jax.grad(density)(_state()), rtol=1e-12
    )


def test_equation_4_langevin_step(x64):
    """Eq. 4: `x + e s + sqrt(2 e) z` as printed (E4: right), with `e_i ~ sigma_i^2`."""
    process, sigma = EDM(), 0.8
    sampler = langevin(steps=1, step_size=1e-3, sigma_last=0.1)
    e = 1e-3 * (sigma / 0.1) ** 2
    frozen = _atoms().denoiser(process)(_state(), sigma)
    mean, cov = Moments(sampler, lambda x, t, c: frozen + 0 * x, process)(
        [sigma, 0.5], _state(), jnp.zeros((2, 2))
    )
    np.testing.assert_allclose(mean, _state() + e * _score(process, _state(), sigma, _atoms()), rtol=1e-12)
    np.testing.assert_allclose(cov, 2 * e * np.eye(2), rtol=1e-12)


@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_equation_5_forward_sde(x64, t):
    """Eq. 5: the SDE has the marginals: `alpha' = f alpha`, `(sigma^2)' = 2 f sigma^2 + g^2`."""
    process, h = VP(), 1e-6
    f, g2 = (float(v) for v in process.sde(t))
    slope = lambda value: float((value(t + h) - value(t - h)) / (2 * h))
    assert slope(process.alpha) == pytest.approx(f * float(process.alpha(t)), rel=1e-7)
    assert slope(lambda u: process.sigma(u) ** 2) == pytest.approx(
        2 * f * float(process.sigma(t)) ** 2 + g2, rel=1e-6
    )


@functools.cache
def _sde_moments(noise):
    return Moments(euler_maruyama(noise), linear_denoiser(VP(), 0.5), VP())


@pytest.mark.parametrize(
    "number, noise", [(6, 1.0), (7, 0.0)], ids=["equation_6_reverse_sde", "equation_7_flow_ode"]
)
def test_equations_6_and_7_reverse_sde_and_flow(x64, number, noise):
    """Eq. 6 and 7: drift `f x - (1 + k^2) / 2 g^2 score` (dt < 0) and spread `k g sqrt(-dt)`."""
    process, t, h = VP(), 0.5, 1e-3
    f, g2 = (float(v) for v in process.sde(t))
    score = -1.7 / (0.25 * float(process.alpha(t)) ** 2 + float(process.sigma(t)) ** 2)
    mean, cov = _sde_moments(noise)([t, t - h], jnp.array([1.7]), jnp.zeros((1, 1)))
    factor = 1.0 if number == 6 else 0.5
    assert float(mean[0]) == pytest.approx(1.7 - h * (f * 1.7 - factor * g2 * score), rel=1e-11)
    assert float(cov[0, 0]) == pytest.approx(g2 * h if number == 6 else 0.0, rel=1e-10)
    # The samplers' own velocity, by the coefficients, is Eq. 7's right side.
    if number == 7:
        estimate = lift(process, linear_denoiser(process, 0.5)).apply(None, jnp.array([1.7]), t, ())[0]
        assert float(velocity(process, estimate, t)[0]) == pytest.approx(
            f * 1.7 - 0.5 * g2 * score, rel=1e-11
        )


def test_equation_8_edm_flow(x64):
    """Eq. 8: `dx = -sigma' sigma score dt`; from Eq. 7 by mu = 0 and g^2 = 2 sigma sigma' (E6)."""
    process, sigma = EDM(), 0.7
    estimate = lift(process, _atoms().denoiser(process)).apply(None, _state(), sigma, ())[0]
    score = _score(process, _state(), sigma, _atoms())
    np.testing.assert_allclose(velocity(process, estimate, sigma), -sigma * score, rtol=1e-12)
    assert float(process.sde(sigma)[1]) == pytest.approx(2 * sigma)


def test_equation_9_minimiser_with_any_weight(x64, key):
    """Eq. 9, kernel N(x; y, sigma^2 I) (E5): the best linear fit is the score of Gaussian data."""
    process, sigma, std = EDM(), 0.6, 0.5
    y = std * jax.random.normal(key, (40000, 1))
    x = jax.vmap(lambda k, y: process.perturb(k, y, sigma))(jax.random.split(key, 40000), y)
    target = -(x - y) / sigma**2
    slope = float(jnp.sum(target * x) / jnp.sum(x * x))
    assert slope == pytest.approx(-1 / (std**2 + sigma**2), rel=0.02)


def _field(x, z, size, dimension):
    """The Poisson field of the atoms in N + D dimensions: (E_x, E_r), up to the constant 1 / S."""
    gap = np.asarray(x)[None] - POINTS
    weight = WEIGHTS * (np.sum(gap**2, 1) + z**2) ** (-(size + dimension) / 2)
    return weight @ gap, weight.sum() * z


def test_equation_10_poisson_field(x64):
    """Eq. 10: the D = 1 field; PFGM's z is the level of `PFGMpp(1)`, and the flow goes along it.

    E7: the network regresses the negative direction; sampling runs backwards, anchored by z.
    """
    process, z = PFGMpp(1.0), 0.7
    e_x, e_z = _field(_state(), z, 2, 1)
    x0 = _atoms().denoiser(process)(_state(), z)
    np.testing.assert_allclose((_state() - x0) / z, e_x / e_z, rtol=1e-11)


def test_equation_10_divergence_free(x64):
    """Gauss' law: away from the charges the field of Eq. 10 has no divergence in N + 1 dimensions."""
    points, weights = jnp.asarray(POINTS), jnp.asarray(WEIGHTS)

    def field(u):
        gap = u[None] - jnp.pad(points, ((0, 0), (0, 1)))
        return jnp.sum(weights[:, None] * gap / jnp.sum(gap**2, 1, keepdims=True) ** 1.5, 0)

    u = jnp.array([0.5, 0.3, 0.7])
    assert float(jnp.trace(jax.jacfwd(field)(u))) == pytest.approx(0, abs=1e-13)
    e_x, e_z = _field(_state(), 0.7, 2, 1)
    np.testing.assert_allclose(field(u), [*e_x, e_z], rtol=1e-12)


@pytest.mark.parametrize("df", [1.0, 3.0, 128.0])
def test_equation_11_12_13_pfgmpp_field(x64, df):
    """Eq. 11 to 13, y~ = (y, 0) (E8): `dx / dr = E_x / E_r`, r = sigma sqrt(D), is (x - x0) / r."""
    process, sigma = PFGMpp(df), 0.7
    r = sigma * math.sqrt(df)
    e_x, e_r = _field(_state(), r, 2, df)
    estimate = lift(process, _atoms().denoiser(process)).apply(None, _state(), sigma, ())[0]
    np.testing.assert_allclose(velocity(process, estimate, sigma) / math.sqrt(df), e_x / e_r, rtol=1e-10)
    stepped = sample_one(
        jax.random.key(0), euler(), _atoms().denoiser(process), process, [sigma, 0.6], x_init=_state()
    )
    np.testing.assert_allclose(stepped, _state() + (0.6 - sigma) * math.sqrt(df) * e_x / e_r, rtol=1e-10)


@pytest.mark.parametrize("df", [1.0, 8.0])
def test_equation_14_minimiser(x64, df):
    """Eq. 14 lacks r (E9): with the target (x - y) / (r / sqrt(D)) the minimiser is sqrt(D) E_x / E_r."""
    process, sigma = PFGMpp(df), 0.7
    r = sigma * math.sqrt(df)
    gap = np.asarray(_state())[None] - POINTS
    posterior = WEIGHTS * (np.sum(gap**2, 1) + r**2) ** (-(2 + df) / 2)
    minimiser = (posterior / posterior.sum()) @ gap / (r / math.sqrt(df))
    estimate = lift(process, _atoms().denoiser(process)).apply(None, _state(), sigma, ())[0]
    np.testing.assert_allclose(estimate.noise, minimiser, rtol=1e-10)
    e_x, e_r = _field(_state(), r, 2, df)
    np.testing.assert_allclose(minimiser, math.sqrt(df) * e_x / e_r, rtol=1e-10)


@pytest.mark.parametrize("size, df", [(2, 2.0), (64, 128.0)])
def test_equation_15_radius(x64, key, size, df):
    """Eq. 15: `p(R) ~ R^(N-1) / (R^2 + r^2)^((N + D) / 2)`, both the density and the draws (E10)."""
    sigma = 0.6
    r = sigma * math.sqrt(df)
    radii = np.array([0.3, 1.0, 2.5]) * r * math.sqrt(size / df)
    kernel = [float(PFGMpp(df).log_prior(jnp.zeros(size).at[0].set(q), sigma)) for q in radii]
    density = np.array(kernel) + log_sphere(size) + (size - 1) * np.log(radii)
    printed = (size - 1) * np.log(radii) - (size + df) / 2 * np.log(radii**2 + r**2)
    np.testing.assert_allclose(density - density[0], printed - printed[0], rtol=1e-10, atol=1e-12)
    draw = jax.jit(jax.vmap(lambda k: PFGMpp(df).perturb(k, jnp.ones(size), sigma)))
    gaps = np.asarray(draw(jax.random.split(key, 3000))) - 1
    assert scipy.stats.kstest(np.sum(gaps**2, 1) / r**2, radius_law(size, df).cdf).pvalue > 1e-3


def _consistency(x, sigma, cond=None, std=0.5, low=0.002):
    return jnp.sqrt((std**2 + low**2) / (std**2 + sigma**2)) * x


def test_equation_16_17_consistency_function(x64):
    """Eq. 16 and 17 on Gaussian data: x_{sigma_max} -> x_{sigma_min}, the same from every point of a path."""
    path = lambda sigma: 0.7 * jnp.sqrt(0.25 + sigma**2) * jnp.ones(2)
    ends = [_consistency(path(sigma), sigma) for sigma in (80.0, 3.0, 0.1, 0.002)]
    for end in ends:
        np.testing.assert_allclose(end, path(0.002), rtol=1e-13)
    # One step of the sampler from pure noise, which is sigma_max z, not unit noise (E14).
    x = sample_one(
        jax.random.key(0), consistency(0.002), _consistency, EDM(), [80.0, 0.002], x_init=path(80.0)
    )
    np.testing.assert_allclose(x, path(0.002), rtol=1e-12)


def test_equation_18_boundary(x64):
    """Eq. 18: c_skip(eps) = 1 and c_out(eps) = 0, so f(x, eps) = x for any network (foundations 2.11)."""
    eps, std = 0.002, 0.5

    def f(x, sigma, network):
        skip = std**2 / ((sigma - eps) ** 2 + std**2)
        out = std * (sigma - eps) / jnp.sqrt(sigma**2 + std**2)
        return skip * x + out * network(x)

    np.testing.assert_array_equal(f(_state(), eps, jnp.cos), _state())
    # With its boundary kept, multistep sampling that ends there returns the network's image itself.
    run = sample_one(
        jax.random.key(0),
        consistency(eps),
        lambda x, t, c: f(x, t, jnp.cos),
        EDM(),
        [3.0, eps],
        x_init=_state(),
    )
    np.testing.assert_allclose(run, f(_state(), 3.0, jnp.cos), rtol=1e-14)


def test_equation_20_one_euler_step(x64):
    """Eq. 20 (right, E12): `x - (sigma_i - sigma_{i+1}) sigma_{i+1} score` is the Euler step of Eq. 8."""
    process, prior = EDM(), _atoms()
    high, low = 0.9, 0.6
    printed = _state() - (low - high) * high * _score(process, _state(), high, prior)
    found = sample_one(
        jax.random.key(0), euler(), prior.denoiser(process), process, [high, low], x_init=_state()
    )
    np.testing.assert_allclose(found, printed, rtol=1e-13)


@pytest.mark.parametrize("df", [2.0, math.inf])
def test_equation_22_pair_is_the_euler_step_on_average(x64, df):
    """Eq. 22: the pair x + sigma z at two levels, with one z; given the noisier, its mean is Eq. 20's step.

    True for every D, because conditional paths are straight (foundations 2.16); enumerated over the atoms.
    """
    process, prior = PFGMpp(df), _atoms()
    high, low = 0.9, 0.6
    mean = 0.0
    log_weight = [
        math.log(w) + float(process.log_prior(_state() - jnp.asarray(point), high))
        for w, point in zip(WEIGHTS, POINTS, strict=True)
    ]
    share = np.exp(np.array(log_weight) - np.logaddexp.reduce(log_weight))
    for weight, point in zip(share, POINTS, strict=True):
        estimate = process.estimate(_state(), high, jnp.asarray(point))
        mean = mean + weight * process.mix(estimate, low)
    found = sample_one(
        jax.random.key(0), euler(), prior.denoiser(process), process, [high, low], x_init=_state()
    )
    np.testing.assert_allclose(found, mean, rtol=1e-10)


def test_equation_22_pair_shares_its_noise(x64, key):
    """The same key perturbs the same image by the same unit noise at both levels."""
    process, x0 = PFGMpp(5.0), jnp.array([0.4, -0.2])
    high, low = (process.perturb(key, x0, sigma) for sigma in (0.9, 0.6))
    np.testing.assert_allclose((high - x0) / 0.9, (low - x0) / 0.6, rtol=1e-12)


def _least_squares():
    rng = np.random.default_rng(5)
    matrix = jnp.asarray(rng.normal(size=(3, 4)))
    return GaussianLikelihood.create(Matrix(matrix), jnp.asarray(rng.normal(size=3)), 1.0), jnp.asarray(
        rng.normal(size=4)
    )


def test_equation_23_24_gradient_step(x64):
    """Eq. 23 and 24 with a 1/2 on the data term: the gradient is `A^T (A x - y) + lambda grad R`.

    With R = -log p the descent direction is + score: the printed sign lowers p(x).
    """
    likelihood, x = _least_squares()
    prior = GaussianPrior(jnp.zeros(4), 0.5 * jnp.eye(4))
    objective = lambda v: 0.5 * jnp.sum((likelihood.operator(v) - likelihood.y) ** 2) - prior.log_prob(v)
    gradient = -likelihood.grad(x) - jax.grad(prior.log_prob)(x)
    np.testing.assert_allclose(gradient, jax.grad(objective)(x), rtol=1e-10)
    assert float(objective(x - 1e-3 * gradient)) < float(objective(x)) < float(objective(x + 1e-3 * gradient))


def test_equation_25_posterior_score(x64):
    """Eq. 25: `grad log p(x_t | y) = grad log p(x_t) + grad log p(y | x_t)`, handed to the reverse SDE."""
    likelihood, x = _least_squares()
    rng = np.random.default_rng(6)
    root = rng.normal(size=(4, 4))
    prior = GaussianPrior(jnp.asarray(rng.normal(size=4)), jnp.asarray(root @ root.T / 4 + 0.1 * np.eye(4)))
    process, t = VP(), 0.4
    estimator = exact(prior, likelihood)(lift(process, prior.denoiser(process)))
    guided = estimator.apply(jax.random.key(0), x, t, estimator.init(x))[0]
    score = process.law.score(guided.noise, process.sigma(t))
    posterior = prior.posterior(likelihood.operator, likelihood.y, 1.0)
    np.testing.assert_allclose(score, jax.grad(lambda v: posterior.log_marginal(process, v, t))(x), rtol=1e-8)


def _transform():
    rng = np.random.default_rng(7)
    return jnp.asarray(np.linalg.qr(rng.normal(size=(4, 4)))[0]), jnp.array([1.0, 0.0, 1.0, 0.0])


@pytest.mark.parametrize("weight", [0.3, 0.84, 1.0])
def test_equation_26_is_minimised_by_equation_27(x64, weight):
    """Eq. 26 and 27 with `||a||_T^2 = ||T a||_2^2`: mask coordinates of T x are averaged, others kept."""
    transform, mask = _transform()
    x, y_hat = jnp.array([0.4, -1.0, 0.7, 0.2]), mask * jnp.array([1.1, 0.0, -0.3, 0.0])

    def objective(z):
        # The inner minimum over u with the measured coordinates of T u fixed to y_hat.
        outside = jnp.sum((mask * (transform @ z - y_hat)) ** 2)
        return (1 - weight) * jnp.sum((transform @ (z - x)) ** 2) + weight * outside

    closed = transform.T @ (
        weight * y_hat + (1 - weight) * mask * (transform @ x) + (1 - mask) * (transform @ x)
    )
    np.testing.assert_allclose(jax.grad(objective)(closed), 0, atol=1e-13)


def test_equation_27_as_a_move(x64):
    """Eq. 27 on the next state is a move of x0 and noise, with `y_s = alpha y + beta A z` (Eq. 26)."""
    transform, mask = _transform()
    y, z, weight = jnp.array([1.1, 0.0, -0.3, 0.0]), jnp.array([0.3, -0.2, 0.9, 0.5]), 0.84
    project = lambda v, data: transform.T @ (weight * mask * data + (1 - weight * mask) * (transform @ v))

    def target(key, process, estimate, t):
        return estimate._replace(x0=project(estimate.x0, y), noise=project(estimate.noise, transform @ z))

    process, x_t, t, s = VP(), jnp.array([0.4, -1.0, 0.7, 0.2]), 0.6, 0.3
    denoise = lambda x, t, c: jnp.tanh(x)
    plain = sample_one(jax.random.key(0), ddim(), denoise, process, [t, s], x_init=x_t)
    moved = sample_one(jax.random.key(0), ddim(), denoise, process, [t, s], x_init=x_t, guidance=move(target))
    noisy = process.alpha(s) * y + process.sigma(s) * (transform @ z)
    np.testing.assert_allclose(moved, project(plain, noisy), rtol=1e-13, atol=1e-15)


def test_equation_28_sign_of_the_transmission_gradient(x64):
    """Eq. 28: `-A^T y + A^T D{I0} exp(-A x)` is the gradient of the log LIKELIHOOD; y are raw counts.

    The formula alone: `PoissonTransmission` is tested against it with the operators.
    """
    rng = np.random.default_rng(8)
    matrix, x, blank = jnp.asarray(rng.uniform(0, 1, (5, 3))), jnp.array([0.2, 0.5, 0.1]), 40.0
    y = jnp.asarray(rng.poisson(blank * np.exp(-np.asarray(matrix @ x))).astype(float))
    log_p = lambda v: jnp.sum(y * jnp.log(blank * jnp.exp(-matrix @ v)) - blank * jnp.exp(-matrix @ v))
    printed = -matrix.T @ y + matrix.T @ (blank * jnp.exp(-matrix @ x))
    np.testing.assert_allclose(printed, jax.grad(log_p)(x), rtol=1e-11)


def _krylov(likelihood, x, steps):
    """`steps` CG iterations on `A^T A v = A^T y` from x, in numpy: the minimiser over the Krylov space."""
    a, y, x = np.asarray(likelihood.operator.values), np.asarray(likelihood.y), np.asarray(x)
    residual = a.T @ (y - a @ x)
    basis = [residual]
    for _ in range(steps - 1):
        basis.append(a.T @ (a @ basis[-1]))
    basis = np.stack(basis, 1)
    # CG minimises the quadratic <v, A^T A v> / 2 - <v, A^T y> over x + the Krylov space.
    return x + basis @ np.linalg.lstsq(a @ basis, y - a @ x, rcond=None)[0]


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_equation_29_cg_from_the_clean_image(x64, steps):
    """Eq. 29: CG(A*A, A*y, x0_hat), the third argument being the start; noiseless data."""
    likelihood, x = _least_squares()
    noiseless = likelihood.replace(noise_std=0.0)
    process = VP()
    estimator = dds(noiseless, steps=steps)(lift(process, lambda x_t, t, c: x))
    found = estimator.apply(jax.random.key(0), 1.3 * x, 0.5, estimator.init(x))[0]
    np.testing.assert_allclose(found.x0, _krylov(likelihood, x, steps), rtol=1e-9)


@pytest.mark.parametrize("eta", [0.0, 0.85])
def test_equation_30_dds_step(x64, eta):
    """Eq. 30 with `w~ = sqrt(1 - ab - eta^2 bt^2) eps_hat + eta bt eps`, eps_hat of the UNcorrected image.

    `bt = sqrt((1 - ab') / (1 - ab)) sqrt(1 - ab / ab')`; the reference's mixing (`of="marginal"`) has
    `eta sqrt(1 - ab')` and `sqrt(1 - eta^2) sqrt(1 - ab')` instead; both keep the variance.
    """
    likelihood, x = _least_squares()
    process, i, j = DDPM(), 600.0, 500.0
    x_t = 1.3 * x
    denoise = lambda x_t, t, c: x
    corrected = likelihood.prox(x, float(process.sigma(i)) ** 2, 2)
    ab, ab_next = float(process.alpha(i)) ** 2, float(process.alpha(j)) ** 2
    noise = (x_t - math.sqrt(ab) * x) / math.sqrt(1 - ab)
    bt = math.sqrt((1 - ab_next) / (1 - ab)) * math.sqrt(1 - ab / ab_next)
    shares = {
        "posterior": (math.sqrt(1 - ab_next - eta**2 * bt**2), eta * bt),
        "marginal": (math.sqrt((1 - ab_next) * (1 - eta**2)), eta * math.sqrt(1 - ab_next)),
    }
    for of, (kept, fresh) in shares.items():
        moments = Moments(ddim(eta, of=of), denoise, process, dds(likelihood, steps=2))
        mean, cov = moments([i, j], x_t, jnp.zeros((4, 4)))
        np.testing.assert_allclose(mean, math.sqrt(ab_next) * corrected + kept * noise, rtol=1e-9)
        np.testing.assert_allclose(cov, fresh**2 * np.eye(4), atol=1e-15, rtol=1e-9)
        assert kept**2 + fresh**2 == pytest.approx(1 - ab_next)


def test_equation_31_admm_fixed_point(x64):
    """Eq. 31, with D_z^T (z - w): ADMM's fixed point minimises |y - A x|^2 / 2 + lambda |D_z x|_1.

    Carried by `correct` from step to step: one iteration an evaluation, z and w warm.
    """
    rng = np.random.default_rng(9)
    matrix, y = jnp.asarray(rng.normal(size=(5, 4))), jnp.asarray(rng.normal(size=5))
    difference = FiniteDifference((4, 1), axes=(0,))
    rho, weight = 1.0, 0.3
    dense = jax.vmap(lambda e: difference(e[:, None]).ravel(), out_axes=1)(jnp.eye(4))

    def admm(key, process, x0, t, state):
        z, w = state
        x = jnp.linalg.solve(
            matrix.T @ matrix + rho * dense.T @ dense, matrix.T @ y + rho * dense.T @ (z - w)
        )
        moved = dense @ x + w
        z = jnp.sign(moved) * jnp.maximum(jnp.abs(moved) - weight / rho, 0.0)
        return x, (z, moved - z)

    zeros = jnp.zeros(dense.shape[0])
    estimator = correct(admm, lambda x: (zeros, zeros), keep_noise=True)(lift(EDM(), lambda x, t, c: x))
    state, x = estimator.init(jnp.zeros(4)), jnp.zeros(4)
    apply = jax.jit(lambda x, state: estimator.apply(jax.random.key(0), x, 0.5, state))
    for _ in range(400):
        estimate, state = apply(x, state)
        x = estimate.x0
    objective = lambda v: float(0.5 * np.sum((y - matrix @ v) ** 2) + weight * np.sum(np.abs(dense @ v)))
    best = objective(np.asarray(x))
    for direction in rng.normal(size=(40, 4)):
        assert objective(np.asarray(x) + 1e-3 * direction) > best - 1e-12
    # Optimality: A^T (A x - y) + lambda D^T u = 0 with u = rho w / lambda in the subdifferential.
    _, w = state[1]
    np.testing.assert_allclose(matrix.T @ (matrix @ x - y) + rho * dense.T @ w, 0, atol=1e-9)
    assert float(jnp.max(jnp.abs(rho * w))) <= weight + 1e-9


def test_alignment_of_section_2_5_1(x64):
    """r = sigma sqrt(D): PFGM++ at large D is the Gaussian kernel, and its draws are those of Student-t."""
    law = StudentT(1e8)
    noise = jnp.array([0.4, -1.2, 0.3])
    assert float(law.log_prob(noise)) == pytest.approx(float(EDM().law.log_prob(noise)), abs=1e-6)


def test_ancestral_variances_bracket_the_data(x64):
    """Eq. 2's variance beta is exact for unit data, the posterior's for a point mass (foundations 2.1)."""
    process = DDPM()
    unit = Moments(ancestral("large"), linear_denoiser(process, 1.0), process)
    assert variance(unit, [600.0, 599.0], 1.0) == pytest.approx(1.0, abs=1e-12)
    point = Moments(ancestral("small"), linear_denoiser(process, 1e-9), process)
    start = float(process.sigma(600.0)) ** 2
    assert variance(point, [600.0, 599.0], start) == pytest.approx(
        float(process.sigma(599.0)) ** 2, rel=1e-10
    )

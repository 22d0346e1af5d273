"""Gaussian, diagonal and mixture priors against closed forms written another way."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats
from tables import rest_slow

from pgm_jax.operators import Matrix
from pgm_jax.priors import DiagonalGaussianPrior, GaussianPrior, MixturePrior
from pgm_jax.processes import EDM, VP, FlowMatching, PFGMpp, StudentT

SHAPE = (2, 3, 1)
PROCESSES = [EDM(), VP(), FlowMatching(), PFGMpp(8), FlowMatching(StudentT(4.0)), VP(law=StudentT(1.0))]


def covariance(rng, n):
    root = rng.standard_normal((n, n))
    return root @ root.T / n + 0.1 * np.eye(n)


def gaussian(rng, shape=SHAPE):
    return GaussianPrior(
        jnp.asarray(rng.standard_normal(shape)), jnp.asarray(covariance(rng, int(np.prod(shape))))
    )


def mixture(rng, count=3):
    means = jnp.asarray(rng.standard_normal((count, *SHAPE)))
    return MixturePrior(
        jnp.asarray([0.2, 0.5, 0.3]), means, jnp.asarray(np.stack([covariance(rng, 6) for _ in range(count)]))
    )


@pytest.mark.parametrize("process", PROCESSES[:3], ids=["edm", "vp", "flow"])
@pytest.mark.parametrize("t", rest_slow([0.4, 0.02, 0.97]))
def test_normal_denoiser_is_the_wiener_filter_and_the_marginal_is_normal(x64, process, t):
    rng = np.random.default_rng(0)
    prior, x = gaussian(rng), rng.standard_normal(SHAPE)
    a, s = float(process.alpha(t)), float(process.sigma(t))
    total = a**2 * np.asarray(prior.cov) + s**2 * np.eye(6)
    m = np.asarray(prior.mean).ravel()
    expected = m + a * np.asarray(prior.cov) @ np.linalg.solve(total, x.ravel() - a * m)
    got = prior.denoiser(process)(jnp.asarray(x), t)
    np.testing.assert_allclose(np.ravel(got), expected, rtol=0, atol=1e-11)
    expected = stats.multivariate_normal(a * m, total).logpdf(x.ravel())
    np.testing.assert_allclose(prior.log_marginal(process, jnp.asarray(x), t), expected, rtol=1e-12)
    np.testing.assert_allclose(prior.noise_variance(process, jnp.asarray(x), t), s**2, rtol=1e-14)


@pytest.mark.parametrize("process", PROCESSES[:3], ids=["edm", "vp", "flow"])
@pytest.mark.parametrize("make", [gaussian, mixture])
def test_tweedie(x64, process, make):
    rng = np.random.default_rng(1)
    prior, x, t = make(rng), jnp.asarray(rng.standard_normal(SHAPE)), 0.3
    score = jax.grad(lambda u: prior.log_marginal(process, u, t))(x)
    expected = (x + process.sigma(t) ** 2 * score) / process.alpha(t)
    np.testing.assert_allclose(prior.denoiser(process)(x, t), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("process", PROCESSES, ids=["edm", "vp", "flow", "pfgm8", "flow4", "vp1"])
@pytest.mark.parametrize("make", rest_slow([gaussian, mixture]))
def test_both_ends_of_time(x64, process, make):
    rng = np.random.default_rng(2)
    prior, x = make(rng), jnp.asarray(rng.standard_normal(SHAPE))
    denoise = prior.denoiser(process)
    np.testing.assert_array_equal(denoise(x, 0.0), x)
    if float(process.alpha(1.0)) == 0:
        mean = (
            prior.mean
            if isinstance(prior, GaussianPrior)
            else jnp.tensordot(prior.weights, prior.means, axes=1)
        )
        np.testing.assert_allclose(denoise(x, 1.0), mean, atol=1e-12)
    gradient = jax.grad(lambda u, t: jnp.sum(denoise(u, t) ** 2), argnums=(0, 1))
    for t in (0.0, 0.5, 1.0):
        assert all(bool(jnp.all(jnp.isfinite(g))) for g in gradient(x, jnp.asarray(t))[:1])
    assert np.all(np.isfinite(gradient(x, jnp.asarray(0.5))[1]))


def test_log_prob_is_the_density_and_the_marginal_at_time_zero(x64):
    rng = np.random.default_rng(3)
    prior, x = gaussian(rng), jnp.asarray(rng.standard_normal(SHAPE))
    expected = stats.multivariate_normal(np.ravel(prior.mean), prior.cov).logpdf(np.ravel(x))
    np.testing.assert_allclose(prior.log_prob(x), expected, rtol=1e-12)
    np.testing.assert_allclose(prior.log_marginal(EDM(), x, 0.0), expected, rtol=1e-12)
    np.testing.assert_allclose(prior.log_marginal(PFGMpp(8), x, 0.0), expected, rtol=1e-10)


def student_average(df, sigma, of_variance):
    """`int p(v) of_variance(sigma^2 v) dv` by scipy, over the precision w ~ Gamma(D / 2, D / 2)."""
    law = stats.gamma(df / 2, scale=2 / df)
    f = lambda u: law.pdf(np.exp(u)) * np.exp(u) * of_variance(sigma**2 * np.exp(-u))
    return integrate.quad(f, -60, 12, epsabs=0, epsrel=1e-11, limit=800, points=[-3, -1, 0, 1])[0]


@pytest.mark.parametrize(
    "df,sigma", [(1.0, 0.7), pytest.param(3.0, 0.2, marks=pytest.mark.slow), (64.0, 2.0)]
)
def test_student_t_marginal_denoiser_and_gain_by_scipy_quadrature(x64, df, sigma):
    rng = np.random.default_rng(4)
    prior, x = gaussian(rng, (2, 1, 1)), rng.standard_normal((2, 1, 1))
    m, cov = np.ravel(prior.mean), np.asarray(prior.cov)
    density = lambda v: stats.multivariate_normal(m, cov + v * np.eye(2)).pdf(x.ravel())
    total = student_average(df, sigma, density)
    wiener = lambda v, i: (m + cov @ np.linalg.solve(cov + v * np.eye(2), x.ravel() - m))[i]
    mean = [student_average(df, sigma, lambda v, i=i: density(v) * wiener(v, i)) / total for i in (0, 1)]
    gain = student_average(df, sigma, lambda v: density(v) * v) / total
    process, state = PFGMpp(df), jnp.asarray(x)
    np.testing.assert_allclose(prior.log_marginal(process, state, sigma), np.log(total), rtol=1e-9)
    np.testing.assert_allclose(np.ravel(prior.denoiser(process)(state, sigma)), mean, rtol=1e-9)
    if df > 1:  # at N + D - 2 = 1 the tail of v is too heavy for scipy's rule
        np.testing.assert_allclose(prior.noise_variance(process, state, sigma), gain, rtol=1e-8)
        potential = prior.log_potential(process, state, sigma) - prior.log_marginal(process, state, sigma)
        np.testing.assert_allclose(np.exp(potential) * sigma**2, gain, rtol=1e-8)


def test_student_t_marginal_integrates_to_one(x64):
    prior = GaussianPrior(jnp.asarray([[[0.3]]]), jnp.asarray([[0.5]]))
    density = jax.jit(lambda x: jnp.exp(prior.log_marginal(PFGMpp(3), x.reshape(1, 1, 1), 0.8)))
    x = np.sinh(np.linspace(-12, 12, 2001))
    total = np.trapezoid(np.asarray(jax.vmap(density)(jnp.asarray(x))), x)
    np.testing.assert_allclose(total, 1.0, atol=1e-4)


def test_mixture_under_student_t_o7(x64):
    means = jnp.asarray([[1.0, 0.0], [-1.0, 0.5]]).reshape(2, 2, 1, 1)
    prior = MixturePrior(jnp.asarray([0.4, 0.6]), means, 0.09 * jnp.stack([jnp.eye(2)] * 2))
    x = jnp.asarray([0.7, -0.4]).reshape(2, 1, 1)
    got = np.ravel(prior.denoiser(PFGMpp(3.0))(x, 0.8))
    np.testing.assert_allclose(got, [0.683474, 0.008888], atol=6e-7)
    flat, state = np.asarray(means).reshape(2, 2), np.ravel(x)

    def joint(v, k):
        return [0.4, 0.6][k] * stats.multivariate_normal(flat[k], (0.09 + v) * np.eye(2)).pdf(state)

    total = sum(student_average(3.0, 0.8, lambda v, k=k: joint(v, k)) for k in (0, 1))
    pull = lambda v, k: flat[k][0] + 0.09 / (0.09 + v) * (state[0] - flat[k][0])
    mean = sum(student_average(3.0, 0.8, lambda v, k=k: joint(v, k) * pull(v, k)) for k in (0, 1)) / total
    np.testing.assert_allclose(got[0], mean, rtol=1e-9)
    shares = prior.responsibilities(PFGMpp(3.0), x, 0.8)
    np.testing.assert_allclose(shares[0], student_average(3.0, 0.8, lambda v: joint(v, 0)) / total, rtol=1e-9)


def test_cauchy_data_under_cauchy_noise_o8(x64):
    """Cauchy data as a mixture of Gaussians over a grid of variances: D(x) = (r0 x + r c) / (r0 + r)."""
    c, r0, r, x = 0.3, 0.7, 1.9, 2.2
    u = np.linspace(-4, 60, 1200)
    weights = np.exp(-0.5 * (u + np.exp(-u)))  # v = 1 / chi2_1 in ln v
    covs = jnp.asarray(r0**2 * np.exp(u)).reshape(-1, 1, 1)
    prior = MixturePrior(jnp.asarray(weights), jnp.full((u.size, 1, 1, 1), c), covs)
    got = prior.denoiser(PFGMpp(1))(jnp.full((1, 1, 1), x), r)
    np.testing.assert_allclose(np.ravel(got), 0.8115384615, atol=1e-9)


def test_mixture_is_the_gaussian_for_one_component_and_for_equal_ones(x64):
    rng = np.random.default_rng(5)
    one, x = gaussian(rng), jnp.asarray(rng.standard_normal(SHAPE))
    twice = MixturePrior(jnp.asarray([2.0, 6.0]), jnp.stack([one.mean] * 2), jnp.stack([one.cov] * 2))
    for process in PROCESSES:
        np.testing.assert_allclose(twice.denoiser(process)(x, 0.4), one.denoiser(process)(x, 0.4), atol=1e-12)
        np.testing.assert_allclose(
            twice.log_marginal(process, x, 0.4), one.log_marginal(process, x, 0.4), rtol=1e-12
        )
    np.testing.assert_allclose(twice.responsibilities(PFGMpp(8), x, 0.4), [0.25, 0.75], rtol=1e-12)


@pytest.mark.parametrize("is_complex", [False, True])
def test_posterior_equals_the_information_form(x64, is_complex):
    rng = np.random.default_rng(6)
    mean, size = rng.standard_normal(SHAPE), 6
    if is_complex:
        mean, size = mean + 1j * rng.standard_normal(SHAPE), 12
    prior = GaussianPrior(jnp.asarray(mean), jnp.asarray(covariance(rng, size)))
    a = rng.standard_normal((4, 6)) + 1j * rng.standard_normal((4, 6))
    y, std = rng.standard_normal(4) + 1j * rng.standard_normal(4), np.array([0.3, 0.5, 0.4, 0.2])
    post = prior.posterior(Matrix(jnp.asarray(a), SHAPE), jnp.asarray(y), jnp.asarray(std))
    real = np.block([[a.real, -a.imag], [a.imag, a.real]])[:, :size]
    data, precision = np.concatenate([y.real, y.imag]), np.diag(np.tile(std, 2) ** -2.0)
    m = np.concatenate([mean.real.ravel(), mean.imag.ravel()])[:size]
    inverse = np.linalg.inv(np.asarray(prior.cov))
    cov = np.linalg.inv(inverse + real.T @ precision @ real)
    expected = cov @ (inverse @ m + real.T @ precision @ data)
    got = np.asarray(post.mean)
    got = np.concatenate([got.real.ravel(), got.imag.ravel()])[:size]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(post.cov, cov, rtol=0, atol=1e-12)


def test_the_posterior_score_is_prior_score_plus_exact_guidance(x64):
    """grad log p(y | x_t) = J^T A^T (A C A^T + s^2)^-1 (y - A x0_hat), reconstruction.md 5.8."""
    rng = np.random.default_rng(7)
    prior, x, t = gaussian(rng), jnp.asarray(rng.standard_normal(SHAPE)), 0.6
    a, y = rng.standard_normal((3, 6)), rng.standard_normal(3)
    post = prior.posterior(Matrix(jnp.asarray(a), SHAPE), jnp.asarray(y), 0.2)
    c = np.linalg.inv(np.linalg.inv(prior.cov) + np.eye(6) / t**2)
    x0 = np.ravel(prior.denoiser(EDM())(x, t))
    guided = x0 + c @ a.T @ np.linalg.solve(a @ c @ a.T + 0.04 * np.eye(3), y - a @ x0)
    np.testing.assert_allclose(np.ravel(post.denoiser(EDM())(x, t)), guided, atol=1e-12)


def test_mixture_posterior_against_a_grid(x64):
    rng = np.random.default_rng(8)
    means = np.array([[0.5, -1.0], [-0.7, 0.8], [1.2, 1.0]])
    covs = np.stack([0.3 * covariance(rng, 2) for _ in range(3)])
    prior = MixturePrior(
        jnp.asarray([0.2, 0.5, 0.3]), jnp.asarray(means.reshape(3, 2, 1, 1)), jnp.asarray(covs)
    )
    a, y, std = np.array([[1.0, -0.4]]), np.array([0.3]), 0.4
    post = prior.posterior(Matrix(jnp.asarray(a), (2, 1, 1)), jnp.asarray(y), std)
    side = np.linspace(-6, 6, 241)
    grid = np.stack(np.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)
    density = sum(
        w * stats.multivariate_normal(m, s).pdf(grid)
        for w, m, s in zip([0.2, 0.5, 0.3], means, covs, strict=True)
    )
    density = density * stats.norm(0, std).pdf(y[0] - grid @ a[0])
    density /= density.sum() * (side[1] - side[0]) ** 2
    log_prob = jax.vmap(lambda p: post.log_prob(p.reshape(2, 1, 1)))(jnp.asarray(grid))
    np.testing.assert_allclose(np.exp(log_prob), density, rtol=0, atol=1e-7 * density.max())


def test_voxelwise_time_by_brute_force_and_clean_voxels(x64):
    rng = np.random.default_rng(9)
    prior, x = gaussian(rng), jnp.asarray(rng.standard_normal(SHAPE))
    process = FlowMatching()
    t = jnp.asarray([[0.0, 0.3, 0.9], [0.5, 0.0, 0.7]])[..., None]
    a, s = np.ravel(1 - t), np.ravel(t)
    cov, m = np.asarray(prior.cov), np.ravel(prior.mean)
    total = a[:, None] * cov * a[None] + np.diag(s**2)
    expected = m + (cov * a[None]) @ np.linalg.solve(total, np.ravel(x) - a * m)
    for one in (prior, MixturePrior(jnp.ones(1), prior.mean[None], prior.cov[None])):
        got = one.denoiser(process)(x, t)
        np.testing.assert_allclose(np.ravel(got), expected, atol=1e-11)
        np.testing.assert_array_equal(np.asarray(got)[np.asarray(t) == 0], np.asarray(x)[np.asarray(t) == 0])
    same = jnp.full(SHAPE, 0.3)
    for law in (process.law, StudentT(5.0)):
        flow = FlowMatching(law)
        np.testing.assert_allclose(prior.denoiser(flow)(x, same), prior.denoiser(flow)(x, 0.3), atol=1e-9)


@pytest.mark.parametrize("is_complex", rest_slow([True, False]))
@pytest.mark.parametrize("law", [None, StudentT(6.0)])
def test_diagonal_prior_is_the_dense_one(x64, is_complex, law):
    rng = np.random.default_rng(10)
    mean, x = rng.standard_normal((2, *SHAPE))
    variance = rng.uniform(0.2, 2, SHAPE)
    if is_complex:
        mean, x = mean + 1j * mean[::-1], x - 0.5j * x[::-1]
    prior = DiagonalGaussianPrior(jnp.asarray(mean), jnp.asarray(variance))
    dense = GaussianPrior(
        jnp.asarray(mean), jnp.diag(jnp.tile(jnp.ravel(jnp.asarray(variance)), 2 if is_complex else 1))
    )
    process, x = FlowMatching(law), jnp.asarray(x)
    for t in (0.4, jnp.asarray(rng.uniform(0.1, 0.9, SHAPE))):
        np.testing.assert_allclose(prior.denoiser(process)(x, t), dense.denoiser(process)(x, t), atol=1e-10)
        np.testing.assert_allclose(
            prior.log_marginal(process, x, t), dense.log_marginal(process, x, t), rtol=1e-10
        )
    np.testing.assert_allclose(prior.log_prob(x), dense.log_prob(x), rtol=1e-12)


def test_radial_law_of_isotropic_data_o11(x64):
    """PFGM++ Heun on Gaussian data N(0, .25 I): the final radius of foundations O11."""
    for size, df, expected in ((16, 4.0, 2.11896309), (2, 2.0, 0.70408208)):
        prior = GaussianPrior(jnp.zeros((size, 1, 1)), 0.25 * jnp.eye(size))
        denoise = prior.denoiser(PFGMpp(df))
        grid = jnp.asarray(np.linspace(10.0 ** (1 / 7), 0.01 ** (1 / 7), 401) ** 7)
        slope = lambda x, t, denoise=denoise: (x - denoise(x, t)) / t

        def step(x, ts, slope=slope):
            t, s = ts
            first = slope(x, t)
            return x + (s - t) * 0.5 * (first + slope(x + (s - t) * first, s)), None

        x = jnp.zeros((size, 1, 1)).at[0].set(10 * np.sqrt(size) * 1.3)
        x = jax.jit(lambda x, g, step=step: jax.lax.scan(step, x, (g[:-1], g[1:]))[0])(x, grid)
        np.testing.assert_allclose(jnp.linalg.norm(jnp.ravel(x)), expected, rtol=1e-4)


def test_samples_have_the_mean_and_covariance():
    cov = covariance(np.random.default_rng(11), 6).astype(np.float32)
    means = jnp.stack([jnp.ones(SHAPE), -jnp.ones(SHAPE)])
    mixed = MixturePrior(jnp.asarray([1.0, 3.0]), means, jnp.stack([jnp.asarray(cov)] * 2))
    for prior, mean, expected in (
        (GaussianPrior(jnp.ones(SHAPE), jnp.asarray(cov)), 1.0, cov),
        (mixed, -0.5, cov + 0.75),
    ):
        draws = np.asarray(jax.vmap(prior.sample)(jax.random.split(jax.random.key(0), 20000))).reshape(-1, 6)
        largest = expected.diagonal().max()
        np.testing.assert_allclose(draws.mean(0), np.full(6, mean), atol=5 * np.sqrt(largest / 20000))
        np.testing.assert_allclose(np.cov(draws.T), expected, atol=5 * np.sqrt(2 / 20000) * largest)


def test_priors_cross_jit_vmap_grad_and_float32():
    rng = np.random.default_rng(12)
    prior = gaussian(rng)
    x = jnp.asarray(rng.standard_normal((4, *SHAPE)), jnp.float32)
    for p in (prior, mixture(rng)):
        chex.clear_trace_counter()
        batch = lambda p, d, x: jax.vmap(lambda one: p.denoiser(PFGMpp(d))(one, 0.5))(x)
        run = jax.jit(chex.assert_max_traces(batch, n=1))
        got = run(p, jnp.asarray(8.0), x)
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got[1], p.denoiser(PFGMpp(8))(x[1], 0.5), atol=1e-5)
        assert not np.allclose(run(p, jnp.asarray(9.0), x), got, rtol=1e-6)
        assert jax.tree.structure(jax.tree.map(lambda a: a + 0, p)) == jax.tree.structure(p)
        jax.tree.unflatten(jax.tree.structure(p), [object()] * len(jax.tree.leaves(p)))
        gradient = jax.grad(lambda u, p=p: p.log_marginal(PFGMpp(8), u, 0.5))(x[0])
        assert np.all(np.isfinite(gradient))


def test_wrong_arguments_raise():
    prior = GaussianPrior(jnp.zeros(SHAPE), jnp.eye(6))
    with pytest.raises(ValueError, match="needs cov"):
        GaussianPrior(jnp.zeros(SHAPE), jnp.eye(5)).log_prob(jnp.zeros(SHAPE))
    with pytest.raises(ValueError, match="but the mean is"):
        prior.denoiser(EDM())(jnp.zeros((3, 2, 1)), 0.5)
    with pytest.raises(ValueError, match="real components"):
        prior.posterior(Matrix(jnp.ones((2, 6)), SHAPE), jnp.zeros(3), 0.1)

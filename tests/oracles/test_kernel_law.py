"""The Student-t kernel against its closed forms: radius, quantiles, limit of large D, density (O1 to O5)."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from oracles.closed_forms import log_sphere, radius_law

from pgm_jax.processes import EDM, Normal, PFGMpp, StudentT
from pgm_jax.processes.student_t import log_gamma_variate

DRAWS = {2: 4000, 784: 1000, 65536: 250}
P_VALUE = 1e-3


@functools.partial(jax.jit, static_argnums=(2, 3))
def _energies(key, df, size, count):
    """|n|^2 / size of float32 draws, one key a draw; the mean keeps a large draw inside float32."""
    one = lambda k: jnp.mean(StudentT(df).sample(k, (size,)) ** 2)
    return jax.lax.map(one, jax.random.split(key, count), batch_size=min(count, 2**20 // size + 1))


def _radius_rows():
    for size in DRAWS:
        for df in (0.5, 1.0, 64.0, 2048.0):
            small = size == 2 or (size == 65536 and df in (0.5, 64.0))
            yield (size, df) if small else pytest.param(size, df, marks=pytest.mark.slow)


@pytest.mark.parametrize("size, df", list(_radius_rows()))
def test_radius_is_beta_prime(key, size, df):
    energies = np.asarray(_energies(key, df, size, DRAWS[size]), np.float64)
    law = radius_law(size, df)
    assert scipy.stats.kstest(energies * size / df, law.cdf).pvalue > P_VALUE
    # A chi2 of the wrong scale moves the median by more than its error.
    assert law.cdf(np.median(energies) * size / df) == pytest.approx(0.5, abs=2.5 / math.sqrt(DRAWS[size]))


def test_coordinates_and_projections_are_student(key):
    draws = jax.jit(jax.vmap(lambda k: StudentT(3.5).sample(k, (50,))))(jax.random.split(key, 10000))
    draws = np.asarray(draws, np.float64)
    direction = np.linspace(-1, 1, 50)
    for values in (draws[:, 7], draws @ direction / np.linalg.norm(direction)):
        assert scipy.stats.kstest(values, scipy.stats.t(3.5).cdf).pvalue > P_VALUE


def test_the_norm_is_shared_and_the_direction_is_free(key):
    draws = jax.jit(jax.vmap(lambda k: StudentT(2.0).sample(k, (3,))))(jax.random.split(key, 10000))
    draws = np.asarray(draws, np.float64)
    cosine = draws[:, 0] / np.linalg.norm(draws, axis=1)
    assert scipy.stats.kstest(cosine, scipy.stats.uniform(-1, 2).cdf).pvalue > P_VALUE
    # Uncorrelated, but large together: the sign of dependence that independent t draws lack.
    assert scipy.stats.spearmanr(np.abs(draws[:, 0]), np.abs(draws[:, 1])).statistic > 0.2


def _radial_log_density(law, size, log_radius):
    """Log density of ln R of a unit draw, from the package's `log_prob` alone."""
    at = lambda u: law.log_prob(jnp.zeros(size).at[0].set(jnp.exp(u)))
    return np.asarray(jax.lax.map(at, jnp.asarray(log_radius))) + size * log_radius + log_sphere(size)


def _integrate(values, grid):
    return float(np.sum(0.5 * (values[1:] + values[:-1]) * np.diff(grid)))


QUANTILES = {
    (2, 2): (0.22941573, 0.57735027, 1.0, 1.73205081, 4.35889894),
    (1, 1): (0.07870171, 0.41421356, 1.0, 2.41421356, 12.70620474),
    (3, 1): (0.54425138, 1.21750318, 2.26443742, 4.95979694, 25.43859344),
    (4, 2): (0.53666298, 1.0, 1.55377397, 2.54245976, 6.20432016),
    (10, 4): (0.84781699, 1.25201011, 1.66776299, 2.28142529, 3.86146687),
}


@pytest.mark.parametrize("size, df", QUANTILES)
def test_closed_quantiles_of_the_radius(x64, size, df):
    """O2: the density integrates to 5, 25, 50, 75 and 95 % at the closed quantiles of R / r."""
    for level, quantile in zip((0.05, 0.25, 0.5, 0.75, 0.95), QUANTILES[size, df], strict=True):
        # Offset by 40 in ln R the integrand is below 1e-16.
        grid = np.linspace(np.log(quantile * math.sqrt(df)) - 40, np.log(quantile * math.sqrt(df)), 16001)
        mass = _integrate(np.exp(_radial_log_density(StudentT(float(df)), size, grid)), grid)
        assert mass == pytest.approx(level, abs=2e-6)
        if size == 2:
            assert 1 - (1 + quantile**2) ** (-df / 2) == pytest.approx(level, abs=1e-7)


@pytest.mark.parametrize(
    "size, df, low, median, high",
    [
        (3072, 1, 0.388, 1.48243, 79.78),
        (3072, 2, 0.46564, 1.20099, 9.975),
        (3072, 64, 0.8265, 1.00513, 1.25695),
        (3072, 128, 0.86956, 1.0025, 1.17157),
        (3072, 2048, 0.95434, 1.00005, 1.04827),
        (3072, 1e6, 0.97032, 0.99989, 1.02976),
        (65536, 64, 0.8285, 1.00523, 1.25488),
        (65536, 2048, 0.96431, 1.00016, 1.03822),
    ],
)
def test_quantiles_of_large_images(x64, size, df, low, median, high):
    """O3: 1, 50 and 99 % of R / (sigma sqrt N), from the density."""
    grid = np.linspace(math.log(0.05), math.log(max(3.0, 30 * high)), 3001)
    density = np.exp(_radial_log_density(StudentT(float(df)), size, grid + 0.5 * math.log(size)))
    cdf = np.concatenate([[0], np.cumsum(0.5 * (density[1:] + density[:-1]) * np.diff(grid))])
    for level, value in zip((0.01, 0.5, 0.99), (low, median, high), strict=True):
        found = math.exp(np.interp(level, cdf, grid))
        assert found == pytest.approx(value, rel=6e-4)


def _divergences(size, df):
    """KL(t_D || N(0, I)) and total variation, integrated over the radius."""
    below, above = 20 if size < 100 else 1, 12 if df < 100 else 2
    grid = np.linspace(0.5 * math.log(size) - below, 0.5 * math.log(size) + above, 16001)
    student = _radial_log_density(StudentT(float(df)), size, grid)
    normal = _radial_log_density(Normal(), size, grid)
    # log p / q - 1 + q / p has the same integral as log p / q and no cancellation.
    gap = student - normal
    kl = _integrate(np.exp(student) * gap - np.exp(student) + np.exp(normal), grid)
    return kl, 0.5 * _integrate(np.abs(np.exp(student) - np.exp(normal)), grid)


@pytest.mark.parametrize(
    "size, df, kl, tv",
    [
        (16, 8, 1.0483, None),
        (16, 128, 5.1405e-3, 0.02877),
        (16, 2048, 2.0919e-5, 0.001897),
        (3072, 128, 10.738, 0.6475),
        (3072, 2048, 0.2931, 0.2180),
        (3072, 32768, 2.0733e-3, 0.02168),
    ],
)
def test_distance_to_the_normal(x64, size, df, kl, tv):
    """O4: what decides is N / D, not D."""
    found_kl, found_tv = _divergences(size, df)
    assert found_kl == pytest.approx(kl, rel=2e-4)
    if tv is not None:
        assert found_tv == pytest.approx(tv, rel=5e-4)


def test_slopes_of_the_limit_of_large_d(x64):
    """O4: KL 4 D^2 -> N (N + 6), and the total variation falls as 1 / D."""
    for size in (1, 2, 16):
        (kl, tv), (_, half) = _divergences(size, 3e4), _divergences(size, 6e4)
        assert kl * 4 * 3e4**2 == pytest.approx(size * (size + 6), rel=2e-3)
        assert tv / half == pytest.approx(2, rel=1e-3)


@pytest.mark.parametrize("df", [0.5, 1.0, 3.0, 64.0, math.inf])
def test_density_integrates_to_one(x64, df):
    """O5 in one and two dimensions."""
    for size in (1, 2):
        grid = np.linspace(-90, 90, 90001) if df < 1 else np.linspace(-45, 45, 30001)
        assert _integrate(np.exp(_radial_log_density(StudentT(df), size, grid)), grid) == pytest.approx(
            1, abs=1e-7
        )


@pytest.mark.parametrize("df", [0.5, 3.0, 1000.0, math.inf])
def test_density_obeys_continuity(x64, df):
    """O5: `d_sigma p + div(p x / sigma) = 0`, the kernel is carried by straight lines from its centre."""
    process = PFGMpp(df)
    log_p = lambda x, sigma: process.log_prior(x, sigma)
    for x in (jnp.array([0.3]), jnp.array([0.7, -1.9, 0.2])):
        sigma = jnp.asarray(0.8)
        by_x, by_sigma = jax.grad(log_p, argnums=(0, 1))(x, sigma)
        assert float(by_sigma + jnp.vdot(by_x, x) / sigma + x.size / sigma) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("df", [5.0, math.inf])
def test_complex_draws_have_two_unit_components(key, df):
    """Noise is per real component: E|n|^2 = 2, one radius over both components."""
    law = StudentT(df)
    draws = jax.jit(jax.vmap(lambda k: law.sample(k, (6, 4), jnp.complex64)))(jax.random.split(key, 4000))
    assert draws.dtype == jnp.complex64
    energies = np.sum(np.abs(np.asarray(draws, np.complex128)) ** 2, axis=(1, 2))
    if math.isinf(df):
        assert scipy.stats.kstest(energies, scipy.stats.chi2(48).cdf).pvalue > P_VALUE
        assert energies.mean() / 24 == pytest.approx(2, abs=5 * math.sqrt(2 * 48 / 4000) / 24)
    else:
        assert scipy.stats.kstest(energies / df, radius_law(48, df).cdf).pvalue > P_VALUE
    expected = law.log_prob(jnp.stack([draws[0].real, draws[0].imag]))
    assert float(law.log_prob(draws[0])) == pytest.approx(float(expected), rel=1e-6)


@functools.partial(jax.jit, static_argnums=2)
def _log_gammas(key, a, count):
    return log_gamma_variate(key, a, (count,))


@pytest.mark.parametrize("a", [0.01, 0.05, 0.25, 0.5, 1.0, 3.2, 32.0, 1e4])
def test_log_gamma_variate(key, a):
    draws = np.asarray(_log_gammas(key, a, 4000), np.float64)
    assert np.isfinite(draws).all()
    assert scipy.stats.kstest(draws, scipy.stats.loggamma(a).cdf).pvalue > P_VALUE


def test_infinity_is_the_normal_law():
    assert isinstance(StudentT(math.inf), Normal) and PFGMpp(math.inf) == EDM()
    for df in (0, -1.0):
        with pytest.raises(ValueError, match="df > 0"):
            StudentT(df)


@jax.jit
def _large_draw(key, df):
    process = PFGMpp(df)
    x = process.prior(key, (512, 512, 1), jnp.float32(80.0))
    return x, *jax.value_and_grad(lambda x: process.log_prior(x, jnp.float32(80.0)))(x)


@pytest.mark.parametrize("df", [0.1, 0.5, 128.0])
def test_float32_is_finite_on_large_images(key, df):
    for i in range(3):
        draw, value, slope = _large_draw(jax.random.fold_in(key, i), df)
        assert np.isfinite(draw).all() and np.isfinite(value) and np.isfinite(slope).all()


def test_event_axes_draw_one_radius_a_slice(key):
    shape, df = (400, 16, 16, 1), 2.0
    sampled = jax.jit(
        lambda k: [law.sample(k, shape) for law in (StudentT(df, event_axes=(1, 2, 3)), StudentT(df))]
    )
    slices, whole = (np.asarray(draw, np.float64) for draw in sampled(key))
    energies = np.sum(slices**2, axis=(1, 2, 3))
    assert scipy.stats.kstest(energies / df, radius_law(256, df).cdf).pvalue > P_VALUE
    shared = np.sum(whole**2, axis=(1, 2, 3))
    assert np.std(np.log(shared)) < 0.12 < 0.5 < np.std(np.log(energies))
    law = StudentT(df, event_axes=(1, 2, 3))
    # Slices are independent events.
    by_slice = sum(float(StudentT(df).log_prob(jnp.asarray(s))) for s in slices[:3].astype(np.float32))
    assert float(law.log_prob(jnp.asarray(slices[:3], jnp.float32))) == pytest.approx(by_slice, rel=1e-5)


def test_large_d_tilts_as_the_normal_law(x64):
    """`gain -> sigma^2` and `tilt -> n - sigma g` at rate 1 / D."""
    noise, grad = jnp.array([0.3, -1.2, 0.5]), jnp.array([2.0, 0.1, -0.7])
    sigma, dsigma, residual_sq = 0.6, 1.7, 0.4
    gaps = []
    for df in (1e4, 1e8):
        law = StudentT(df)
        gain = law.gain(sigma, residual_sq, 3)
        tilted = law.tilt(noise, sigma, grad, dsigma, gain)
        gaps.append(float(jnp.max(jnp.abs(tilted - Normal().tilt(noise, sigma, grad, dsigma, sigma**2)))))
        assert gain == pytest.approx(sigma**2, rel=2 / df * 10)
    assert gaps[1] < 1e-7 and gaps[0] / gaps[1] == pytest.approx(1e4, rel=0.01)


def test_refusals_say_what_to_do(key):
    law, noise = StudentT(3.0), jnp.ones(4)
    with pytest.raises(ValueError, match=r"ddim\(\), heun\(\)"):
        law.refresh(noise, noise, 0.5)
    with pytest.raises(ValueError, match="D = inf"):
        law.score(noise, 1.0)
    with pytest.raises(ValueError, match="only descends"):
        law.widen(key, (4,), jnp.float32, 1.0, 2.0)
    np.testing.assert_array_equal(law.refresh(noise, 2 * noise, 1), 2 * noise)
    np.testing.assert_array_equal(law.refresh(noise, 2 * noise, 0), noise)


def test_cauchy_noise_widens_as_a_semigroup(key):
    """D = 1: adding Cauchy noise of scale r' - r is exact (foundations 2.7.8)."""
    law = StudentT(1)

    def one(k):
        first, second = jax.random.split(k)
        return 0.7 * law.sample(first, (5,)) + law.widen(second, (5,), jnp.float32, 0.7, 2.0)

    draws = np.asarray(jax.jit(jax.vmap(one))(jax.random.split(key, 8000)), np.float64)
    energies = np.sum((draws / 2.0) ** 2, axis=1)
    assert scipy.stats.kstest(energies, radius_law(5, 1).cdf).pvalue > P_VALUE

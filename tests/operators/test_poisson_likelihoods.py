"""Likelihoods of counts against scipy densities, finite differences, brute-force majorisers, Gamma posteriors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from pgm_jax import operators as op
from pgm_jax.core import Likelihood as LikelihoodProtocol
from pgm_jax.operators.counts import log_prob_of_counts, sample_counts
from pgm_jax.operators.ct.geometry import ImageGrid, Parallel
from pgm_jax.operators.ct.parallel import ParallelBeam
from pgm_jax.operators.emission.list_mode_likelihood import ListModeEmission
from pgm_jax.operators.photon_counting import PhotonCounting
from pgm_jax.operators.poisson import PoissonEmission
from pgm_jax.operators.transmission import PoissonTransmission

ROWS, VOXELS, MATERIALS, BINS, ENERGIES = 7, 6, 2, 3, 5


def _uniform(seed, *shape, low=0.0, high=1.0):
    return np.random.default_rng(seed).uniform(low, high, shape)


def _matrix(seed=0, channels=1):
    """A non-negative matrix that maps every channel alike."""
    values = np.kron(_uniform(seed, ROWS, VOXELS), np.eye(channels))
    return op.Matrix(jnp.asarray(values), (2, 3, channels), (ROWS, channels))


def _emission(seed=0, background=0.7):
    y = np.random.default_rng(seed + 1).poisson(4.0, (ROWS, 1))
    return PoissonEmission.create(_matrix(seed), y, background)


def _transmission(seed=0, background=3.0):
    y = np.random.default_rng(seed + 1).poisson(20.0, (ROWS, 1))
    return PoissonTransmission.create(
        _matrix(seed), y, _uniform(seed + 2, ROWS, 1, low=30, high=90), background
    )


def _photon_counting(seed=0):
    response = _uniform(seed + 2, BINS, ENERGIES, low=0, high=30)
    attenuation = _uniform(seed + 3, MATERIALS, ENERGIES, low=0.05, high=0.6)
    y = np.random.default_rng(seed + 1).poisson(15.0, (ROWS, BINS))
    blank = _uniform(seed + 4, ROWS, 1, low=0.8, high=1.2)
    return PhotonCounting.create(_matrix(seed, MATERIALS), y, response, attenuation, blank, 0.5)


CASES = {
    "emission": _emission,
    "emission without background": lambda: _emission(background=0.0),
    "transmission": _transmission,
    "transmission without background": lambda: _transmission(background=0.0),
    "photon counting": _photon_counting,
}


def _image(likelihood, seed=9, high=2.0):
    return jnp.asarray(_uniform(seed, *likelihood.operator.domain.shape, low=0.1, high=high))


def _mean(likelihood, x):
    """The expected counts, written out with numpy."""
    lengths = np.asarray(likelihood.operator.matrix()) @ np.ravel(x)
    if isinstance(likelihood, PoissonEmission):
        return lengths[:, None] + likelihood.background
    if isinstance(likelihood, PoissonTransmission):
        return likelihood.blank * np.exp(-lengths[:, None]) + likelihood.background
    exponent = lengths.reshape(ROWS, MATERIALS) @ np.asarray(likelihood.attenuation)
    return likelihood.blank * (np.exp(-exponent) @ np.asarray(likelihood.response).T) + likelihood.background


@pytest.mark.parametrize("name", CASES)
def test_value_is_the_poisson_density(name, x64):
    likelihood = CASES[name]()
    assert isinstance(likelihood, LikelihoodProtocol)
    x = _image(likelihood)
    mean = _mean(likelihood, x)
    ours, value, residual = jax.jit(lambda l: (l.mean(x), l.log_prob(x), l.residual(x)))(likelihood)
    np.testing.assert_allclose(ours, mean, rtol=1e-12)
    np.testing.assert_allclose(value, np.sum(stats.poisson.logpmf(likelihood.y, mean)), rtol=1e-12)
    np.testing.assert_allclose(residual, likelihood.y - mean, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_gradient_by_finite_differences_and_by_autodiff(name, x64):
    likelihood = CASES[name]()
    x = _image(likelihood)
    step = 1e-5 * np.eye(x.size).reshape(x.size, *x.shape)
    ahead, behind = jax.jit(jax.vmap(jax.vmap(likelihood.log_prob)))(
        jnp.stack([x[None] + step, x[None] - step])
    )
    gradient, automatic = jax.jit(lambda l: (l.grad(x), op.Likelihood.grad(l, x)))(likelihood)
    np.testing.assert_allclose(gradient.ravel(), (ahead - behind) / 2e-5, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(gradient, automatic, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", CASES)
def test_curvature_majorises_minus_the_hessian(name, x64):
    likelihood = CASES[name]()
    x = jnp.stack([_image(likelihood, seed) for seed in range(6)])
    hessian = jax.jit(jax.vmap(jax.hessian(likelihood.log_prob)))(x).reshape(6, x[0].size, -1)
    gaps = jax.vmap(jnp.diag)(jax.jit(jax.vmap(likelihood.curvature))(x).reshape(6, -1)) + hessian
    assert np.linalg.eigvalsh(gaps).min() > -1e-9 * np.abs(gaps).max()


@pytest.mark.parametrize("background", [0.0, 3.0, 60.0])
@pytest.mark.parametrize("counts", [0.0, 20.0, 150.0])
def test_the_parabola_of_a_transmitted_ray_lies_above_everywhere(background, counts, x64):
    """One ray, every pair of lengths on a grid: with the optimal curvature the parabola touches and majorises."""
    one = op.Matrix(jnp.ones((1, 1)), (1,), (1,))
    likelihood = PoissonTransmission.create(one, jnp.asarray([counts]), 50.0, background)
    lengths = jnp.concatenate([jnp.linspace(0, 0.2, 9), jnp.linspace(0.3, 12, 40)])[:, None]
    methods = jax.jit(jax.vmap(lambda l, x: (l.log_prob(x), l.grad(x), l.curvature(x)), (None, 0)))
    value, slope, curvature = methods(likelihood, lengths)
    value, slope, curvature = -value, -slope[:, 0], curvature[:, 0]
    away = lengths[:, 0][None] - lengths
    parabola = value[:, None] + slope[:, None] * away + 0.5 * curvature[:, None] * away**2
    assert np.min(parabola - value[None]) > -1e-9 * np.max(np.abs(value))


def test_a_parabola_of_less_than_the_optimal_curvature_would_not_majorise(x64):
    """From l = 2 the optimal parabola meets the function at 0, so a flatter one lies below it there."""
    one = op.Matrix(jnp.ones((1, 1)), (1,), (1,))
    likelihood = PoissonTransmission.create(one, jnp.asarray([20.0]), 50.0, 3.0)
    x = jnp.asarray([2.0])
    value, grad, curvature = jax.jit(
        lambda x: (likelihood.log_prob(x), likelihood.grad(x), likelihood.curvature(x))
    )(x)
    np.testing.assert_allclose(value - 2 * grad[0] - 2 * curvature[0], likelihood.log_prob(0 * x), rtol=1e-12)


def test_one_bin_and_one_energy_are_the_transmission_likelihood(x64):
    transmission = _transmission()
    attenuation = 0.4
    spectral = PhotonCounting.create(
        transmission.operator, transmission.y, [[1.0]], [[attenuation]], transmission.blank, 3.0
    )
    x = _image(transmission)
    both = jax.jit(lambda l, x: (l.log_prob(x), l.grad(x)))
    (value, gradient), (expected, slope) = both(spectral, x), both(transmission, attenuation * x)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    np.testing.assert_allclose(gradient, attenuation * slope, rtol=1e-10)


def test_the_likelihood_of_a_list_is_that_of_its_bins(x64):
    """Every count listed as a row: the same differences of ln p, gradient and curvature, up to the constant."""
    binned = _emission()
    y = np.asarray(binned.y).ravel().astype(int)
    rows = np.asarray(binned.operator.values)[np.repeat(np.arange(ROWS), y)]
    events = op.Matrix(jnp.asarray(rows), (2, 3, 1))
    listed = ListModeEmission.create(events, binned.sensitivity, 0.7)
    every = jax.jit(lambda l, x: (l.log_prob(x), l.grad(x), l.curvature(x), l.expectation(x)))
    (a, grad, curvature, step), (b, *_) = (every(listed, _image(binned, seed)) for seed in (0, 1))
    (c, *expected), (d, *_) = (every(binned, _image(binned, seed)) for seed in (0, 1))
    np.testing.assert_allclose(a - b, c - d, rtol=1e-9)
    for ours, theirs in zip((grad, curvature, step), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match="list-mode data have no residual: bin them"):
        listed.residual(_image(binned))
    with pytest.raises(ValueError, match=r"sensitivity has shape \(6,\) but"):
        ListModeEmission.create(events, np.ones(6))


def test_materials_are_told_apart_by_their_curvature_steps(x64):
    """Two materials in a projector with subsets: noiseless counts, scaled ascent, both maps come back."""
    angles = 0.1 + np.arange(6) * np.pi / 6
    beam = ParallelBeam(ImageGrid((4, 4), 1.0), Parallel(angles, 7, 1.0), subsets=3, channels=2)
    energies = np.linspace(0, 1, 6)
    attenuation = np.stack([0.2 + 0.1 * energies, 0.6 * np.exp(-3 * energies)])
    response = 1e4 * np.stack([np.exp(-((energies - c) ** 2) / 0.05) for c in (0.1, 0.5, 0.9)])
    truth = jnp.asarray(_uniform(0, 4, 4, 2))
    y = jax.jit(PhotonCounting(beam, np.zeros((6, 7, 3)), response, attenuation, 1.0, 20.0).mean)(truth)
    likelihood = PhotonCounting.create(beam, y, response, attenuation, 1.0, 20.0)
    ascend = lambda _, x: jnp.maximum(x + likelihood.grad(x) / likelihood.curvature(x), 0.0)
    flat = jnp.full(truth.shape, 0.5)
    found, start = jax.jit(lambda x: (jax.lax.fori_loop(0, 6000, ascend, x), ascend(0, x)))(flat)
    before, after = jax.jit(jax.vmap(likelihood.log_prob))(jnp.stack([flat, start]))
    assert after > before
    # Scaled ascent is slow along amounts that trade for each other: 5e-3 after 6000 steps, 1e-3 after 20000.
    np.testing.assert_allclose(found, truth, atol=5e-3)
    part = lambda i: likelihood.subset(i).grad(start)
    gradients, whole = jax.jit(lambda i: (jax.lax.map(part, i), likelihood.grad(start)))(jnp.arange(3))
    np.testing.assert_allclose(gradients.sum(0), whole, rtol=1e-9, atol=1e-8)


def test_the_posterior_of_a_gamma_prior_and_a_diagonal_operator_is_a_gamma_law(x64):
    """x ~ Gamma(a, b), y ~ Poisson(d x): ln p(y | x) + ln p(x) is ln Gamma(a + y, b + d) up to a constant."""
    d, a, b = _uniform(0, 4, 1, low=0.5, high=3.0), 2.5, 1.5
    y = np.array([[0.0], [1.0], [7.0], [30.0]])
    likelihood = PoissonEmission.create(op.Diagonal(jnp.asarray(d)), y)
    constants, log_prob = [], jax.jit(likelihood.log_prob)
    for seed in range(3):
        x = _uniform(seed, 4, 1, low=0.2, high=9.0)
        prior = np.sum(stats.gamma.logpdf(x, a, scale=1 / b))
        posterior = np.sum(stats.gamma.logpdf(x, a + y, scale=1 / (b + d)))
        constants.append(float(log_prob(jnp.asarray(x))) + prior - posterior)
    # The constant is the evidence, a negative binomial law for each entry.
    evidence = np.sum(stats.nbinom.logpmf(y, a, b / (b + d)))
    np.testing.assert_allclose(constants, evidence, rtol=1e-12)


@pytest.mark.parametrize("name", ["emission", "photon counting"])
def test_draws_have_poisson_mean_and_variance(name, key):
    likelihood = CASES[name]()
    x = _image(likelihood, high=1.0).astype(jnp.float32)
    draws = np.asarray(jax.jit(jax.vmap(likelihood.sample, (0, None)))(jax.random.split(key, 4000), x))
    assert draws.shape[1:] == likelihood.y.shape and np.all(draws == np.round(draws)) and draws.min() >= 0
    mean = np.asarray(likelihood.mean(x))
    # Five standard errors of the mean, and of the variance of a Poisson law.
    assert np.all(np.abs(draws.mean(0) - mean) < 5 * np.sqrt(mean / 4000))
    assert np.all(np.abs(draws.var(0) - mean) < 5 * np.sqrt((mean + 2 * mean**2) / 4000))


@pytest.mark.parametrize("mean", [0.0, 3e4, 1e6, 1e8])
def test_draws_of_many_counts_keep_their_variance_in_single_precision(mean, key):
    draws = np.asarray(sample_counts(key, jnp.full(40000, mean, jnp.float32)), np.float64)
    assert abs(draws.mean() - mean) <= 5 * np.sqrt(mean / 40000)
    # 1 / 64 of the spread at 1e8 is the spacing of float32.
    assert abs(draws.var() - mean) <= 5 * mean * np.sqrt(2 / 40000) + 0.01 * mean


def test_the_log_density_in_single_precision_is_as_exact_as_the_counts():
    """Six decades of counts: y ln y - y alone would be off by about 1 each, a float32 of 1e7."""
    y = np.float32(np.concatenate([[0, 0, 1, 5, 15, 16, 17], np.logspace(2, 6, 9).round()]))
    mean = np.float32(np.concatenate([[0, 3, 1e-3, 5, 40, 1.6, 17], y[7:] + 2 * np.sqrt(y[7:])]))
    terms = stats.poisson.logpmf(y.astype(float), mean.astype(float))
    value = jax.vmap(jax.value_and_grad(lambda m, y: log_prob_of_counts(y, m)))
    found, gradient = value(jnp.asarray(mean), jnp.asarray(y))
    np.testing.assert_allclose(found, terms, rtol=3e-6, atol=2e-3)
    expected = np.where(y > 0, y / np.maximum(mean, 1e-30), 0) - 1
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)


def test_stirlings_remainder_at_every_size(x64):
    small, large = np.arange(40.0), np.logspace(2, 12, 11)
    ours = jax.vmap(lambda v: log_prob_of_counts(v, v))(jnp.concatenate([small, large]))
    direct = special.xlogy(small, small) - small - special.gammaln(small + 1)
    np.testing.assert_allclose(ours[:40], direct, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(ours[40:], -0.5 * np.log(2 * np.pi * large) - 1 / (12 * large), rtol=1e-8)


def test_the_ends_are_finite_in_single_precision():
    """Zero counts, rays that see nothing, voxels that nothing sees, six decades of activity and counts."""
    values = np.zeros((5, 4), np.float32)
    values[1:, :3] = _uniform(0, 4, 3)
    operator = op.Matrix(jnp.asarray(values), (2, 2, 1), (5,))
    x = jnp.asarray([[1e-3, 1.0], [1e3, 0.0]], jnp.float32)[:, :, None]
    emission = PoissonEmission.create(operator, np.array([0, 0, 1, 40, 1_000_000]))
    dark = PoissonTransmission.create(operator, np.array([0, 0, 1, 40, 1_000_000]), 1e6, 0.0)
    dead = PoissonTransmission.create(operator, np.zeros(5), 0.0, 0.0)

    @jax.jit
    def methods(likelihood, image):
        return {
            "grad": likelihood.grad(image),
            "autodiff": jax.grad(likelihood.log_prob)(image),
            "curvature": likelihood.curvature(image),
        }

    for likelihood, image in ((emission, x), (emission, 0 * x), (dark, x), (dark, 0 * x), (dead, x)):
        results = methods(likelihood, image)
        for name, result in results.items():
            assert np.isfinite(result).all(), name
        np.testing.assert_allclose(results["grad"], results["autodiff"], rtol=1e-4, atol=1e-4)
    assert np.isfinite(emission.log_prob(x)) and np.isfinite(dark.sample(jax.random.key(0), x)).all()
    # Photons that passed exp(-1000) = 0: the density is that of y (ln I0 - l), not ln 0.
    thick = jnp.full(x.shape, 1000.0)
    y, lengths = np.array([0, 0, 1, 40, 1e6]), values.astype(float) @ np.full(4, 1000.0)
    exact = np.sum(y * (np.log(1e6) - lengths) - 1e6 * np.exp(-lengths) - special.gammaln(y + 1))
    np.testing.assert_allclose(dark.log_prob(thick), exact, rtol=1e-5)
    # Counts where nothing is expected are impossible, not a number that a solver could mistake.
    assert emission.log_prob(0 * x) == -np.inf and emission.grad(x)[1, 1, 0] == 0


def test_prox_is_the_minimiser_and_never_rises(x64):
    likelihood = _emission()
    v, gamma = jnp.asarray(_uniform(5, 2, 3, 1, low=-1, high=3)), 0.3

    def objective(u):
        return jnp.sum((u - v) ** 2) / 2 - gamma * likelihood.log_prob(u)

    step = jax.jit(lambda u: likelihood.prox(v, gamma, 1, u))
    images = [likelihood.prox(v, gamma, 0)]
    for _ in range(20):
        images.append(step(images[-1]))
    np.testing.assert_allclose(
        images[-1], jax.jit(likelihood.prox, static_argnums=2)(v, gamma, 20), rtol=1e-9
    )
    values = jax.jit(jax.vmap(objective))(jnp.stack(images))
    assert np.all(np.diff(values) <= 1e-10)
    prox, grad = jax.jit(likelihood.prox, static_argnums=2), jax.jit(likelihood.grad)
    found = prox(v, gamma, 4000)
    slope = found - v - gamma * grad(found)
    assert found.min() >= 0 and np.all(slope >= -1e-7) and np.abs(slope * found).max() < 1e-7
    np.testing.assert_allclose(prox(v, 0.0, 3), np.maximum(v, 0), atol=1e-12)
    # A large gamma forgets v: the maximum of the likelihood, as ML-EM finds it.
    far = prox(v, 1e6, 6000)
    assert np.abs(grad(far) * far).max() < 1e-4
    per_voxel = prox(v, jnp.full(v.shape, gamma), 4000)
    np.testing.assert_allclose(per_voxel, found, rtol=1e-12)


def test_joint_and_latent_likelihoods_of_counts(x64, key):
    first, second = _emission(0), _transmission(1)
    joint = first + second
    x = _image(first)
    every = jax.jit(lambda l, x: (l.log_prob(x), l.grad(x), l.curvature(x)))
    for both, *parts in zip(every(joint, x), every(first, x), every(second, x), strict=True):
        np.testing.assert_allclose(both, sum(parts), rtol=1e-12)
    drawn = joint.sample(key, x)
    assert [d.shape for d in drawn] == [(ROWS, 1), (ROWS, 1)]
    latent = first.through(jnp.exp)
    np.testing.assert_allclose(latent.grad(jnp.log(x)), x * first.grad(x), rtol=1e-9)
    np.testing.assert_array_equal(latent.sample(key, jnp.log(x)), first.sample(key, x))


@pytest.mark.parametrize("complex_values", [False, True])
def test_gaussian_curvature_and_draws(complex_values, key, x64):
    rng = np.random.default_rng(0)
    values = rng.uniform(size=(ROWS, VOXELS)) + (
        1j * rng.normal(size=(ROWS, VOXELS)) if complex_values else 0
    )
    operator, weights = op.Matrix(jnp.asarray(values)), rng.uniform(0, 2, ROWS)
    likelihood = op.GaussianLikelihood(operator, jnp.zeros(ROWS, values.dtype), 0.5, weights)
    hessian = values.conj().T @ (weights[:, None] * values) / 0.25
    curvature = np.asarray(likelihood.curvature(jnp.zeros(VOXELS, values.dtype)))
    assert np.linalg.eigvalsh(np.diag(curvature) - hessian)[0] > -1e-3 * curvature.max()
    assert not np.iscomplexobj(curvature)
    x = jnp.ones(VOXELS, values.dtype)
    expected = op.measure(key, operator, x, 0.5, weights)
    np.testing.assert_array_equal(likelihood.sample(key, x), expected)


@pytest.mark.parametrize("name", ["emission", "transmission", "photon counting"])
def test_every_method_under_jit_and_vmap(name):
    likelihood = CASES[name]()
    x = jnp.stack([_image(likelihood, seed).astype(jnp.float32) for seed in range(2)])
    every = lambda l, x: (l.log_prob(x), l.grad(x), l.curvature(x), l.residual(x))
    batched = jax.jit(jax.vmap(every, (None, 0)))(likelihood, x)
    one = jax.jit(every)
    for i, image in enumerate(x):
        for found, expected in zip(batched, one(likelihood, image), strict=True):
            np.testing.assert_allclose(found[i], expected, rtol=2e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda a: PoissonEmission.create(a, -np.ones((ROWS, 1))), "y has 7 negative entries, the least -1"),
        (
            lambda a: PoissonEmission.create(a, np.full((ROWS, 1), np.nan)),
            "y has 7 entries that are not finite",
        ),
        (lambda a: PoissonEmission.create(a, np.ones((ROWS, 1)), -0.1), "background has 1 negative"),
        (lambda a: PoissonEmission.create(a, np.ones(ROWS)), r"y has shape \(7,\) but \(7, 1\) is needed"),
        (lambda a: PoissonEmission.create(a, np.ones((ROWS, 1)), np.ones(3)), "does not broadcast to y"),
        (
            lambda a: PoissonEmission.create(0.0 * a, np.ones((ROWS, 1))),
            "7 bins have counts but see no voxel",
        ),
        (
            lambda a: PoissonEmission.create(op.stack(a, a), np.ones(3)),
            "one array of counts: add one likelihood",
        ),
        (lambda a: PoissonTransmission.create(a, np.ones((ROWS, 1)), -5.0), "blank has 1 negative"),
        (
            lambda a: PoissonTransmission.create(a, np.ones((ROWS, 1)), np.inf),
            "blank has 1 entries that are not",
        ),
        (
            lambda a: PhotonCounting.create(a, np.ones((ROWS, 2)), np.ones((2, 4)), np.ones((1, 3))),
            "attenuation",
        ),
        (
            lambda a: PhotonCounting.create(a, np.ones((ROWS, 3)), np.ones((2, 4)), np.ones((1, 4))),
            "y has shape",
        ),
    ],
)
def test_wrong_counts_are_refused_in_one_line(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make(_matrix())
    assert "\n" not in str(error.value)


def test_likelihoods_without_a_method_say_so(key):
    class Bare(op.Likelihood):
        pass

    for call in (lambda b: b.curvature(0), lambda b: b.sample(key, 0), lambda b: b.subset(0)):
        with pytest.raises(ValueError, match="Bare"):
            call(Bare())


def test_create_works_on_traced_counts():
    operator = _matrix()
    value = jax.jit(lambda y: PoissonEmission.create(operator, y).log_prob(jnp.ones((2, 3, 1))))
    y = jnp.full((ROWS, 1), 2.0)
    np.testing.assert_allclose(value(y), PoissonEmission.create(operator, y).log_prob(jnp.ones((2, 3, 1))))

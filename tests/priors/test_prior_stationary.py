"""The stationary prior against the dense Gaussian prior, its posteriors, and the fit of its spectrum."""

import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tables import rest_slow

from pgm_jax.operators import Fourier, Hartley, Identity, Matrix, Sense, stack
from pgm_jax.priors import GaussianPrior, LinearPosterior, StationaryGaussianPrior
from pgm_jax.processes import EDM, VP, FlowMatching, PFGMpp, StudentT

SHAPES = [(5, 4, 1), (6, 6, 2), (6, 5, 1), (3, 2, 4, 1)]


def stationary(shape, is_complex, seed=0):
    rng = np.random.default_rng(seed)
    power = rng.uniform(0.1, 3, shape)
    mean = rng.standard_normal(shape)
    if is_complex:
        return StationaryGaussianPrior(
            jnp.asarray(mean + 0.5j), jnp.asarray(power), jnp.dtype(jnp.complex128)
        )
    axes = tuple(range(len(shape) - 1))
    mirrored = np.roll(np.flip(power, axes), 1, axes)
    return StationaryGaussianPrior(jnp.asarray(mean), jnp.asarray(power + mirrored))


def dense(prior):
    """The same prior with a matrix built from numpy's FFT, not from the prior's own filter."""
    shape = prior.power.shape
    axes, n = tuple(range(len(shape) - 1)), int(np.prod(shape))
    units = np.eye(n).reshape(n, *shape)
    transform = np.fft.fftn(units, axes=[a + 1 for a in axes], norm="ortho").reshape(n, n).T
    cov = transform.conj().T @ np.diag(np.ravel(prior.power)) @ transform
    if prior.is_complex:
        cov = np.block([[cov.real, -cov.imag], [cov.imag, cov.real]])
    return GaussianPrior(prior.mean_image, jnp.asarray(cov.real))


def image(prior, seed=1):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(prior.power.shape)
    return jnp.asarray(x + 1j * rng.standard_normal(x.shape) if prior.is_complex else x)


@pytest.mark.parametrize("shape", rest_slow(SHAPES))
@pytest.mark.parametrize("is_complex", [False, True])
def test_equals_the_dense_prior(x64, shape, is_complex):
    prior = stationary(shape, is_complex)
    reference, x = dense(prior), image(prior)
    for process, t in (
        (EDM(), 0.5),
        (VP(), 0.3),
        (FlowMatching(), 0.6),
        (PFGMpp(8), 0.7),
        (FlowMatching(StudentT(3.0)), 0.4),
    ):
        np.testing.assert_allclose(
            prior.denoiser(process)(x, t), reference.denoiser(process)(x, t), atol=1e-10
        )
        for name in ("log_marginal", "log_potential", "noise_variance"):
            got, expected = (getattr(p, name)(process, x, t) for p in (prior, reference))
            np.testing.assert_allclose(got, expected, rtol=1e-10, err_msg=name)
    np.testing.assert_allclose(prior.log_prob(x), reference.log_prob(x), rtol=1e-12)
    log_density, mean = prior.conditional(x, 0.8, 0.3)
    np.testing.assert_allclose(log_density, reference.conditional(x, 0.8, 0.3)[0], rtol=1e-12)
    np.testing.assert_allclose(mean, reference.conditional(x, 0.8, 0.3)[1], atol=1e-12)


def test_ends_tweedie_hartley_and_refusals(x64):
    prior = stationary((6, 5, 1), False)
    x, flow = image(prior), FlowMatching(StudentT(4.0))
    np.testing.assert_array_equal(prior.denoiser(flow)(x, 0.0), x)
    np.testing.assert_allclose(prior.denoiser(flow)(x, 1.0), prior.mean_image, atol=1e-12)
    score = jax.grad(lambda u: prior.log_marginal(EDM(), u, 0.4))(x)
    np.testing.assert_allclose(prior.denoiser(EDM())(x, 0.4), x + 0.16 * score, atol=1e-12)
    # the derivative through the quadrature, against differences
    f = lambda u: prior.log_marginal(PFGMpp(4), u, 0.4)
    d, h = image(prior, 2), 1e-5
    np.testing.assert_allclose(jax.jvp(f, (x,), (d,))[1], (f(x + h * d) - f(x - h * d)) / (2 * h), rtol=1e-7)
    hartley, coefficients = Hartley(prior.power.shape), prior.in_hartley()
    np.testing.assert_allclose(coefficients.log_prob(hartley(x)), prior.log_prob(x), rtol=1e-12)
    np.testing.assert_allclose(
        coefficients.denoiser(flow)(hartley(x), 0.3), hartley(prior.denoiser(flow)(x, 0.3)), atol=1e-12
    )
    with pytest.raises(ValueError, match="one time per image"):
        prior.denoiser(flow)(x, jnp.full((6, 5, 1), 0.5))
    with pytest.raises(ValueError, match="images, got"):
        prior.log_prob(x + 0j)


@pytest.mark.parametrize("is_complex", [False, True])
def test_samples_have_the_covariance(x64, is_complex):
    prior = stationary((3, 4, 1), is_complex)
    draws = jax.vmap(prior.sample)(jax.random.split(jax.random.key(0), 20000)) - prior.mean_image[None]
    flat = np.asarray(draws).reshape(20000, -1)
    flat = np.concatenate([flat.real, flat.imag], 1) if is_complex else flat
    cov = np.asarray(dense(prior).cov)
    np.testing.assert_allclose(flat.T @ flat / 20000, cov, atol=5 * np.sqrt(2 / 20000) * cov.max())


def problem(prior, seed=3):
    """An asymmetric Cartesian mask with noise on every line: complex data of a real or complex image."""
    rng = np.random.default_rng(seed)
    h, w, _ = prior.power.shape
    operator = Sense.single(h, w, jnp.asarray(rng.uniform(size=(h, w)) < 0.5, jnp.float64))
    clean = operator(image(prior))
    noise = rng.standard_normal(clean.shape) + 1j * rng.standard_normal(clean.shape)
    return operator, clean + 0.3 * noise * (np.asarray(operator.mask) > 0)[None]


@pytest.mark.parametrize("shape", rest_slow([(6, 5, 1), (4, 6, 1)]))
@pytest.mark.parametrize("is_complex", [False, True])
def test_cartesian_posterior_is_stationary_and_equals_the_dense_one(x64, shape, is_complex):
    prior = stationary(shape, is_complex)
    operator, y = problem(prior)
    post = prior.posterior(operator, y, 0.3)
    assert isinstance(post, StationaryGaussianPrior)
    expected = dense(prior).posterior(operator, y, 0.3)
    np.testing.assert_allclose(post.mean, expected.mean, atol=1e-12)
    np.testing.assert_allclose(dense(post).cov, expected.cov, atol=1e-12)
    x = image(prior, 5)
    for process in (EDM(), PFGMpp(8)):
        np.testing.assert_allclose(
            post.denoiser(process)(x, 0.6), expected.denoiser(process)(x, 0.6), atol=1e-10
        )
    inside = jax.jit(lambda p, o, y: p.posterior(o, y, 0.3, circulant=True).mean)(prior, operator, y)
    np.testing.assert_allclose(inside, post.mean, atol=1e-13)
    unstated = jax.jit(lambda p, o, y: p.posterior(o, y, 0.3, rtol=1e-13).mean())(prior, operator, y)
    np.testing.assert_allclose(unstated, post.mean, atol=1e-11)


def test_kspace_formula_of_a_complex_image(x64):
    """Mean P / (P + s^2) y on the mask, the prior mean elsewhere (reconstruction.md 5.8)."""
    prior = stationary((4, 6, 1), True).replace(mean=jnp.asarray(0.0))
    operator, y = problem(prior)
    post = prior.posterior(operator, y, 0.3)
    centred = np.fft.fftshift(prior.power, (0, 1))[..., 0]
    got = Fourier((4, 6, 1))(post.mean)[..., 0]
    mask = np.asarray(operator.mask)
    np.testing.assert_allclose(got, mask * centred / (centred + 0.09) * y[0], atol=1e-13)
    variance = np.where(mask > 0, centred * 0.09 / (centred + 0.09), centred)
    np.testing.assert_allclose(np.fft.fftshift(post.power, (0, 1))[..., 0], variance, atol=1e-13)


@pytest.mark.parametrize("is_complex", rest_slow([True, False]))
def test_general_posterior_mean_and_draws_by_exact_algebra(x64, is_complex):
    prior = stationary((6, 5, 1), is_complex)
    rng = np.random.default_rng(4)
    a = rng.standard_normal((7, 30)) + 1j * rng.standard_normal((7, 30))
    operator, y = (
        Matrix(jnp.asarray(a), (6, 5, 1)),
        jnp.asarray(rng.standard_normal(7) + 1j * rng.standard_normal(7)),
    )
    std = jnp.asarray(rng.uniform(0.2, 0.6, 7))
    post, exact = prior.posterior(operator, y, std, rtol=1e-13), dense(prior).posterior(operator, y, std)
    assert isinstance(post, LinearPosterior)
    np.testing.assert_allclose(post.mean(), exact.mean, atol=1e-10)
    # The draw is affine in the unit draws z, n: its covariance is the sum of the squares of its columns.
    root = lambda z: prior.mean_image + prior.filter(z, prior.half(jnp.sqrt(prior.power)))
    n, ones = 60 if is_complex else 30, np.eye(60 if is_complex else 30)
    z = jnp.asarray((ones[:, :30] + (1j * ones[:, 30:] if is_complex else 0)).reshape(n, 6, 5, 1))
    columns = jax.vmap(lambda one: post.perturbed(root(one), jnp.zeros_like(y)))(z) - post.mean()[None]
    e = jnp.asarray(np.concatenate([np.eye(7), 1j * np.eye(7)]))
    more = jax.vmap(lambda one: post.perturbed(prior.mean_image, one))(e) - post.mean()[None]
    flat = np.concatenate([np.asarray(columns).reshape(n, -1), np.asarray(more).reshape(14, -1)])
    flat = np.concatenate([flat.real, flat.imag], 1) if is_complex else flat
    np.testing.assert_allclose(flat.T @ flat, exact.cov, atol=1e-9)
    draws = jax.jit(lambda p, k: jax.vmap(p.sample)(k))(post, jax.random.split(jax.random.key(1), 4000))
    error = np.abs(np.asarray(draws).mean(0) - np.asarray(exact.mean)).max()
    assert error < 5 * np.sqrt(2 * np.asarray(exact.cov).max() / 4000)


def test_a_map_linear_over_the_reals_only_is_not_circulant(x64):
    prior = stationary((6, 5, 1), True)

    class RealPart:
        __call__ = staticmethod(lambda x: jnp.real(x))
        adjoint = staticmethod(lambda y: y + 0j)

    y = jnp.real(image(prior, 6))
    post = prior.posterior(RealPart(), y, 0.3, rtol=1e-13)
    np.testing.assert_allclose(post.mean(), dense(prior).posterior(RealPart(), y, 0.3).mean, atol=1e-10)


def test_posterior_of_several_measurements(x64):
    prior = stationary((6, 5, 1), False)
    a = Matrix(jnp.asarray(np.random.default_rng(5).standard_normal((4, 30))), (6, 5, 1))
    operator, x = stack(a, Identity((6, 5, 1))), image(prior)
    y = operator(x)
    post, exact = prior.posterior(operator, y, 0.2, rtol=1e-13), dense(prior).posterior(operator, y, 0.2)
    np.testing.assert_allclose(post.mean(), exact.mean, atol=1e-10)
    assert post.sample(jax.random.key(0)).shape == (6, 5, 1)


def known_spectrum(f):
    return 4.0 / (1 + (f / 0.08) ** 2)  # intensity^2 mm^2


def test_fit_recovers_a_known_spectrum_and_carries_it_to_other_sizes(x64):
    def truth(shape, spacing):
        f = np.hypot(
            *np.meshgrid(*(np.fft.fftfreq(n, s) for n, s in zip(shape, spacing, strict=True)), indexing="ij")
        )
        return known_spectrum(f)[..., None] / np.prod(spacing)

    groups, spacings = [], []
    for shape, spacing, seed in (((32, 48), (1.5, 1.0), 0), ((40, 40), (1.0, 1.5), 1)):
        prior = StationaryGaussianPrior(jnp.asarray(7.0), jnp.asarray(truth(shape, spacing)))
        draws = jax.vmap(prior.sample)(jax.random.split(jax.random.key(seed), 60))
        groups += [np.asarray(d) for d in draws]
        spacings += [spacing] * 60
    table = StationaryGaussianPrior.fit(groups, spacings, unit="HU")
    np.testing.assert_allclose(table.density[:, 0], known_spectrum(table.frequency), rtol=0.12)
    assert table.unit == "HU" and table.spacing == ((1.0, 1.5), (1.0, 1.5))
    np.testing.assert_allclose(table.mean, 7.0, atol=0.2)
    for shape, spacing in (((24, 24), 1.2), ((64, 96), 1.25), ((51, 33), (1.5, 1.0))):
        built = table.at(shape, spacing)
        expected = truth(shape, np.broadcast_to(spacing, 2))
        np.testing.assert_allclose(built.power, expected, rtol=0.15)
        np.testing.assert_allclose(jnp.sum(built.power) / built.power.size, np.mean(expected), rtol=0.03)
    with pytest.warns(UserWarning, match="corner"):
        table.at((24, 24), 1.0)  # each axis was seen at 1 mm, both together never
    rebuilt = table.at((32, 48), (1.5, 1.0))
    np.testing.assert_allclose(
        rebuilt.power, jnp.flip(jnp.roll(rebuilt.power, -1, (0, 1)), (0, 1)), rtol=1e-12
    )


def test_variance_does_not_depend_on_size_and_falls_on_coarser_voxels(x64):
    rng = np.random.default_rng(6)
    table = StationaryGaussianPrior.fit(rng.standard_normal((20, 16, 16, 2)) * [1.0, 3.0], 2.0)
    variance = lambda n, s: np.mean(np.asarray(table.at((n, n), s).power), (0, 1))
    np.testing.assert_allclose(variance(16, 2.0), [1.0, 9.0], rtol=0.06)
    np.testing.assert_allclose(variance(64, 2.0), variance(16, 2.0), rtol=0.03)
    with pytest.warns(UserWarning, match="voxels of 2 to 2 mm"):
        # white noise: half of the band along each axis holds a quarter of the variance
        np.testing.assert_allclose(variance(32, 4.0), variance(16, 2.0) / 4, rtol=0.05)


def test_complex_fit_and_three_dimensions(x64):
    rng = np.random.default_rng(7)
    noise = rng.standard_normal((30, 12, 10, 1)) + 1j * rng.standard_normal((30, 12, 10, 1))
    built = StationaryGaussianPrior.fit(noise, 1.0).at((8, 8), 1.0)
    assert built.is_complex and built.sample(jax.random.key(0)).dtype == jnp.complex128
    np.testing.assert_allclose(built.power, 1.0, rtol=0.35)
    volume = StationaryGaussianPrior.fit(rng.standard_normal((4, 6, 8, 8, 1)), (3.0, 1.0, 1.0)).at(
        (4, 10, 10, 1), (3.0, 1.0, 1.0)
    )
    assert volume.sample(jax.random.key(0)).shape == (4, 10, 10, 1)


def test_warnings_outside_of_the_fitted_range():
    rng = np.random.default_rng(8)
    images = rng.uniform(-1000, 1000, (5, 16, 16, 1))
    table = StationaryGaussianPrior.fit(images, 1.0, unit="HU")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table.at((16, 16), 1.0, like=images[0])
    with pytest.warns(UserWarning, match="not 0.5 mm"):
        table.at((32, 32), 0.5)
    with pytest.warns(UserWarning, match="another unit"):
        table.at((16, 16), 1.0, like=images[0] / 1000 + 1)
    with pytest.raises(ValueError, match="channels"):
        table.at((16, 16, 3), 1.0)
    with pytest.raises(ValueError, match="one number of axes"):
        StationaryGaussianPrior.fit([images[0], images[0, :, :, 0]], 1.0)
    with pytest.raises(ValueError, match="positive voxel size"):
        StationaryGaussianPrior.fit(images, (1.0, 1.0, 1.0))


@pytest.mark.parametrize("df", rest_slow([64.0, 0.5]))
def test_large_image_in_float32(df):
    n, sigma = 256, 0.5
    f = np.hypot(*np.meshgrid(np.fft.fftfreq(n), np.fft.fftfreq(n), indexing="ij"))[..., None]
    power, process = 1e-3 + 0.02 / (f + 0.01) ** 2, PFGMpp(df)
    with jax.enable_x64(True):
        prior = StationaryGaussianPrior(jnp.asarray(0.3), jnp.asarray(power))
        x = process.perturb(jax.random.key(1), prior.sample(jax.random.key(0)), sigma)
        exact = np.asarray(prior.denoiser(process)(x, sigma))
        variance, x = float(prior.noise_variance(process, x, sigma)), np.asarray(x)
    prior = StationaryGaussianPrior(jnp.asarray(0.3), jnp.asarray(power, jnp.float32))
    run, x = jax.jit(lambda p, x, t: p.denoiser(process)(x, t)), jnp.asarray(x, jnp.float32)
    got = run(prior, x, sigma)
    assert got.dtype == jnp.float32
    assert np.linalg.norm(got - exact) < 1e-5 * np.linalg.norm(exact)
    np.testing.assert_allclose(prior.noise_variance(process, x, sigma), variance, rtol=1e-5)
    start = time.perf_counter()
    run(prior, x, sigma).block_until_ready()
    assert time.perf_counter() - start < 2.0  # about 10 ms on two idle cores; a busy machine is no failure

"""Nonlinear DPS for transmission CT: closed forms of a step, subsets, units, and a small scan."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles.row_subsets import RowSubsets, positive_system

from pgm_jax.core import lift
from pgm_jax.data import load
from pgm_jax.guidance import transmission_dps
from pgm_jax.operators import (
    GaussianLikelihood,
    ImageGrid,
    Parallel,
    ParallelBeam,
    PhotonCounting,
    PoissonTransmission,
)
from pgm_jax.priors import StationaryGaussianPrior
from pgm_jax.processes import EDM, VP, PFGMpp, karras
from pgm_jax.reconstruction import fbp, paraboloids
from pgm_jax.samplers import ddim, sample, sample_one

SIZE, BLANK, BACKGROUND = 6, 200.0, 3.0
TRUTH = np.array([0.3, 0.0, 0.9, 0.5, 0.1, 1.2])


def _likelihood(count=1, seed=1, background=BACKGROUND):
    system = jnp.asarray(positive_system())
    mean = BLANK * np.exp(-np.asarray(system) @ TRUTH) + background
    y = np.random.default_rng(seed).poisson(mean).astype(float)
    return PoissonTransmission.create(RowSubsets(system, None, None, count), y, BLANK, background)


def _apply(guidance, denoise, process, x_t, t, state=None):
    estimator = guidance(lift(process, denoise))
    state = estimator.init(x_t) if state is None else state
    time = jnp.asarray(t, jnp.finfo(x_t.dtype).dtype)
    return jax.jit(lambda x, t, state: estimator.apply(jax.random.key(0), x, t, state))(x_t, time, state)


def _constant(image):
    return lambda x, t, cond=None: jnp.broadcast_to(image, x.shape).astype(x.dtype) + 0.0 * x


def _nonlinear(x, t, cond=None):
    return 0.4 + 0.3 * jnp.tanh(x + 0.3 * jnp.roll(x, 1))


IMAGE = np.array([0.2, 0.1, 0.6, 0.7, 0.3, 0.8])


@pytest.mark.parametrize("steps", [1, 4])
def test_far_from_the_clean_end_the_steps_are_paraboloids(x64, steps):
    """At sigma 1e6 nothing but the data is left: the iterates are those of the maximum-likelihood solver."""
    likelihood = _likelihood()
    guidance = transmission_dps(likelihood, steps=steps, jacobian_free=True)
    found, _ = _apply(guidance, _constant(IMAGE), EDM(), jnp.zeros(SIZE), 1e6)
    operator, y = likelihood.operator, likelihood.y
    expected, _ = paraboloids(operator, y, BLANK, steps, background=BACKGROUND, x_init=IMAGE)
    np.testing.assert_allclose(found.x0, expected, atol=1e-9)


@pytest.mark.parametrize("process", [EDM(), VP(), PFGMpp(6.0)], ids=["edm", "vp", "pfgmpp"])
def test_many_steps_end_at_the_penalised_maximum(x64, process):
    """Karush-Kuhn-Tucker: `g(v) = rho (v - m)` where v > 0 and not above it where v = 0, in units of their own."""
    likelihood, t, scale, offset = _likelihood(), 0.2, 0.5, 0.05
    guidance = transmission_dps(likelihood, steps=3000, jacobian_free=True, scale=scale, offset=offset)
    x_t = jnp.linspace(-1, 1, SIZE)
    found, _ = _apply(guidance, _constant(IMAGE), process, x_t, t)
    start = scale * IMAGE + offset
    v = start + scale * (found.x0 - IMAGE)
    rho = process.alpha(t) ** 2 / (process.sigma(t) * scale) ** 2
    slope = likelihood.grad(v) - rho * (v - start)
    active = v < 1e-9
    assert not active.all() and float(jnp.abs(jnp.where(active, 0.0, slope)).max()) < 1e-6
    assert bool(jnp.all(jnp.where(active, slope, 0.0) <= 0))
    # The state is kept.
    np.testing.assert_allclose(process.mix(found, t), x_t, rtol=1e-12)


@pytest.mark.parametrize("process", [EDM(), VP(), PFGMpp(6.0)], ids=["edm", "vp", "pfgmpp"])
def test_a_step_goes_through_the_jacobian(x64, process):
    """`x0 + alpha J^T w`, w the step g / (d + rho) by hand; near the clean end that is DPS."""
    likelihood, x_t = _likelihood(), jnp.linspace(-1, 1, SIZE)
    for t in (0.5, 1e-4):
        found, _ = _apply(transmission_dps(likelihood), _nonlinear, process, x_t, t)
        x0, jacobian = _nonlinear(x_t, t), jax.jacfwd(lambda x, t=t: _nonlinear(x, t))(x_t)
        rho = (process.alpha(t) / process.sigma(t)) ** 2
        w = jnp.maximum(x0 + likelihood.grad(x0) / (likelihood.curvature(x0) + rho), 0) - x0
        np.testing.assert_allclose(found.x0, x0 + process.alpha(t) * jacobian.T @ w, atol=1e-12)
        np.testing.assert_allclose(process.mix(found, t), x_t, rtol=1e-10, atol=1e-12)
    # The precision outweighs the curvature by 1 / rho.
    plain = process.sigma(t) ** 2 / process.alpha(t) * jacobian.T @ likelihood.grad(x0)
    share = float(jnp.max(likelihood.curvature(x0)) / rho)
    np.testing.assert_allclose(found.x0 - x0, plain, rtol=2 * share, atol=1e-12)
    assert share < 0.05


@pytest.mark.parametrize("step", ["majoriser", 1e-3])
@pytest.mark.parametrize("process", [EDM(), VP()], ids=["edm", "vp"])
def test_without_the_jacobian_it_is_taken_for_one_over_alpha(x64, process, step):
    """A denoiser with just that Jacobian, x_t / alpha, gives the same estimate either way."""
    likelihood, x_t, t = _likelihood(), jnp.linspace(0.1, 1, SIZE), 0.3
    plain = process.estimate(x_t, t, x_t / process.alpha(t))
    denoise = lambda x, t, cond=None: x / process.alpha(t)
    with_it, without = (
        _apply(transmission_dps(likelihood, step, steps=2, jacobian_free=free), denoise, process, x_t, t)[0]
        for free in (False, True)
    )
    np.testing.assert_allclose(with_it.x0, without.x0, atol=1e-13)
    np.testing.assert_allclose(with_it.noise, without.noise, atol=1e-12)
    for free in (False, True):
        guidance = transmission_dps(likelihood, step, steps=2, jacobian_free=free, keep_noise=True)
        moved, _ = _apply(guidance, denoise, process, x_t, t)
        np.testing.assert_allclose(moved.x0, without.x0, atol=1e-13)
        np.testing.assert_allclose(moved.noise, plain.noise, atol=1e-12)
    assert float(jnp.abs(without.noise - plain.noise).max()) > 1e-3


def test_the_published_step_and_its_subsets_average_to_the_full_gradient(x64):
    """One cycle of S carried states at one x_t: the mean displacement is `sigma^2 xi J^T g / alpha`, unbiased."""
    process, x_t, t = VP(), jnp.linspace(-1, 1, SIZE), 0.4
    xi = lambda process, t: 1e-4 / process.sigma(t)
    full, state = _apply(transmission_dps(_likelihood(), xi), _nonlinear, process, x_t, t)
    x0, jacobian = _nonlinear(x_t, t), jax.jacfwd(lambda x: _nonlinear(x, t))(x_t)
    gain = process.sigma(t) ** 2 / process.alpha(t)
    slope = 1e-4 / process.sigma(t) * jacobian.T @ _likelihood().grad(x0)
    np.testing.assert_allclose(full.x0, x0 + gain * slope, rtol=1e-12)
    guidance, found, state = transmission_dps(_likelihood(4), xi), [], None
    for _ in range(4):
        estimate, state = _apply(guidance, _nonlinear, process, x_t, t, state)
        found.append(estimate.x0)
    np.testing.assert_allclose(sum(found) / 4, full.x0, rtol=1e-12)
    assert float(jnp.abs(found[0] - found[1]).max()) > 1e-6 and int(state[1]) == 4
    # Subsets in the order 0, 2, 1, 3, so that neighbours lie far apart.
    third = jacobian.T @ _likelihood(4).subset(1).grad(x0) * 4e-4 / process.sigma(t)
    np.testing.assert_allclose(found[2], x0 + gain * third, rtol=1e-12)


def test_units_are_a_change_of_variable(x64):
    """A prior in other units, `m = scale x + offset`, moves the same attenuation."""
    likelihood, scale, offset, sigma = _likelihood(), 0.02, 0.3, 0.4
    in_attenuation = lambda m, t, cond=None: _nonlinear(m, t)
    in_units = lambda x, t, cond=None: (in_attenuation(scale * x + offset, t) - offset) / scale
    m_t = jnp.linspace(-1, 1, SIZE)
    for free in (False, True):
        plain = transmission_dps(likelihood, steps=2, jacobian_free=free)
        scaled = transmission_dps(likelihood, steps=2, jacobian_free=free, scale=scale, offset=offset)
        expected, _ = _apply(plain, in_attenuation, EDM(), m_t, sigma)
        found, _ = _apply(scaled, in_units, EDM(), (m_t - offset) / scale, sigma / scale)
        np.testing.assert_allclose(scale * found.x0 + offset, expected.x0, atol=1e-12)


def test_other_likelihoods_of_images_that_are_not_negative(x64):
    """Any likelihood with gradient and curvature: its log density rises."""
    system = jnp.asarray(positive_system())
    gaussian = GaussianLikelihood.create(RowSubsets(system), system @ TRUTH, 0.3)
    maps = np.stack([TRUTH, TRUTH[::-1]], axis=-1)
    operator = _PerChannel(system)
    attenuation, response = np.array([[0.2, 0.5, 0.9], [0.6, 0.4, 0.3]]), np.array([[80, 40, 5], [5, 50, 90]])
    spectral = PhotonCounting.create(operator, np.zeros((12, 2)), response, attenuation)
    spectral = spectral.replace(y=jnp.round(spectral.mean(jnp.asarray(maps))))
    for likelihood, start in ((gaussian, IMAGE), (spectral, jnp.full((SIZE, 2), 0.4))):
        guidance = transmission_dps(likelihood, steps=3, jacobian_free=True)
        found, _ = _apply(guidance, _constant(start), EDM(), jnp.zeros(start.shape), 2.0)
        assert likelihood.log_prob(found.x0) > likelihood.log_prob(start) + 1.0


class _PerChannel(RowSubsets):
    """The matrix on each of two channels."""

    def __call__(self, x):
        return self.values @ x

    def adjoint(self, y):
        return self.values.T @ y

    def row_sums(self):
        return jnp.repeat(jnp.sum(self.values, axis=1)[:, None], 2, axis=1)

    @property
    def domain(self):
        return jax.ShapeDtypeStruct((SIZE, 2), self.values.dtype)

    @property
    def range(self):
        return jax.ShapeDtypeStruct((12, 2), self.values.dtype)


@pytest.mark.parametrize("free", [False, True])
def test_no_photons_new_counts_and_several_samples(free):
    """Rays without a photon give finite images in float32; y is traced; a sample does not see the others."""
    traces, given = [], _likelihood(4)

    @jax.jit
    def run(key, y, x_init):
        traces.append(1)
        likelihood = given.replace(y=y, background=0.0)
        guidance = transmission_dps(likelihood, steps=2, jacobian_free=free)
        process = EDM()
        return sample(key, ddim(), _nonlinear, process, karras(6), x_init=x_init, guidance=guidance)

    key, y = jax.random.key(0), given.y.astype(jnp.float32)
    start = 80 * jax.random.normal(key, (3, SIZE))
    empty, counted = run(key, jnp.zeros_like(y), start), run(key, y, start)
    assert len(traces) == 1 and np.isfinite(empty).all()
    # Nothing came through: more attenuation than the counts explain.
    assert float(empty.mean()) > float(counted.mean())
    other = run(key, y, start.at[0].set(7.0))
    np.testing.assert_allclose(other[1:], counted[1:], rtol=1e-6)
    assert not np.allclose(other[0], counted[0])


# A scan.


@functools.cache
def _scan():
    """A 32 x 32 head phantom at 6 mm, 0.02 / mm in its skull; 24 views in 4 subsets, 2000 photons a ray."""
    image = load("shepp-logan", shape=(32, 32)).array[0].astype(np.float32) * np.float32(0.02)
    geometry = Parallel(np.arange(24) * np.pi / 24, 47, 6.0)
    beam = ParallelBeam(ImageGrid((32, 32), 6.0), geometry, subsets=4)
    y = jax.jit(PoissonTransmission(beam, jnp.zeros(beam.range.shape), 2000.0, 5.0).sample)(
        jax.random.key(3), image
    )
    return image, PoissonTransmission.create(beam, y, 2000.0, 5.0)


def _prior(image, scale):
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(32), np.fft.fftfreq(32)))
    power = 1 / (frequency + 0.03) ** 2
    power = power / power.mean() * float(np.var(image / scale))
    return StationaryGaussianPrior(float(np.mean(image / scale)), jnp.asarray(power[..., None], jnp.float32))


@functools.partial(jax.jit, static_argnames=("guided", "first"))
def _reconstruct(key, likelihood, x_init=None, *, guided=True, first=0):
    process, grid = EDM(), karras(24, 0.01, 20.0)[first:]
    denoise = _prior(_scan()[0], 0.02).denoiser(process)
    guidance = transmission_dps(likelihood, steps=16, jacobian_free=True, keep_noise=True, scale=0.02)
    if x_init is not None:
        x_init = process.perturb(key, x_init, jnp.float32(grid[0]))
    x = sample_one(
        key,
        ddim(),
        denoise,
        process,
        grid,
        shape=(32, 32, 1),
        x_init=x_init,
        guidance=guidance if guided else None,
    )
    return jnp.maximum(0.02 * x, 0.0)


def test_a_small_scan_and_its_jump_start(key):
    """ln p rises to that of the truth; from noised FBP half of the levels come as near to the image."""
    image, likelihood = _scan()
    error = lambda x: float(jnp.linalg.norm(x - image) / jnp.linalg.norm(image))
    misfit = jax.jit(lambda x: likelihood.log_prob(image) - likelihood.log_prob(x))
    logs = jnp.log((likelihood.blank + likelihood.background) / jnp.maximum(likelihood.y, 1.0))
    first = fbp(likelihood.operator, logs)
    free, full = (_reconstruct(key, likelihood, guided=guided) for guided in (False, True))
    jumped = _reconstruct(key, likelihood, first / 0.02, first=12)
    assert misfit(full) < 0.05 * misfit(free) and misfit(jumped) < 0.05 * misfit(free)
    assert error(full) < 0.42 < 0.45 < error(first) < error(free)
    assert error(jumped) < 1.1 * error(full)


# Refusals.


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda l: transmission_dps(l, "newton"), "majoriser"),
        (lambda l: transmission_dps(l, steps=0), "at least 1"),
        (lambda l: transmission_dps(l.through(jnp.exp)), "latent"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make(_likelihood())


def test_complex_images_are_refused():
    with pytest.raises(ValueError, match="real image"):
        _apply(transmission_dps(_likelihood()), lambda x, t, c: x, EDM(), jnp.ones(SIZE, jnp.complex64), 1.0)

"""The makers and the published methods: by-hand forms, biases as stored numbers, known pixels, refusals."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles.moments import Moments, relative_error
from oracles.problems import gaussian_problem

from pgm_jax.core import Estimator, chain, lift
from pgm_jax.guidance import (
    blend,
    cfg,
    clip,
    correct,
    dds,
    dps,
    exact,
    known_region,
    likelihood_gradient,
    moment_matching,
    move,
)
from pgm_jax.operators import FiniteDifference, GaussianLikelihood, Sense, birdcage_maps
from pgm_jax.priors import GaussianPrior
from pgm_jax.processes import EDM, VP, FlowMatching, PFGMpp
from pgm_jax.processes.grid import karras, linear
from pgm_jax.processes.regrid import resample
from pgm_jax.samplers import ancestral, ddim, heun, sample, sample_one


def _apply(guidance, denoise, process, x_t, t, cond=None, key=0):
    estimator = guidance(lift(process, denoise))
    return estimator.apply(jax.random.key(key), x_t, t, estimator.init(x_t), cond=cond)[0]


def _nonlinear(x_t, t, cond=None):
    mixed = x_t + 0.3 * jnp.roll(x_t, 1)
    return jnp.tanh(mixed) + (0.0 if cond is None else 0.2 * cond)


# Chains (row 6).


@pytest.mark.parametrize("process", [EDM(), VP()], ids=["edm", "vp"])
def test_chain_of_cfg_and_dds_by_hand(x64, process):
    """The guided estimate is corrected: cfg is nearest to the network."""
    likelihood = gaussian_problem().likelihood
    x_t, t, scale, cond = jnp.linspace(-1, 1, 8), 0.6, 3.0, jnp.full(8, 0.7)
    found = _apply(chain(cfg(scale), dds(likelihood, gamma=0.5, steps=8)), _nonlinear, process, x_t, t, cond)
    free, given = _nonlinear(x_t, t), _nonlinear(x_t, t, cond)
    guided = free + scale * (given - free)
    noise = (x_t - process.alpha(t) * guided) / process.sigma(t)
    a, s2 = likelihood.operator.values, likelihood.noise_std**2
    normal = jnp.eye(8) + 0.5 / s2 * a.T @ a
    corrected = jnp.linalg.solve(normal, guided + 0.5 / s2 * a.T @ likelihood.y)
    np.testing.assert_allclose(found.noise, noise, rtol=1e-13)
    np.testing.assert_allclose(found.x0, corrected, atol=1e-12)


@pytest.mark.parametrize("normalise", [True, False])
def test_chain_of_cfg_and_dps_by_hand(x64, normalise):
    """The gradient goes through the guided network: `x0 + sigma^2 grad / alpha`, the state kept."""
    process, likelihood, weight = VP(), gaussian_problem().likelihood, 0.8
    x_t, t, cond = jnp.linspace(-1, 1, 8), 0.4, jnp.full(8, 0.7)
    guided = lambda x: _nonlinear(x, t) + 3.0 * (_nonlinear(x, t, cond) - _nonlinear(x, t))
    fit = lambda x: jnp.sum((likelihood.y - likelihood.operator(guided(x))) ** 2)
    log_p = (
        (lambda x: -jnp.sqrt(fit(x))) if normalise else (lambda x: -0.5 * fit(x) / likelihood.noise_std**2)
    )
    found = _apply(
        chain(cfg(3.0), dps(likelihood, weight, normalise=normalise)), _nonlinear, process, x_t, t, cond
    )
    alpha, sigma = process.alpha(t), process.sigma(t)
    x0 = guided(x_t) + weight * sigma**2 / alpha * jax.grad(log_p)(x_t)
    np.testing.assert_allclose(found.x0, x0, rtol=1e-12)
    np.testing.assert_allclose(process.mix(found, t), x_t, rtol=1e-13)


def test_denoiser_traces_of_a_chain(key):
    """cfg + dps + dds trace the network twice: one pullback, no second evaluation."""
    likelihood, traces = gaussian_problem().likelihood, []

    def denoise(x_t, t, cond=None):
        traces.append(1)
        return _nonlinear(x_t, t, cond)

    guidance = chain(cfg(2.0), dps(likelihood), dds(likelihood))
    jax.jit(lambda x: _apply(guidance, denoise, EDM(), x, 0.5, jnp.ones(8)).x0)(jnp.ones(8))
    assert len(traces) == 2


def test_guidance_scales(x64):
    x_t, cond = jnp.linspace(-1, 1, 8), jnp.full(8, 0.7)
    one, zero = (_apply(cfg(w), _nonlinear, EDM(), x_t, 0.5, cond).x0 for w in (1.0, 0.0))
    np.testing.assert_allclose(one, _nonlinear(x_t, 0.5, cond), rtol=1e-14)
    np.testing.assert_allclose(zero, _nonlinear(x_t, 0.5), rtol=1e-14)
    other = _apply(cfg(0.0, null=2 * cond), _nonlinear, EDM(), x_t, 0.5, cond).x0
    np.testing.assert_allclose(other, _nonlinear(x_t, 0.5, 2 * cond), rtol=1e-14)


# The bias of methods that are not exact, as regression values of this problem (row 2).

BIAS = {
    "dps": (0.66, 0.72),
    "dps weighted": (0.98302, 1.32195),
    "dds keep noise": (0.319984, 0.378942),
    "dds consistent": (0.292662, 0.137038),
}


@pytest.mark.parametrize("name", ["dps", "dps weighted", "dds keep noise", "dds consistent"])
def test_bias_of_approximate_methods(x64, name):
    """Mean error in posterior std and relative error of the covariance, ancestral, 100 EDM levels."""
    problem, process = gaussian_problem(), EDM()
    guidance = {
        "dps weighted": dps(problem.likelihood, 0.01, normalise=False),
        "dds keep noise": dds(problem.likelihood, steps=8),
        "dds consistent": dds(problem.likelihood, steps=8, keep_noise=False),
    }.get(name)
    if name == "dps":
        # Not affine: by samples.
        with jax.enable_x64(False):
            found = _dps_samples()
        limits = {"abs": 0.12}
    else:
        moments = Moments(ancestral(), problem.prior.denoiser(process), process, guidance)
        mean, cov = moments(karras(100), jnp.zeros(8), 80.0**2 * jnp.eye(8))
        found, limits = _bias(mean, cov, problem.posterior), {"rel": 1e-4}
    assert found[1] > 0.1, "a biased method became exact: move it to the exact tests"
    assert found == pytest.approx(BIAS[name], **limits)


def _bias(mean, cov, truth):
    gap = np.linalg.norm(np.asarray(mean) - np.asarray(truth.mean)) / math.sqrt(
        np.trace(np.asarray(truth.cov))
    )
    return float(gap), relative_error(cov, truth.cov)


def _dps_samples():
    problem, process = gaussian_problem(), EDM()
    draw = lambda key: sample(
        key,
        ancestral(),
        problem.prior.denoiser(process),
        process,
        karras(100),
        shape=(600, 8),
        guidance=dps(problem.likelihood),
    )
    x = np.asarray(jax.jit(draw)(jax.random.key(0)), np.float64)
    return _bias(x.mean(0), np.cov(x.T), problem.posterior)


# The makers.


def test_correct_keeps_or_recomputes_the_noise(x64):
    process, x_t, t = VP(), jnp.linspace(-1, 1, 8), 0.5
    update = lambda key, process, x0, t, state: (x0 + 0.1, state + 1)
    plain = lift(process, _nonlinear).apply(None, x_t, t, ())[0]
    for keep_noise in (True, False):
        estimator = correct(update, lambda x: jnp.zeros(()), keep_noise=keep_noise)(lift(process, _nonlinear))
        estimate, state = estimator.apply(jax.random.key(0), x_t, t, estimator.init(x_t))
        np.testing.assert_allclose(estimate.x0, plain.x0 + 0.1, rtol=1e-14)
        assert state == ((), 1.0)
        if keep_noise:
            np.testing.assert_array_equal(estimate.noise, plain.noise)
        else:
            np.testing.assert_allclose(process.mix(estimate, t), x_t, rtol=1e-13)


class _Codec:
    """An affine change of units, or one that loses its sign."""

    linear = False

    def __init__(self, exact):
        self.exact = exact

    def encode(self, x):
        return (x - 1.0) / 4.0

    def decode(self, z):
        return 4.0 * z + 1.0


def test_correct_through_a_codec(x64):
    """x0 is decoded, corrected in the image's own units, and encoded."""
    update = lambda key, process, x0, t, state: (jnp.clip(x0, 0.0, 2.0), state)
    x_t = jnp.linspace(-2, 2, 8)
    found = _apply(correct(update, keep_noise=True, codec=_Codec(True)), _nonlinear, EDM(), x_t, 0.5)
    np.testing.assert_allclose(found.x0, (jnp.clip(4 * _nonlinear(x_t, 0.5) + 1, 0, 2) - 1) / 4, rtol=1e-14)
    with pytest.raises(ValueError, match="through"):
        correct(update, keep_noise=True, codec=_Codec(False))


def test_likelihood_gradient_hands_out_pullback_and_covariance(x64):
    """`pullback(v) = J^T v` and, for Normal noise, `covariance(v) = sigma^2 J^T v / alpha`."""
    seen = {}

    def gradient(key, process, evaluation, t, state, pullback, covariance):
        v = jnp.arange(8.0)
        seen.update(pullback=pullback(v), covariance=covariance()(v), x_t=evaluation.x_t)
        return (jnp.zeros(8), 0.0, None), state

    process, x_t, t = VP(), jnp.linspace(-1, 1, 8), 0.5
    found = _apply(likelihood_gradient(gradient), _nonlinear, process, x_t, t)
    jacobian = jax.jacfwd(lambda x: _nonlinear(x, t))(x_t)
    np.testing.assert_allclose(seen["pullback"], jacobian.T @ jnp.arange(8.0), rtol=1e-12)
    gain = process.sigma(t) ** 2 / process.alpha(t)
    np.testing.assert_allclose(seen["covariance"], gain * jacobian.T @ jnp.arange(8.0), rtol=1e-12)
    np.testing.assert_array_equal(seen["x_t"], x_t)
    np.testing.assert_allclose(found.x0, _nonlinear(x_t, t), rtol=1e-14)


def test_finite_d_covariance_by_dense_algebra(x64):
    """The rank-one cure of the contracts' question 1, written out with matrices."""
    process, x, sigma = PFGMpp(5.0), jnp.linspace(-1, 2, 8), 0.7
    prior = gaussian_problem().prior
    denoise = prior.denoiser(process)

    @jax.jit
    def pieces(x, sigma):
        seen = []

        def gradient(key, process, evaluation, t, state, pullback, covariance):
            seen.append(jax.vmap(covariance())(jnp.eye(8)))
            return (jnp.zeros(8), 0.0, None), state

        _apply(likelihood_gradient(gradient), denoise, process, x, sigma)
        slopes = jax.jacfwd(denoise, argnums=(0, 1))(x, sigma)
        return seen[0], denoise(x, sigma), *slopes, prior.noise_variance(process, x, sigma)

    found, x0, jacobian, by_sigma, effective = pieces(x, jnp.asarray(sigma))
    d, b = x - x0, by_sigma / (5.0 * sigma)
    q = (d @ jacobian @ d - b @ d * (d @ d)) / (1 - b @ d)
    g = d - jacobian @ d + b * (d @ d - q)
    matrix = jacobian - jnp.outer(b, g)
    v = (5.0 * sigma**2 + d @ d) / (8 + 5.0 - jnp.trace(matrix))
    np.testing.assert_allclose(found, v * 0.5 * (matrix + matrix.T), atol=1e-11)
    # Symmetric, and near the covariance of the Gaussian at the effective noise.
    true = np.linalg.inv(np.linalg.inv(prior.cov) + np.eye(8) / effective)
    nominal = process.law.gain(sigma, d @ d, 8) * jacobian
    assert relative_error(found, true) < 0.15 and relative_error(nominal, true) > 0.15


@pytest.mark.parametrize("process", [EDM(), VP(), PFGMpp(6.0)], ids=["edm", "vp", "pfgmpp"])
def test_song_projection_is_a_move(x64, process):
    """Row 4: moving x0 and noise equals projecting the next state, at s = .5, .1 and 0 (4e-16).

    Orthogonal T, known coordinates of `T x`: `x_s <- T^T (L lambda y_s + (1 - L lambda) T x_s)` with
    `y_s = alpha_s y + sigma_s T z`, the corrected Eq. 26 and 27.
    """
    rng = np.random.default_rng(2)
    rotation = jnp.asarray(np.linalg.qr(rng.normal(size=(8, 8)))[0])
    kept, weight = jnp.asarray(np.arange(8) < 3, float), 0.84
    y, z = (jnp.asarray(rng.normal(size=8)) for _ in range(2))
    project = lambda x, data: rotation.T @ (weight * kept * data + (1 - weight * kept) * (rotation @ x))

    def target(key, process, estimate, t):
        return estimate._replace(x0=project(estimate.x0, y), noise=project(estimate.noise, rotation @ z))

    x_t, t = jnp.linspace(-1, 1, 8), 0.8
    plain = lift(process, _nonlinear).apply(None, x_t, t, ())[0]
    for s in (0.5, 0.1, 0.0):
        moved = sample_one(
            jax.random.key(0), ddim(), _nonlinear, process, [t, s], x_init=x_t, guidance=move(target)
        )
        noisy = process.alpha(s) * y + process.sigma(s) * (rotation @ z)
        np.testing.assert_allclose(moved, project(process.mix(plain, s), noisy), rtol=1e-14, atol=5e-16)


# Known region.


def _correlated():
    return GaussianPrior(jnp.zeros(2), jnp.array([[1.0, 0.9], [0.9, 1.0]]))


def _repaint_grid(repeats):
    return resample(linear(20), repeats)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _inpaint(key, repeats, count):
    known = known_region(jnp.array([1.0, 0.0]), jnp.array([1.5, 0.0]))
    denoise = _correlated().denoiser(VP())
    return sample(key, ancestral(), denoise, VP(), _repaint_grid(repeats), shape=(count, 2), guidance=known)


REPAINT = {1: 0.8487, 2: 1.0324, 5: 1.1708, 10: 1.2108}
"""Mean of x_2 given x_1 = 1.5 by number of repeats, on 20 steps; 1.35 is the exact conditional mean."""


@pytest.mark.parametrize("repeats", [1, 10] + [pytest.param(r, marks=pytest.mark.slow) for r in (2, 5)])
def test_repaint_mean_by_exact_propagation(x64, repeats):
    """Row 4: RePaint's mean climbs towards the exact conditional mean with the number of repeats."""
    known = known_region(jnp.array([1.0, 0.0]), jnp.array([1.5, 0.0]))
    moments = Moments(ancestral(), _correlated().denoiser(VP()), VP(), known, draws=2)
    mean, cov = moments(_repaint_grid(repeats), jnp.zeros(2), jnp.eye(2))
    assert float(mean[1]) == pytest.approx(REPAINT[repeats], abs=6e-5)
    assert float(mean[0]) == 1.5 and float(cov[0, 0]) == 0


def _check_repaint(key, repeats, count):
    x = np.asarray(_inpaint(key, repeats, count))
    np.testing.assert_array_equal(x[:, 0], np.float32(1.5))
    error = float(x[:, 1].std()) / math.sqrt(count)
    assert float(x[:, 1].mean()) == pytest.approx(REPAINT[repeats], abs=5 * error)


@pytest.mark.parametrize("repeats", [5])
def test_repaint_samples(key, repeats):
    """Row 4 by samples through the driver: five standard errors around the propagated mean."""
    _check_repaint(key, repeats, 1000)


@pytest.mark.slow
@pytest.mark.parametrize("repeats", REPAINT)
def test_repaint_16000_samples(key, repeats):
    _check_repaint(key, repeats, 16000)


def test_repaint_converges_on_finer_chains(x64):
    """With 100 VP steps and 10 repeats the mean is within 0.04 of the exact 1.35."""
    known = known_region(jnp.array([1.0, 0.0]), jnp.array([1.5, 0.0]))
    moments = Moments(ancestral(), _correlated().denoiser(VP()), VP(), known, draws=2)
    means = [float(moments(resample(linear(100), r), jnp.zeros(2), jnp.eye(2))[0][1]) for r in (1, 10)]
    assert means == [pytest.approx(0.9224, abs=1e-4), pytest.approx(1.3109, abs=1e-4)]


@pytest.mark.parametrize("sampler", [ddim(), ancestral(), heun()], ids=["ddim", "ancestral", "heun"])
def test_known_region_is_exact(key, sampler):
    prior = GaussianPrior(jnp.zeros((2, 3)), jnp.eye(6) + 0.5)
    image = jax.random.normal(key, (2, 3))
    mask = jnp.array([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    run = lambda guidance: sample_one(
        key, sampler, prior.denoiser(VP()), VP(), linear(6, 0.9), shape=(2, 3), guidance=guidance
    )
    found = run(known_region(mask, image))
    np.testing.assert_array_equal(np.asarray(found)[mask > 0], np.asarray(image)[mask > 0])
    assert not np.allclose(found, run(None))


def test_zero_mask_is_the_plain_run(key):
    """Bit for bit, and without a change of the sampler's own draws."""
    prior = GaussianPrior(jnp.zeros(4), jnp.eye(4) + 0.5)
    run = lambda guidance: sample_one(
        key, ddim(), prior.denoiser(EDM()), EDM(), linear(6, 0.9), shape=(4,), guidance=guidance
    )
    np.testing.assert_array_equal(run(known_region(jnp.zeros(4), jnp.full(4, 7.0))), run(None))
    step = lambda guidance: sample_one(
        key, ancestral(), prior.denoiser(EDM()), EDM(), linear(6, 0.9), shape=(4,), guidance=guidance
    )
    np.testing.assert_array_equal(step(known_region(jnp.zeros(4), jnp.full(4, 7.0))), step(None))


# DDS on complex multi-coil data.


def test_dds_prox_of_complex_sense_images(x64):
    """`argmin |v - x0|^2 / 2 + gamma |A v - y|^2 / (2 s^2)` by CG, against a dense complex solve."""
    rng = np.random.default_rng(4)
    mask = jnp.asarray(np.arange(6) % 2, float)
    operator = Sense(birdcage_maps(3, 6, 6).astype(complex), mask)
    y = operator(jnp.asarray(rng.normal(size=(6, 6, 1)) + 1j * rng.normal(size=(6, 6, 1))))
    likelihood = GaussianLikelihood.create(operator, y, 0.5)
    x_t = jnp.asarray(rng.normal(size=(6, 6, 1)) + 1j * rng.normal(size=(6, 6, 1)))
    process, t = VP(), 0.3
    denoise = lambda x, t, cond=None: 0.6 * x
    found = _apply(dds(likelihood, steps=40), denoise, process, x_t, t)
    alpha, sigma = float(process.alpha(t)), float(process.sigma(t))
    gamma = sigma**2 / (alpha**2 + sigma**2) / 0.5**2
    columns = jax.vmap(lambda e: operator.gram(e.reshape(6, 6, 1)).ravel())(jnp.eye(36, dtype=complex)).T
    right = 0.6 * x_t.ravel() + gamma * operator.adjoint(y).ravel()
    truth = jnp.linalg.solve(jnp.eye(36) + gamma * columns, right)
    np.testing.assert_allclose(found.x0.ravel(), truth, atol=1e-9)
    np.testing.assert_allclose(found.noise, (x_t - alpha * 0.6 * x_t) / sigma, rtol=1e-12)


def test_three_d_consistency_over_slices(x64):
    """Row 12's idea: slices denoised alone, a z-difference joins them through the likelihood."""
    process = EDM()
    shape = (4, 3, 3, 1)
    difference = FiniteDifference(shape, axes=(0,))
    y = jnp.zeros(difference.range.shape)
    likelihood = GaussianLikelihood.create(difference, y, 0.05)
    x_t = jax.random.normal(jax.random.key(0), shape)
    plain = lift(process, lambda x, t, c: 0.5 * x).apply(None, x_t, 1.0, ())[0].x0
    joined = _apply(dds(likelihood, gamma=1.0, steps=30), lambda x, t, c: 0.5 * x, process, x_t, 1.0).x0
    before, after = (float(jnp.sum(difference(v) ** 2)) for v in (plain, joined))
    assert after < 1e-2 * before
    np.testing.assert_allclose(joined.mean(0), plain.mean(0), atol=1e-9)


# Refusals.


@pytest.mark.parametrize(
    "guidance, message",
    [
        (known_region(jnp.array([1.0, 0.0]), jnp.zeros(2)), r"heun\(\)"),
    ],
)
def test_finite_d_refuses_fresh_regions(guidance, message):
    with pytest.raises(ValueError, match=message):
        sample_one(
            jax.random.key(0),
            ddim(),
            lambda x, t, c: 0.5 * x,
            PFGMpp(8.0),
            [1.0, 0.5],
            shape=(2,),
            guidance=guidance,
        )


def test_finite_d_allows_what_needs_no_fresh_noise():
    likelihood = gaussian_problem().likelihood
    for guidance in (
        dds(likelihood),
        dps(likelihood),
        moment_matching(likelihood),
        blend(jnp.zeros(8), 0.7),
        clip(-1, 1),
        cfg(2.0),
    ):
        x = sample_one(
            jax.random.key(0),
            heun(),
            _nonlinear,
            PFGMpp(8.0),
            [1.0, 0.5, 0.0],
            shape=(8,),
            guidance=guidance,
            cond=jnp.ones(8),
        )
        assert np.isfinite(x).all()


def test_clip_bounds_and_refuses_complex(key):
    x = sample_one(
        key, ddim(), lambda x, t, c: 3 * x, EDM(), [1.0, 0.0], shape=(8,), guidance=clip(-0.5, 0.5)
    )
    assert float(jnp.max(jnp.abs(x))) == 0.5
    with pytest.raises(ValueError, match="magnitude"):
        sample_one(
            key,
            ddim(),
            lambda x, t, c: x,
            EDM(),
            [1.0, 0.0],
            shape=(2,),
            dtype=jnp.complex64,
            guidance=clip(0, 1),
        )


def test_one_radius_per_slice_refuses_moment_matching(key):
    likelihood = gaussian_problem().likelihood
    with pytest.raises(ValueError, match="event_axes=None"):
        _apply(moment_matching(likelihood), _nonlinear, PFGMpp(8.0, event_axes=(0,)), jnp.ones(8), 0.5)


def test_guidance_state_of_a_chain_nests_and_flows(key):
    """Each transform hands the inner state on."""
    count = lambda step: correct(
        lambda key, p, x0, t, n: (x0, n + step), lambda x: jnp.zeros(()), keep_noise=True
    )
    estimator = chain(count(1), cfg(1.5), count(10))(lift(EDM(), _nonlinear))
    assert isinstance(estimator, Estimator)
    state = estimator.init(jnp.ones(8))
    for _ in range(3):
        _, state = estimator.apply(key, jnp.ones(8), 0.5, state, cond=jnp.ones(8))
    assert [float(v) for v in jax.tree.leaves(state)] == [3.0, 30.0]


def test_guidance_at_pure_noise(x64):
    """Where alpha is 0 the state tells nothing: exact gives the posterior mean, a gradient keeps the prior's."""
    problem = gaussian_problem()
    process = FlowMatching()
    x = jnp.linspace(-1, 1, 8)
    for guidance, mean in (
        (exact(problem.prior, problem.likelihood), problem.posterior.mean),
        (moment_matching(problem.likelihood), problem.prior.mean),
    ):
        estimate = _apply(guidance, problem.prior.denoiser(process), process, x, 1.0)
        np.testing.assert_allclose(estimate.x0, mean, atol=1e-12)
        assert np.isfinite(estimate.noise).all()


def test_exact_refuses_what_its_posterior_would_ignore():
    """Weights and joint measurements do not reach `prior.posterior`, so they are refused, not dropped."""
    problem = gaussian_problem()
    likelihood = problem.likelihood
    for other in (likelihood.replace(weights=jnp.ones(4)), likelihood + likelihood):
        with pytest.raises(ValueError, match="without weights"):
            exact(problem.prior, other)

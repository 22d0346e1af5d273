"""PiGDM, DiffPIR and the variants of DDS against dense algebra; what every linear guidance must share."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles.problems import gaussian_problem

from pgm_jax.core import lift
from pgm_jax.guidance import ddrm, dds, diffpir, dps, mbir, mcg, pigdm, score_mri, song
from pgm_jax.guidance.least_squares import project
from pgm_jax.operators import (
    GaussianLikelihood,
    Identity,
    Matrix,
    PoissonEmission,
    Sense,
    birdcage_maps,
    inpainting,
    spectral,
)
from pgm_jax.priors import GaussianPrior
from pgm_jax.processes import EDM, VP, FlowMatching, PFGMpp, karras
from pgm_jax.samplers import ancestral, ctm, ddim, sample, sample_one


def _apply(guidance, denoise, process, x_t, t, s=None):
    @jax.jit
    def apply(x_t, t):
        estimator = guidance(lift(process, denoise))
        return estimator.apply(jax.random.key(0), x_t, t, estimator.init(x_t), s=s)[0]

    return apply(x_t, jnp.asarray(t))


def _nonlinear(x_t, t, cond=None):
    return jnp.tanh(x_t + 0.3 * jnp.roll(x_t, 1))


PROCESSES = {"edm": EDM(), "vp": VP(), "flow": FlowMatching()}
_slow = lambda *names: [pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", ["vp", *_slow("edm", "flow")])
def test_pigdm_by_dense_algebra(x64, name):
    """`x0 + sigma^2 J^T A^T (r^2 A A^T + s^2)^-1 (y - A x0) / alpha` for a nonlinear denoiser; x_t is kept."""
    process, problem = PROCESSES[name], gaussian_problem()
    x_t, t, a = jnp.linspace(-1, 2, 8), 0.4, jnp.asarray(problem.matrix)
    found = _apply(pigdm(problem.likelihood, rtol=1e-15), _nonlinear, process, x_t, t)
    alpha, sigma = process.alpha(t), process.sigma(t)
    r2 = sigma**2 / (sigma**2 + alpha**2)
    x0, jacobian = _nonlinear(x_t, t), jax.jacfwd(lambda x: _nonlinear(x, t))(x_t)
    weights = jnp.linalg.solve(r2 * a @ a.T + 0.3**2 * jnp.eye(4), problem.likelihood.y - a @ x0)
    np.testing.assert_allclose(found.x0, x0 + sigma**2 / alpha * jacobian.T @ a.T @ weights, rtol=1e-11)
    np.testing.assert_allclose(process.mix(found, t), x_t, rtol=1e-12)


@pytest.mark.parametrize("name", ["flow", *_slow("edm", "vp")])
def test_pigdm_is_exact_for_a_white_prior(x64, name):
    """Prior N(mean, I): r^2 is the posterior variance of x0, so x0 is the posterior's own denoiser."""
    process, problem = PROCESSES[name], gaussian_problem()
    prior = GaussianPrior(problem.prior.mean, jnp.eye(8))
    posterior = prior.posterior(problem.likelihood.operator, problem.likelihood.y, 0.3)
    x_t = jnp.linspace(-1, 2, 8)
    for t in (0.8, 0.1):
        found = _apply(pigdm(problem.likelihood, rtol=1e-15), prior.denoiser(process), process, x_t, t)
        np.testing.assert_allclose(found.x0, posterior.denoiser(process)(x_t, t), atol=1e-12)


def test_pigdm_takes_a_sum_and_a_variance(x64):
    """Two halves of the data are one likelihood; a number and a function for r^2 agree with the default."""
    problem, process, x_t, t = gaussian_problem(), VP(), jnp.linspace(-1, 2, 8), 0.4
    split = lambda rows: GaussianLikelihood.create(
        Matrix(jnp.asarray(problem.matrix[rows])), problem.likelihood.y[rows], 0.3
    )
    whole = _apply(pigdm(problem.likelihood, rtol=1e-15), _nonlinear, process, x_t, t)
    r2 = float(process.sigma(t)) ** 2
    for guidance in (
        pigdm(split(slice(0, 1)) + split(slice(1, 4)), rtol=1e-15),
        pigdm(problem.likelihood, r2, rtol=1e-15),
        pigdm(problem.likelihood, lambda process, t: process.sigma(t) ** 2, rtol=1e-15),
    ):
        np.testing.assert_allclose(_apply(guidance, _nonlinear, process, x_t, t).x0, whole.x0, rtol=1e-11)


def _sense(rng):
    operator = Sense(birdcage_maps(2, 4, 4).astype(complex), jnp.asarray([1.0, 0.0, 1.0, 0.0]))
    draw = lambda: jnp.asarray(rng.normal(size=(4, 4, 1)) + 1j * rng.normal(size=(4, 4, 1)))
    likelihood = GaussianLikelihood.create(operator, operator(draw()), 0.5)
    return operator, operator.matrix(), likelihood, draw()


def test_complex_images_of_several_coils(x64):
    """Hermitian throughout: PiGDM and DiffPIR of a complex image against complex dense solves."""
    operator, a, likelihood, x_t = _sense(np.random.default_rng(4))
    process, t = VP(), 0.4
    alpha, sigma = float(process.alpha(t)), float(process.sigma(t))
    x0, flat_y = 0.6 * x_t.ravel(), likelihood.y.ravel()
    denoise = lambda x, t, cond=None: 0.6 * x
    found = _apply(pigdm(likelihood, rtol=1e-14), denoise, process, x_t, t)
    data_cov = sigma**2 * a @ a.conj().T + 0.25 * jnp.eye(a.shape[0])
    weights = jnp.linalg.solve(data_cov, flat_y - a @ x0)
    expected = x0 + sigma**2 / alpha * 0.6 * a.conj().T @ weights
    np.testing.assert_allclose(found.x0.ravel(), expected, atol=1e-10)
    found = _apply(diffpir(likelihood, 2.0, steps=40), denoise, process, x_t, t)
    rho = 2.0 * 0.25 * alpha**2 / sigma**2
    normal = a.conj().T @ a + rho * jnp.eye(16)
    expected = jnp.linalg.solve(normal, a.conj().T @ flat_y + rho * x0)
    np.testing.assert_allclose(found.x0.ravel(), expected, atol=1e-9)


def test_diffpir_recomputes_the_noise(x64):
    """Identity: `(y + rho x0) / (1 + rho)` with rho = lambda s^2 alpha^2 / sigma^2; the state is kept."""
    y, x_t, t = jnp.linspace(0, 1, 8), jnp.linspace(-1, 2, 8), 0.4
    likelihood = GaussianLikelihood.create(Identity((8,)), y, 0.3)
    for process in PROCESSES.values():
        found = _apply(diffpir(likelihood, 3.0), _nonlinear, process, x_t, t)
        rho = 3.0 * 0.09 * process.alpha(t) ** 2 / process.sigma(t) ** 2
        np.testing.assert_allclose(found.x0, (y + rho * _nonlinear(x_t, t)) / (1 + rho), rtol=1e-12)
        np.testing.assert_allclose(process.mix(found, t), x_t, atol=1e-14)
    # Pure noise tells nothing, so the data alone decide.
    found = _apply(diffpir(likelihood), _nonlinear, FlowMatching(), x_t, 1.0)
    np.testing.assert_allclose(found.x0, y, atol=1e-14)


def test_diffpir_mixes_noise_in_the_sampler(x64):
    """Algorithm 1's last line: `x_s = alpha x0 + sigma (sqrt(1 - zeta) noise + sqrt(zeta) z)`, zeta = eta^2."""
    y, x_t, zeta, process = jnp.linspace(0, 1, 8), jnp.linspace(-1, 2, 8), 0.3, VP()
    likelihood = GaussianLikelihood.create(Identity((8,)), y, 0.3)
    sampler = ddim(eta=math.sqrt(zeta), of="marginal")
    runs = [
        sample_one(
            jax.random.key(3),
            sampler,
            _nonlinear,
            process,
            [0.5, 0.3],
            x_init=x,
            guidance=diffpir(likelihood),
        )
        for x in (x_t, x_t + 1)
    ]
    kept = [_apply(diffpir(likelihood), _nonlinear, process, x, 0.5) for x in (x_t, x_t + 1)]
    alpha, sigma = process.alpha(0.3), process.sigma(0.3)
    fresh = [
        x - alpha * e.x0 - sigma * math.sqrt(1 - zeta) * e.noise for x, e in zip(runs, kept, strict=True)
    ]
    np.testing.assert_allclose(fresh[0], fresh[1], atol=1e-14)
    assert 0.5 < float(jnp.std(fresh[0])) / (float(sigma) * math.sqrt(zeta)) < 1.6


def test_dds_weight_is_the_ratio_of_the_two_levels(x64):
    """The coefficient of `A^T A` is r_t^2 / s^2: scaling A, y and s together changes nothing."""
    problem, process, x_t, t = gaussian_problem(), EDM(), jnp.linspace(-1, 2, 8), 0.4
    a, s2, r2 = jnp.asarray(problem.matrix), 0.09, 0.16 / 1.16
    found = _apply(dds(problem.likelihood, steps=20), _nonlinear, process, x_t, t)
    right = _nonlinear(x_t, t) + r2 / s2 * a.T @ problem.likelihood.y
    np.testing.assert_allclose(found.x0, jnp.linalg.solve(jnp.eye(8) + r2 / s2 * a.T @ a, right), atol=1e-11)
    scaled = GaussianLikelihood.create(Matrix(10 * a), 10 * problem.likelihood.y, 3.0)
    np.testing.assert_allclose(_apply(dds(scaled, steps=20), _nonlinear, process, x_t, t).x0, found.x0)


def test_noiseless_dds_is_plain_cg(x64):
    """gamma inf, and noise_std 0: both end at the projection of x0 on the data, step by step alike."""
    problem, x_t, t = gaussian_problem(), jnp.linspace(-1, 2, 8), 0.4
    a, x0 = jnp.asarray(problem.matrix), _nonlinear(x_t, t)
    clean = problem.likelihood.replace(noise_std=0.0)
    projected = x0 + jnp.linalg.pinv(a) @ (problem.likelihood.y - a @ x0)
    for steps in (2, 4):
        pair = [dds(problem.likelihood, math.inf, steps), dds(clean, steps=steps)]
        found = [_apply(guidance, _nonlinear, EDM(), x_t, t).x0 for guidance in pair]
        np.testing.assert_allclose(found[0], found[1], atol=1e-10)
        assert (float(jnp.max(jnp.abs(found[0] - projected))) < 1e-10) == (steps == 4)


@pytest.mark.parametrize("make", [dds, diffpir, mcg])
def test_an_image_that_fits_noise_free_data_stays(x64, make):
    """Past convergence CG must not walk along the null space: data fitted to rounding, far more steps than data."""
    rng = np.random.default_rng(5)
    operator = Sense.single(4, 4, jnp.asarray([1.0, 0.0, 1.0, 0.0]))
    truth = jnp.asarray(rng.normal(size=(4, 4, 1)) + 1j * rng.normal(size=(4, 4, 1)))
    likelihood = GaussianLikelihood.create(operator, operator(truth) * (1 + 1e-15), 0.0)
    found = _apply(make(likelihood, steps=20), lambda x, t, c: truth, EDM(), 2 * truth, 0.5)
    np.testing.assert_allclose(found.x0, truth, atol=1e-12)


def test_projection_in_float32_never_runs_away():
    """Dense data, twice the steps needed, states of every size: a wide A has a null space to stay out of."""
    problem = gaussian_problem()
    likelihood = GaussianLikelihood.create(Matrix(5 * jnp.asarray(problem.matrix)), problem.likelihood.y, 0.0)
    states = jax.random.normal(jax.random.key(0), (4000, 8)) * jnp.logspace(-4, 3, 4000)[:, None]
    once = jax.jit(jax.vmap(lambda x: project(likelihood, x, 8)))
    fitted = once(states)
    np.testing.assert_allclose(once(fitted), fitted, atol=1e-3)
    residual = jax.vmap(likelihood.residual)(fitted)
    assert float(jnp.max(jnp.abs(residual) / (1 + jnp.linalg.norm(states, axis=1))[:, None])) < 1e-4


def test_a_sum_is_projected_by_its_noise_levels(x64):
    """Two measurements, of contradicting data: the weighted least squares of both."""
    problem, a, x0 = gaussian_problem(), jnp.asarray(gaussian_problem().matrix), jnp.linspace(-1, 1, 8)
    first = problem.likelihood
    second = GaussianLikelihood.create(first.operator, first.y + 1, 0.1)
    found = project(first + second, x0, 20)
    mean = (first.y / 0.09 + second.y / 0.01) / (1 / 0.09 + 1 / 0.01)
    np.testing.assert_allclose(found, x0 + jnp.linalg.pinv(a) @ (mean - a @ x0), atol=1e-10)


# What every linear guidance shares: one sample a call, one program for every y, refusals.


def _table(likelihood):
    placed = jnp.zeros(8).at[::2].set(likelihood.y)
    same = lambda x: x
    return {
        "pigdm": pigdm(likelihood),
        "mcg": mcg(likelihood, 0.3),
        "diffpir": diffpir(likelihood),
        "ddrm": ddrm(likelihood),
        "song": song(same, same, jnp.arange(8) % 2 == 0, placed, 0.8),
        "score_mri": score_mri(likelihood),
        "mbir": mbir(likelihood, 0.1, 1.0),
        "dds": dds(likelihood, math.inf),
    }


def _half(y):
    return GaussianLikelihood.create(Matrix(jnp.eye(8)[::2]), y, 0.3)


def _sampler(name):
    return ctm() if name == "ddrm" else ancestral()


@pytest.mark.parametrize(
    "name", ["pigdm", "mcg", "ddrm", "mbir", *_slow("diffpir", "song", "score_mri", "dds")]
)
def test_samples_are_independent_and_a_new_measurement_does_not_recompile(name):
    """A draw does not see its neighbours in the batch; one program serves every y."""
    traces = []

    def denoise(x, t, cond):
        traces.append(1)
        return x / (1 + t**2)

    @jax.jit
    def run(x_init, y):
        guidance = _table(_half(y))[name]
        return sample(
            jax.random.key(0), _sampler(name), denoise, EDM(), karras(3), x_init=x_init, guidance=guidance
        )

    start, y = 80 * jax.random.normal(jax.random.key(1), (3, 8)), jnp.linspace(-1, 1, 4)
    batch = run(start, y)
    count = len(traces)
    np.testing.assert_array_equal(run(start.at[1:].multiply(1.7), y)[0], batch[0])
    assert float(jnp.max(jnp.abs(run(start, y + 1) - batch))) > 0.1
    assert len(traces) == count


@pytest.mark.parametrize("name", ["mcg", "song", "ddrm"])
def test_finite_d_refuses_partly_fresh_noise(name):
    guidance = _table(_half(jnp.ones(4)))[name]
    with pytest.raises(ValueError, match=r"heun\(\)"):
        _apply(guidance, _nonlinear, PFGMpp(8.0), jnp.ones(8), 0.5, 0.3 if name == "ddrm" else None)


@pytest.mark.parametrize("name", ["pigdm", "diffpir", "score_mri", "mbir", "dds"])
def test_finite_d_allows_the_others(name):
    found = _apply(_table(_half(jnp.ones(4)))[name], _nonlinear, PFGMpp(8.0), jnp.ones(8), 0.5)
    plain = lift(PFGMpp(8.0), _nonlinear).apply(None, jnp.ones(8), jnp.asarray(0.5), ())[0]
    assert float(jnp.max(jnp.abs(found.x0 - plain.x0))) > 1e-3 and np.isfinite(found.noise).all()


def _emission():
    return PoissonEmission.create(Matrix(jnp.ones((2, 2))), jnp.ones(2), jnp.ones(2))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: mcg(_emission()), "mcg needs one GaussianLikelihood"),
        (lambda: score_mri(_half(jnp.ones(4)).replace(weights=jnp.ones(4))), "ignore the weights"),
        (lambda: ddrm(_half(jnp.ones(4)) + _half(jnp.ones(4))), "got JointLikelihood"),
        (lambda: mbir(_half(jnp.ones(4)).replace(noise_std=0.0)), "divides by the noise level"),
        (
            lambda: dps(_half(jnp.ones(4)).replace(noise_std=0.0), normalise=False),
            "divides by the noise level",
        ),
        (lambda: mbir(_half(jnp.ones(4)), rho=0.0), "rho > 0"),
        (lambda: diffpir(_half(jnp.ones(4)), 0.0), "strength > 0"),
        (lambda: spectral(inpainting(1, (70, 70)) @ inpainting(1, (70, 70))), "too large"),
        (lambda: _apply(pigdm(_emission()), _nonlinear, EDM(), jnp.ones(2), 0.5), "covariance solve"),
        (lambda: _apply(ddrm(_half(jnp.ones(4))), _nonlinear, EDM(), jnp.ones(8), 0.5), r"use ctm\(\)"),
        (
            lambda: _apply(
                song(lambda x: x, lambda v: v, 1, jnp.ones(4)), _nonlinear, EDM(), jnp.ones(8), 0.5
            ),
            "y has shape",
        ),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()

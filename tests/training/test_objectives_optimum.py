"""The optimum of the denoising objectives on exact priors: floors in closed form, gradients that vanish."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.flatten_util import ravel_pytree
from objective_toys import exact, linear, mean_and_error
from tables import rest_slow

from pgm_jax.core import Network
from pgm_jax.priors import EmpiricalPrior, GaussianPrior
from pgm_jax.processes import (
    EDM,
    PFGM,
    VP,
    Bridge,
    FlowMatching,
    PFGMpp,
    poisson_field,
    precondition,
    predict_x0,
)
from pgm_jax.training.objectives import (
    denoising,
    field_denoiser,
    init_uncertainty,
    learned_uncertainty,
    levels,
    pfgm_field,
    sample_losses,
    stable_target,
    uncertainty,
    weighting,
)

MEAN, COV = np.array([0.4, -0.2]), np.array([[0.5, 0.3], [0.3, 0.4]])
PRIOR = GaussianPrior(jnp.asarray(MEAN, jnp.float32), jnp.asarray(COV, jnp.float32))
POINTS = jnp.array([[1.0, 0.0], [-1.0, 0.2], [0.3, -0.8]])
CASES = {
    "EDM": (EDM(), levels.lognormal(-0.5, 1.2), weighting.edm(0.5)),
    "VP": (VP(), levels.uniform(0.0, 1.0), weighting.simple),
    "FlowMatching": (FlowMatching(), levels.uniform(0.0, 1.0), weighting.min_snr()),
}
EACH = pytest.mark.parametrize("case", rest_slow(CASES.values(), keep=1, ids=CASES))


def _gaussian_batch(count, seed=0):
    return {"x0": jax.vmap(PRIOR.sample)(jax.random.split(jax.random.key(seed), count))}


def _posterior_cov(alpha, sigma):
    """Covariance of x0 given alpha x0 + sigma n; shape (..., 2, 2)."""
    eye = np.eye(2)
    return np.linalg.inv(np.linalg.inv(COV) + (alpha / sigma)[..., None, None] ** 2 * eye)


@EACH
def test_exact_denoiser_reaches_the_floor(case):
    process, given, weight = case
    # The expected loss at t is w(t) tr Cov(x0 | x_t) / N, which for Gaussian data does not depend on x_t.
    batch = _gaussian_batch(20_000)
    network = exact(PRIOR.denoiser(process))
    losses, level = jax.jit(sample_losses(process, network, predict_x0, given, weight))(
        (), batch, jax.random.key(1)
    )
    ratio = np.asarray(level, np.float64)
    w = np.asarray(jax.vmap(lambda r: weight(EDM(), r))(level), np.float64)
    floor = w * np.trace(_posterior_cov(np.ones_like(ratio), ratio), axis1=1, axis2=2) / 2
    gap, error = mean_and_error(losses - floor)
    assert abs(gap) < 4 * error and error < 0.02 * np.mean(floor)


@EACH
def test_linear_network_reaches_the_floor_and_its_gradient_vanishes(case):
    process, _, weight = case
    t = float(process.time(0.8))
    network, one = linear(2), levels.discrete([t])
    objective = denoising(process, network, precondition.edm(0.7), one, weight)
    start, unravel = ravel_pytree(network.init())

    @jax.jit
    def newton(flat, batch, key):
        # The loss is quadratic in the parameters: one step is its minimiser.
        loss = lambda flat: objective(unravel(flat), (), batch, key)[0]
        return flat - jnp.linalg.solve(jax.hessian(loss)(flat), jax.grad(loss)(flat))

    batch = _gaussian_batch(50_000)
    best = unravel(newton(start, batch, jax.random.key(2)))
    # The denoiser in closed form, K x + k, through the preconditioning.
    alpha, sigma = float(process.alpha(t)), float(process.sigma(t))
    gain = alpha * COV @ np.linalg.inv(alpha**2 * COV + sigma**2 * np.eye(2))
    c = precondition.edm(0.7)(process, t)
    known = {
        "w": jnp.asarray((gain - float(c.c_skip) * np.eye(2)) / float(c.c_out * c.c_in), jnp.float32),
        "b": jnp.asarray((MEAN - alpha * gain @ MEAN) / float(c.c_out), jnp.float32)[None],
    }
    np.testing.assert_allclose(best["w"], known["w"], atol=0.02)
    np.testing.assert_allclose(best["b"], known["b"], atol=0.02)

    losses = jax.jit(sample_losses(process, network, precondition.edm(0.7), one, weight))
    floor = float(weight(process, t)) * np.trace(_posterior_cov(np.float64(alpha), np.float64(sigma))) / 2
    held_out = _gaussian_batch(50_000, seed=1)
    for params in (best, known):
        mean, error = mean_and_error(losses(params, held_out, jax.random.key(3))[0])
        assert abs(mean - floor) < 4 * error and error < 0.01 * floor
    # Every component of the gradient at the closed form is 0 within its error over 50 batches.
    parts = jax.tree.map(lambda leaf: leaf.reshape(50, 1000, 2), held_out)
    gradient = jax.jit(
        jax.vmap(lambda part, key: ravel_pytree(jax.grad(lambda p: objective(p, (), part, key)[0])(known))[0])
    )(parts, jax.random.split(jax.random.key(4), 50))
    score = jnp.mean(gradient, axis=0) / (jnp.std(gradient, axis=0) / math.sqrt(50))
    assert jnp.max(jnp.abs(score)) < 4.5


def _student_floor(df, std, sigma):
    """E Var(x0 | x) for N(0, std^2) data under t_df noise in one dimension, by quadrature over v and x."""
    # x = sigma sqrt(v) z + x0, 1 / v ~ Gamma(df / 2, rate df / 2): a mixture of Gaussians over v.
    quantiles = (np.arange(4000) + 0.5) / 4000
    v = 1 / scipy.stats.gamma(df / 2, scale=2 / df).ppf(quantiles)
    x = np.sinh(np.linspace(-12, 12, 6001))
    variance = std**2 + sigma**2 * v[:, None]
    density = np.exp(-0.5 * x**2 / variance) / np.sqrt(2 * np.pi * variance)
    p = density.mean(0)
    mean = (density * std**2 * x / variance).mean(0) / np.where(p > 0, p, 1)
    # E x0^2 less the mean square of the posterior mean.
    return std**2 - np.trapezoid(p * mean**2, x)


@pytest.mark.parametrize("df", rest_slow([3, 1]))
def test_exact_denoiser_reaches_the_floor_at_finite_D(df):
    std, sigma = 0.6, 0.5
    prior = GaussianPrior(jnp.zeros(1), jnp.full((1, 1), std**2))
    batch = {"x0": jax.vmap(prior.sample)(jax.random.split(jax.random.key(0), 6000))}
    network = exact(prior.denoiser(PFGMpp(df)))
    losses, _ = jax.jit(
        sample_losses(PFGMpp(df), network, predict_x0, levels.discrete([sigma]), weighting.x0)
    )((), batch, jax.random.key(1))
    mean, error = mean_and_error(losses)
    assert abs(mean - _student_floor(df, std, sigma)) < 4 * error


def test_bridge_reaches_its_floor():
    # x1 = x0 + .5 n: the posterior given (x_t, x1) has precision 1 / S + 1 / .25 + (alpha / sigma)^2.
    process, t, std, blur = Bridge(1.0), 0.4, 0.6, 0.5
    alpha, beta, sigma = (float(f(t)) for f in (process.alpha, process.beta, process.sigma))
    precision = 1 / std**2 + 1 / blur**2 + (alpha / sigma) ** 2

    def apply(params, x, t, cond=None, *, key=None, train=False):
        rest = x - beta * cond["image"]
        return (cond["image"] / blur**2 + rest * alpha / sigma**2) / precision

    x0 = std * jax.random.normal(jax.random.key(0), (20_000, 1))
    x1 = x0 + blur * jax.random.normal(jax.random.key(1), x0.shape)
    objective = sample_losses(process, Network(None, apply), predict_x0, levels.discrete([t]), weighting.x0)
    losses, _ = jax.jit(objective)((), {"x0": x0, "x1": x1, "cond": {"image": x1}}, jax.random.key(2))
    mean, error = mean_and_error(losses)
    assert abs(mean - 1 / precision) < 4 * error


@pytest.mark.parametrize("process", rest_slow([PFGMpp(3), EDM(), VP()], ids=["PFGMpp3", "EDM", "VP"]))
def test_stable_target_of_all_data_is_the_exact_denoiser(process):
    # With the whole data set as reference the target is a function of x_t: the floor is 0, not the variance.
    network, batch = exact(EmpiricalPrior(POINTS).denoiser(process)), {"x0": jnp.tile(POINTS, (60, 1))}
    given = levels.discrete([float(process.time(r)) for r in (0.1, 0.5, 2.0)])
    run = lambda objective: float(jax.jit(objective)((), (), batch, jax.random.key(0))[0])
    stable = run(stable_target(process, network, predict_x0, given, 90, weighting.simple, chunk=50))
    assert stable < 1e-9 < 1e-2 < run(denoising(process, network, predict_x0, given, weighting.simple))
    # At vanishing noise the target is the image itself, for any weight.
    tiny = levels.discrete([0.0])
    network = Network(None, lambda params, x, t, cond=None, **_: params * x)
    objective = stable_target(process, network, precondition.edm(0.7), tiny, 90, weighting.edm(0.7))
    (loss, _), slope = jax.jit(jax.value_and_grad(objective, has_aux=True))(1.0, (), batch, jax.random.key(0))
    assert np.isfinite(loss) and np.isfinite(slope)


def _field_network(denoise, extra):
    def apply(params, x, t, cond=None, *, key=None, train=False):
        # predict_x0 leaves x as it is and tells z.
        v_x, v_z = jax.vmap(lambda x, z: poisson_field(x, z, denoise(x, z)))(x, t)
        return jnp.concatenate([v_x, (params * v_z)[:, None]], axis=-1)

    return Network(lambda key, *_: extra, apply)


def test_field_of_all_data_is_the_optimum_and_samples_as_its_denoiser():
    denoise = EmpiricalPrior(POINTS).denoiser(PFGM())
    network = _field_network(denoise, 1.0)
    objective = pfgm_field(network, predict_x0, 90, M=200, restrict_M=True, chunk=50)
    batch = {"x0": jnp.tile(POINTS, (60, 1))}
    (loss, (_, metrics)), slope = jax.jit(jax.value_and_grad(objective, has_aux=True))(
        1.0, (), batch, jax.random.key(0)
    )
    assert float(loss) < 1e-8 and abs(float(slope)) < 1e-4
    assert float(jax.jit(objective)(0.5, (), batch, jax.random.key(0))[0]) > 1e-3
    # A part of the data gives a biased field.
    part = {"x0": batch["x0"].at[1:].set(POINTS[0])}
    assert float(jax.jit(objective)(1.0, (), part, jax.random.key(0))[0]) > 1e-3
    assert metrics["worst_level"] > 0
    back = field_denoiser(network, 1.0, predict_x0)
    x = jnp.array([0.5, 0.3])
    np.testing.assert_allclose(back(x, jnp.float32(9.0)), denoise(x, jnp.float32(9.0)), atol=1e-4)


def test_field_network_without_the_extra_channel_is_refused():
    network = Network(None, lambda params, x, t, cond=None, **_: x)
    with pytest.raises(ValueError, match="one channel more"):
        pfgm_field(network, predict_x0, 2)((), (), {"x0": POINTS}, jax.random.key(0))
    with pytest.raises(ValueError, match="from 1 to 3"):
        pfgm_field(network, predict_x0, 4)((), (), {"x0": POINTS}, jax.random.key(0))
    with pytest.raises(ValueError, match="conditional"):
        stable_target(EDM(), network, predict_x0, levels.lognormal(), 2)(
            (), (), {"x0": POINTS, "cond": {"image": POINTS}}, jax.random.key(0)
        )


def test_learned_uncertainty_is_the_log_of_the_expected_loss():
    # A bad denoiser, so that the loss of a level is far from 1; two levels, u free on each.
    process, ratios = EDM(), (0.3, 3.0)
    network = exact(lambda x, t: 0.2 * x)
    objective = learned_uncertainty(process, network, predict_x0, levels.discrete(ratios), weighting.edm(0.5))
    params = {"network": (), "uncertainty": init_uncertainty(16)}
    batch, key = _gaussian_batch(1000), jax.random.key(1)
    start, (_, metrics) = objective(params, (), batch, key)
    np.testing.assert_allclose(start, metrics["weighted_loss"], rtol=1e-6)

    def descend(p, _):
        gradient = jax.grad(lambda u: objective(params | {"uncertainty": u}, (), batch, key)[0])(p)
        return jax.tree.map(lambda a, g: a - 0.4 * g, p, gradient), None

    best = jax.jit(lambda p: jax.lax.scan(descend, p, length=150)[0])(params["uncertainty"])
    losses = sample_losses(process, network, predict_x0, levels.discrete(ratios), weighting.edm(0.5))
    weighted, level = jax.jit(losses)((), batch, key)
    for ratio in ratios:
        expected = jnp.log(jnp.mean(weighted[jnp.abs(level - ratio) < 1e-3]))
        np.testing.assert_allclose(uncertainty(best, jnp.float32(ratio)), expected, atol=2e-3)
    # The value there: the mean over samples of 1 + u.
    value = objective(params | {"uncertainty": best}, (), batch, key)[0]
    u = jax.vmap(functools.partial(uncertainty, best))(level)
    np.testing.assert_allclose(value, 1 + jnp.mean(u), atol=1e-3)

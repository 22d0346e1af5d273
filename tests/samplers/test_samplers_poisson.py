"""Samplers at finite D against exact flow maps: point masses, quantiles, radii, sample laws (O9 to O11)."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from oracles.closed_forms import ATOMS, WEIGHTS, quantile_flow
from oracles.moments import Moments

from pgm_jax.priors import EmpiricalPrior, GaussianPrior
from pgm_jax.processes import EDM, VP, FlowMatching, PFGMpp
from pgm_jax.processes.grid import karras
from pgm_jax.samplers import adaptive, ddim, dpmpp_1s, dpmpp_2m, dpmpp_2s, euler, heun, sample, sample_one

SOLVERS = {
    "ddim": ddim(),
    "euler": euler(),
    "heun": heun(),
    "1s": dpmpp_1s(),
    "2m": dpmpp_2m(),
    "2s": dpmpp_2s(),
}


@pytest.mark.parametrize("solver", SOLVERS)
def test_point_mass_in_one_step(x64, solver):
    """O9: one point, so one step is exact: `x_s = alpha_s c + sigma_s / sigma_t (x_t - alpha_t c)`."""
    centre, x = jnp.array([0.3, -1.1]), jnp.array([2.0, 0.4])
    for process, t, s in (
        (EDM(), 3.0, 0.2),
        (PFGMpp(4.0), 3.0, 0.2),
        (VP(), 0.8, 0.3),
        (FlowMatching(), 0.8, 0.1),
        (EDM(), 3.0, 0.0),
    ):
        found = sample_one(jax.random.key(0), SOLVERS[solver], lambda *_: centre, process, [t, s], x_init=x)
        alpha, sigma = process.alpha, process.sigma
        exact = alpha(s) * centre + sigma(s) / sigma(t) * (x - alpha(t) * centre)
        np.testing.assert_allclose(found, exact, rtol=1e-13, atol=1e-15)


def _atoms(process):
    return EmpiricalPrior(jnp.asarray(ATOMS)[:, None], jnp.asarray(WEIGHTS)).denoiser(process)


QUANTILES = {
    0.5: 0.6089119184,
    1.0: 0.5959537570,
    2.0: 0.5917718319,
    16.0: 0.5855474084,
    math.inf: 0.5817129651,
}


@pytest.mark.parametrize("df", QUANTILES)
def test_quantile_flow(x64, df):
    """O10 and row 1: the flow in one dimension keeps the quantile, at every D; Heun is second order."""
    exact = quantile_flow(df, 2.3, 5.0, 0.3)
    assert exact == pytest.approx(QUANTILES[df], abs=6e-11)
    solver = Moments(heun(), _atoms(PFGMpp(df)), PFGMpp(df))
    grid = lambda n: np.geomspace(5.0, 0.3, n + 1)
    errors = [abs(float(solver.path(grid(n), jnp.array([2.3]))[0]) - exact) for n in (100, 200)]
    assert 8e-6 < errors[1] < 1.05e-5
    assert 3.98 < errors[0] / errors[1] < 4.13


@pytest.mark.parametrize("method", ["euler", "2m", "2s"])
def test_quantile_flow_of_other_solvers(x64, method):
    process = PFGMpp(2.0)
    solver = Moments(SOLVERS[method], _atoms(process), process)
    errors = []
    for n in (200, 400):
        x = solver.path(karras(n + 1, 0.3, 5.0)[:-1], jnp.array([2.3]))
        errors.append(abs(float(x[0]) - QUANTILES[2.0]))
    order = 1 if method == "euler" else 2
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.1)
    assert errors[1] < {1: 4e-3, 2: 4e-5}[order]


@pytest.mark.parametrize("df", [1.0] + [pytest.param(df, marks=pytest.mark.slow) for df in (0.5, 2.0)])
def test_adaptive_step(x64, df):
    """Row 14: one adaptive step meets the exact flow to 2e-9 at tolerance 1e-9."""
    pytest.importorskip("diffrax")
    process = PFGMpp(df)
    sampler = adaptive(rtol=1e-9, atol=1e-9)
    x = sample_one(jax.random.key(0), sampler, _atoms(process), process, [5.0, 0.3], x_init=jnp.array([2.3]))
    assert float(x[0]) == pytest.approx(QUANTILES[df], abs=2e-9)


@pytest.mark.slow
@pytest.mark.parametrize("df", [16.0, math.inf])
def test_adaptive_step_at_large_d(x64, df):
    """The contracts' own adaptive Heun met its cap of 20000 inner steps here; Tsit5 does not."""
    pytest.importorskip("diffrax")
    process = PFGMpp(df)
    sampler = adaptive(rtol=1e-9, atol=1e-9)
    x = sample_one(jax.random.key(0), sampler, _atoms(process), process, [5.0, 0.3], x_init=jnp.array([2.3]))
    assert float(x[0]) == pytest.approx(QUANTILES[df], abs=2e-9)


def test_adaptive_fails_loudly_and_refuses_carried_state(x64):
    pytest.importorskip("diffrax")
    process = PFGMpp(2.0)
    run = lambda **options: sample_one(
        jax.random.key(0),
        adaptive(rtol=1e-12, atol=1e-12, max_steps=options.pop("max_steps", 4096)),
        _atoms(process),
        process,
        [5.0, 0.3],
        x_init=jnp.array([2.3]),
        **options,
    )
    with pytest.raises(Exception, match="max"):
        jax.block_until_ready(run(max_steps=3))

    def counting(inner):
        return inner._replace(init=lambda x: jnp.zeros(()))

    with pytest.raises(ValueError, match="heun"):
        run(guidance=counting)


RADII = {(16, 4): 2.11896309, (16, 64): 2.49306453, (2, 2): 0.70408208, (64, 8): 4.25657849}


def _check_radius(size, df, steps, limit):
    process = PFGMpp(float(df))
    prior = GaussianPrior(jnp.zeros(size), 0.25 * jnp.eye(size))
    solver = Moments(heun(), prior.denoiser(process), process)
    direction = jnp.cos(jnp.arange(size) + 0.3)
    x = 13 * math.sqrt(size) * direction / jnp.linalg.norm(direction)
    end = solver.path(karras(steps + 1, 0.01, 10.0)[:-1], x)
    radius = float(jnp.linalg.norm(end))
    assert radius == pytest.approx(RADII[size, df], rel=limit)
    # The flow is radial: the direction stays.
    np.testing.assert_allclose(end / radius, x / jnp.linalg.norm(x), atol=1e-10)


@pytest.mark.parametrize("size, df", [(16, 4)])
def test_radial_flow(x64, size, df):
    """O11: on isotropic Gaussian data the flow keeps the cdf of the radius; it is not the linear one."""
    _check_radius(size, df, 128, 7e-4)


@pytest.mark.slow
@pytest.mark.parametrize("size, df", RADII)
def test_radial_flow_512_steps(x64, size, df):
    """Row 1: relative errors of 2e-5 to 4e-5."""
    _check_radius(size, df, 512, 5e-5)


@functools.partial(jax.jit, static_argnums=2)
def _gaussian_samples(key, process, count):
    prior = GaussianPrior(jnp.zeros(8), 0.25 * jnp.eye(8))
    return sample(key, heun(), prior.denoiser(process), process, karras(40), shape=(count, 8))


def _check_samples(key, df, count):
    """Row 1: samples of N(0, .25 I_8): their std, and their radius by KS against chi."""
    x = np.asarray(_gaussian_samples(key, PFGMpp(df), count), np.float64)
    # Heun with 40 steps has a std too large by 0.98 % at D = inf (O15).
    scale = 0.5 * 1.0098
    assert x.std() == pytest.approx(
        scale, abs=5 * scale / math.sqrt(2 * 8 * count) + (0.012 if df < 100 else 0)
    )
    assert scipy.stats.kstest(np.sum((x / scale) ** 2, axis=1), scipy.stats.chi2(8).cdf).pvalue > 1e-3
    assert scipy.stats.kstest(x[:, 0] / scale, scipy.stats.norm.cdf).pvalue > 1e-3


@pytest.mark.parametrize("df", [8.0])
def test_samples_of_gaussian_data(key, df):
    _check_samples(key, df, 500)


@pytest.mark.slow
@pytest.mark.parametrize("df", [1.0, 8.0, 128.0, math.inf])
def test_2000_samples_of_gaussian_data(key, df):
    _check_samples(key, df, 2000)


def test_huge_d_is_the_normal_path(x64):
    """Given the same noise, D = 1e8 moves the state as the Normal law does."""
    prior = GaussianPrior(jnp.array([0.3, -0.2]), jnp.array([[0.5, 0.2], [0.2, 0.4]]))
    x = 5 * jnp.array([0.6, -1.3])
    ends = [
        Moments(heun(), prior.denoiser(p), p).path(karras(20, 0.01, 5.0), x) for p in (PFGMpp(1e8), EDM())
    ]
    np.testing.assert_allclose(*ends, rtol=2e-7)
    far = Moments(heun(), prior.denoiser(PFGMpp(8.0)), PFGMpp(8.0)).path(karras(20, 0.01, 5.0), x)
    assert np.max(np.abs(far - ends[1])) > 1e-2

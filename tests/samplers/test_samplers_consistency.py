"""Consistency and CTM on Gaussian data, by exact propagation (O21, O23), and log likelihoods (O12)."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles.closed_forms import ATOMS, WEIGHTS, linear_denoiser
from oracles.moments import Moments, variance

from pgm_jax.priors import EmpiricalPrior, GaussianPrior, MixturePrior
from pgm_jax.processes import EDM, VP, PFGMpp
from pgm_jax.processes.grid import karras
from pgm_jax.samplers import consistency, ctm, heun, log_likelihood, sample_one

STD, T_MIN = 0.5, 0.002
BOUNDARY = STD**2 + T_MIN**2


def _consistency(x_t, t, cond=None):
    """The exact consistency function of N(0, s^2) with its boundary at t_min."""
    return jnp.sqrt(BOUNDARY / (STD**2 + t**2)) * x_t


@pytest.mark.parametrize("knots", [(), (0.8,), (20.0, 0.8, 0.1)])
def test_multistep_consistency_keeps_the_boundary_law(x64, knots):
    """O21: re-noising from t_min gives .250004 exactly; re-noising from 0 has the ECT-style excess."""
    start = STD**2 + 80.0**2
    exact = variance(Moments(consistency(T_MIN), _consistency, EDM()), [80.0, *knots, T_MIN], start)
    assert exact == pytest.approx(0.250004, rel=1e-12)
    found = variance(Moments(consistency(), _consistency, EDM()), [80.0, *knots, 0.0], start)
    expected = BOUNDARY
    for knot in knots:
        expected = BOUNDARY * (expected + knot**2) / (STD**2 + knot**2)
    assert found == pytest.approx(expected, rel=1e-12)
    if knots:
        excess = (BOUNDARY + knots[-1] ** 2) / (STD**2 + knots[-1] ** 2) * BOUNDARY
        assert found == pytest.approx(excess, rel=3e-5) and found > 0.250004 * (1 + 1e-7)


def test_consistency_function_is_constant_along_heun_paths(x64):
    """O21: f is the same at both ends of an ODE path."""
    x = jnp.array([40.0])
    end = Moments(heun(), linear_denoiser(EDM(), STD), EDM()).path(karras(400, T_MIN)[:-1], x)
    assert float(_consistency(end, T_MIN)[0]) == pytest.approx(float(_consistency(x, 80.0)[0]), rel=2e-4)


def _jump(x_t, t, cond, s):
    """`g` of the exact jump G = x sqrt((s^2 + u^2) / (s^2 + t^2)): `mix(g, u) = G` (O23)."""
    target = x_t * jnp.sqrt((STD**2 + s**2) / (STD**2 + t**2))
    return (target - s / t * x_t) / (1 - s / t)


def test_ctm_jump(x64):
    """O23: the jump lands on the ODE's solution, at any target."""
    assert float(_jump(jnp.ones(1), 2.0, None, 0.002)[0]) == pytest.approx(0.24177935, abs=6e-9)
    assert float(_jump(jnp.ones(1), 2.0, None, 1.0)[0]) == pytest.approx(0.08465229, abs=6e-9)
    for end in (0.002, 1.0, 1.9):
        x = sample_one(jax.random.key(0), ctm(), _jump, EDM(), [2.0, end], x_init=jnp.ones(1))
        assert float(x[0]) == pytest.approx(math.sqrt((0.25 + end**2) / 4.25), rel=1e-15)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 0.7, 1.0])
def test_ctm_gamma_sampling_variance(x64, gamma):
    """O23 and row 9: the variance is .250004 for every gamma, exactly."""
    found = variance(Moments(ctm(gamma), _jump, EDM()), [80.0, 5.0, 0.8, T_MIN], STD**2 + 80.0**2)
    assert found == pytest.approx(0.250004, rel=1e-12)


def test_ctm_gamma_one_is_multistep_consistency(x64):
    """Gamma 1 jumps to the clean image and renoises: on the same draws, the consistency sampler."""
    to_zero = lambda x_t, t, cond=None, s=0.0: _jump(x_t, t, cond, 0.0)
    for end in (0.4, 0.0):
        grid, start = [5.0, 1.0, end], STD**2 + 25.0
        a = variance(Moments(ctm(1.0), to_zero, EDM()), grid, start)
        b = variance(Moments(consistency(), to_zero, EDM()), grid, start)
        assert a == pytest.approx(b, rel=1e-13)


def test_ctm_on_vp_keeps_the_marginals(x64):
    process = VP()

    def jump(x_t, t, cond, s):
        scale = lambda u: jnp.sqrt(process.alpha(u) ** 2 * STD**2 + process.sigma(u) ** 2)
        target = x_t * scale(s) / scale(t)
        ratio = process.sigma(s) / process.sigma(t)
        return (target - ratio * x_t) / (process.alpha(s) - ratio * process.alpha(t))

    marginal = lambda t: float(process.alpha(t)) ** 2 * STD**2 + float(process.sigma(t)) ** 2
    found = variance(Moments(ctm(0.6), jump, process), [0.9, 0.5, 0.2], marginal(0.9))
    assert found == pytest.approx(marginal(0.2), rel=1e-11)


def test_ctm_refuses_gamma_outside_the_unit_interval():
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        ctm(1.2)


# Log likelihoods (O12).


def test_log_likelihood_of_three_atoms(x64):
    """O12: D = 5, sigma .3 -> 50, x = .9: the exact density, and the size of the prior mismatch."""
    process = PFGMpp(5.0)
    prior = EmpiricalPrior(jnp.asarray(ATOMS)[:, None], jnp.asarray(WEIGHTS))
    x, times = jnp.array([0.9]), karras(401, 0.3, 50.0)[:-1][::-1]
    exact = float(prior.log_marginal(process, x, 0.3))
    assert exact == pytest.approx(-2.0036128141, abs=6e-11)
    bare = jax.jit(
        lambda x: log_likelihood(
            jax.random.key(0), prior.denoiser(process), process, x, times, divergence="exact"
        )
    )
    found = float(bare(x))
    assert found == pytest.approx(-2.0079, abs=5e-5)
    # With the mixture's own density at the last time the mismatch goes: reuse the ODE by Moments' path.
    truth_at_end = _end_density(prior, process, x, times)
    assert found + truth_at_end == pytest.approx(exact, abs=2e-8)


def _end_density(prior, process, x, times):
    """`log p_T(x(T)) - log prior(x(T))` at the end of the upward path, by its own Runge-Kutta."""
    velocity = lambda x, t: (x - prior.denoiser(process)(x, t)) / t

    @jax.jit
    def step(x, t, s):
        h = s - t
        a = velocity(x, t)
        b = velocity(x + 0.5 * h * a, t + 0.5 * h)
        c = velocity(x + 0.5 * h * b, t + 0.5 * h)
        d = velocity(x + h * c, s)
        return x + h / 6 * (a + 2 * b + 2 * c + d)

    for t, s in zip(times[:-1], times[1:], strict=True):
        x = step(x, t, s)
    return float(prior.log_marginal(process, x, times[-1]) - process.log_prior(x, times[-1]))


def _gaussian_likelihood(x, divergence, key=None, **options):
    process, times = EDM(), karras(401)[:-1][::-1]
    key = jax.random.key(0) if key is None else key
    run = lambda k, x: log_likelihood(
        k, linear_denoiser(process, STD), process, x, times, divergence=divergence, **options
    )
    return float(jax.jit(run)(key, x))


def test_log_likelihood_of_gaussian_data(x64):
    """O12: ln N(x; 0, s^2 + smin^2) up to the prior's mismatch; at x = 0 that is 1.953e-5 a dimension."""
    zero = jnp.zeros(3)
    exact = -1.5 * math.log(2 * math.pi * BOUNDARY)
    found = _gaussian_likelihood(zero, "exact")
    mismatch = 0.5 * math.log((STD**2 + 80.0**2) / 80.0**2)
    assert mismatch == pytest.approx(1.953e-5, rel=1e-3)
    assert found - exact == pytest.approx(3 * mismatch, abs=2e-7)
    x = jnp.array([0.4, -0.9, 0.1])
    shift = -0.5 * float(jnp.sum(x**2)) / BOUNDARY
    assert _gaussian_likelihood(x, "exact") == pytest.approx(exact + shift, abs=1e-4)


def test_hutchinson_has_no_variance_on_isotropic_data(x64):
    """O12: Rademacher probes are exact where the Jacobian is a multiple of the identity."""
    x = jnp.array([0.4, -0.9, 0.1])
    exact = _gaussian_likelihood(x, "exact")
    for seed in range(3):
        assert _gaussian_likelihood(x, "hutchinson", jax.random.key(seed)) == pytest.approx(exact, abs=1e-10)


def test_bits_per_dimension_of_8_bit_data(x64):
    """O12: s = .5, x = 0: 7.3257596 bits with the offset 7 of data scaled to [-1, 1]."""
    nats = _gaussian_likelihood(jnp.zeros(2), "exact", log_volume_per_dim=math.log(127.5))
    # References count 7 = log2(128) bits for the scaling, which is ln(127.5) to the last digit.
    bits = -nats / (2 * math.log(2)) + math.log2(128 / 127.5)
    assert bits == pytest.approx(7.3257596, abs=4e-5)


def test_log_likelihood_of_correlated_data_on_vp(x64):
    """A dense Gaussian through VP, and the unbiased probe estimate of its divergence."""
    process = VP()
    prior = GaussianPrior(jnp.zeros(2), jnp.array([[0.6, 0.3], [0.3, 0.4]]))
    x, times = jnp.array([0.1, 0.2]), np.linspace(0.002, 1.0, 301)
    run = jax.jit(
        lambda k: [
            log_likelihood(k, prior.denoiser(process), process, x, times, divergence=kind, probes=64)
            for kind in ("exact", "hutchinson")
        ]
    )
    exact, probed = (float(v) for v in run(jax.random.key(1)))
    assert exact == pytest.approx(float(prior.log_marginal(process, x, 0.002)), abs=2e-3)
    assert probed == pytest.approx(exact, abs=0.3) and probed != exact


def test_log_likelihood_refusals():
    run = lambda x, times, **options: log_likelihood(
        jax.random.key(0), linear_denoiser(EDM(), STD), EDM(), x, times, **options
    )
    with pytest.raises(ValueError, match="above 0"):
        run(jnp.zeros(2), karras(5))
    with pytest.raises(ValueError, match="two channels"):
        run(jnp.zeros(2, jnp.complex64), [0.1, 1.0])
    with pytest.raises(ValueError, match="hutchinson"):
        run(jnp.zeros(2), [0.1, 1.0], divergence="trace")


def test_mixture_likelihood_is_normalised(x64):
    """The density that the ODE reports integrates to one over a line."""
    prior = MixturePrior(jnp.array([0.4, 0.6]), jnp.array([[-1.0], [0.8]]), 0.09 * jnp.ones((2, 1, 1)))
    times = karras(61, 0.01, 60.0)[:-1][::-1]
    points = jnp.linspace(-3, 3, 121)[:, None]
    one = lambda x: log_likelihood(
        jax.random.key(0), prior.denoiser(EDM()), EDM(), x, times, divergence="exact"
    )
    density = np.exp(np.asarray(jax.jit(jax.vmap(one))(points)))
    assert np.trapezoid(density, dx=0.05) == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize(
    ("levels", "ratio"),
    [
        (2, 0.010250),
        (3, 0.195318),
        (11, 0.752777),
        (18, 0.846086),
        (40, 0.929727),
        (151, 0.981233),
        (1281, 0.997782),
    ],
)
def test_population_optimum_of_consistency_training(levels, ratio):
    """O22: on Gaussian data the optimum of consistency training is a product of regressions of x_u on x_t.

    The pair shares its clean image and its noise (review Eq. 22), so that Cov[x_u, x_t] = s^2 + u t on EDM.
    """
    process, s = EDM(), 0.5
    grid = karras(levels, sigma_min=0.002)[:-1]

    def covariance(t, u):
        signal = process.alpha(t) * process.alpha(u) * s**2
        return signal + process.sigma(t) * process.sigma(u)

    factor = np.prod([covariance(t, u) / covariance(t, t) for t, u in zip(grid[:-1], grid[1:], strict=True)])
    exact = math.sqrt((s**2 + 0.002**2) / (s**2 + 80.0**2))
    assert factor / exact == pytest.approx(ratio, abs=6e-7)

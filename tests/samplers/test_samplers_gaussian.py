"""Samplers on Gaussian data: closed recursions of the variance, orders of convergence (O15 to O20)."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles.closed_forms import churned_heun_variance, linear_denoiser
from oracles.moments import GivenNoise, Moments, variance

from pgm_jax.core import State, lift
from pgm_jax.processes import DDPM, EDM, VE, VP, FlowMatching, SubVP, Trigonometric
from pgm_jax.processes.grid import karras, linear, trailing
from pgm_jax.processes.regrid import churn
from pgm_jax.samplers import (
    ancestral,
    ddim,
    dpmpp_2m,
    dpmpp_2s,
    euler,
    euler_maruyama,
    heun,
    langevin,
    predictor_corrector,
    reverse_diffusion,
    sample_one,
)

EDM_TABLE = {
    5: (0.46726699, 2.51582175, 0.86532104),
    10: (0.73044040, 1.21961982, 1.15879595),
    18: (0.84607940, 1.05526988, 1.06230090),
    40: (0.92971971, 1.00977345, 1.01040458),
    80: (0.96465968, 1.00231020, 1.00237966),
    160: (0.98227796, 1.00055654, 1.00056461),
}
METHODS = {"euler": euler(), "heun": heun(), "2m": dpmpp_2m()}


def _run(sampler, process, grid, x, std, key=None):
    key = jax.random.key(0) if key is None else key
    draw = lambda k, x: sample_one(k, sampler, linear_denoiser(process, std), process, grid, x_init=x)
    return jax.jit(draw)(key, x)


def _check_edm_table(steps, method):
    exact = math.sqrt(0.25 / (0.25 + 80**2))
    x = _run(METHODS[method], EDM(), karras(steps), jnp.ones(1), 0.5)
    assert float(x[0]) / exact == pytest.approx(EDM_TABLE[steps][list(METHODS).index(method)], abs=6e-9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("steps", [5, 18, 40])
def test_edm_table(x64, steps, method):
    """O15 and row 1, through the driver: eight digits."""
    _check_edm_table(steps, method)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("steps", [10, 80, 160])
def test_edm_table_rest(x64, steps, method):
    _check_edm_table(steps, method)


def test_edm_heun_18_at_other_scales(x64):
    for std, ratio in ((1.0, 1.04481046), (0.1, 1.09017156)):
        x = _run(heun(), EDM(), karras(18), jnp.ones(1), std)
        assert float(x[0]) * math.sqrt(1 + (80 / std) ** 2) == pytest.approx(ratio, abs=6e-9)


ORDERS = {"euler": 1, "heun": 2, "2m": 2, "2s": 2}


@pytest.mark.parametrize("method", ORDERS)
def test_orders_of_convergence(x64, method):
    """Slopes of the error of the ODE solution, stopped at 0.002 (O15)."""
    process = EDM()
    solver = Moments({**METHODS, "2s": dpmpp_2s()}[method], linear_denoiser(process, 0.5), process)
    exact = math.sqrt((0.25 + 0.002**2) / (0.25 + 80**2))
    errors = [abs(float(solver.path(karras(n)[:-1], jnp.ones(1))[0]) / exact - 1) for n in (100, 200, 400)]
    slopes = np.log2(np.array(errors[:-1]) / errors[1:])
    low, high = {1: (0.985, 1.005), 2: (1.98, 2.07)}[ORDERS[method]]
    assert all(low < slope < high for slope in slopes), slopes


@pytest.mark.parametrize(
    "process", [VP(), SubVP(), FlowMatching(), VE(0.01, 50.0)], ids=["vp", "subvp", "flow", "ve"]
)
def test_heun_is_second_order_on_every_schedule(x64, process):
    grid = lambda n: np.linspace(0.9, 0.05, n + 1)
    solver = Moments(heun(), linear_denoiser(process, 0.5), process)
    scale = lambda t: math.sqrt(0.25 * float(process.alpha(t)) ** 2 + float(process.sigma(t)) ** 2)
    exact = scale(0.05) / scale(0.9)
    errors = [abs(float(solver.path(grid(n), jnp.ones(1))[0]) / exact - 1) for n in (80, 160)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.1)


DDIM_ANGLES = {
    1: 0.0,
    2: 0.5,
    5: 0.77809321,
    10: 0.88348518,
    50: 0.97562394,
    100: 0.98773828,
    1000: 0.99876706,
}


def test_ddim_in_even_angles(x64):
    """O16: on unit data every step multiplies by the cosine of its angle."""
    process = Trigonometric(1.0)
    solver = Moments(ddim(), linear_denoiser(process, 1.0), process)
    for steps, factor in DDIM_ANGLES.items():
        x = solver.path(linear(steps, t_max=math.pi / 2), jnp.ones(1))
        assert float(x[0]) == pytest.approx(factor, abs=6e-9)


@pytest.mark.parametrize("steps", [5, 50])
def test_ddim_on_vp_multiplies_cosines(x64, steps):
    """O16 on the VP process itself: the factor of a step is `alpha alpha' + sigma sigma'`."""
    process = VP()
    grid = np.append(process.time(np.tan(np.linspace(math.pi / 2, 0, steps + 1)[1:-1])), 0.0)
    grid = np.concatenate([[1.0], grid])
    angles = np.arctan2(np.asarray(process.sigma(grid)), np.asarray(process.alpha(grid)))
    x = _run(ddim(), process, grid, jnp.ones(1), 1.0)
    assert float(x[0]) == pytest.approx(np.prod(np.cos(np.diff(angles))), abs=1e-12)
    # The chain ends at an angle of pi/2 - 0.0066, not at a quarter turn.
    assert float(x[0]) == pytest.approx(DDIM_ANGLES[steps], abs=4e-3)


@pytest.mark.parametrize(
    "data_variance, small, large",
    [(1.0, 0.9910674, 0.9999), (0.25, 0.246125, 0.250752), (0.01, 0.009276, 0.010154)],
)
def test_ddpm_variances(x64, data_variance, small, large):
    """O17: the variance after 1000 ancestral steps of DDPM's linear chain, by exact propagation."""
    process, grid = DDPM(), trailing(1000)
    denoise = linear_denoiser(process, math.sqrt(data_variance))
    for name, expected in (("small", small), ("large", large)):
        found = variance(Moments(ancestral(name), denoise, process), grid, 1.0)
        assert found == pytest.approx(expected, abs=6e-8 if expected == 0.9910674 else 6e-7)


def test_large_variance_is_exact_for_unit_data(x64):
    """O17: at unit data the forward variance keeps the variance 1 at every step before the last."""
    process = DDPM()
    moments = Moments(ancestral("large"), linear_denoiser(process, 1.0), process)
    for end in (999, 500, 2, 1):
        assert variance(moments, np.arange(1000, end - 1, -1.0), 1.0) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("step", [0.1, 0.4])
def test_langevin_bias(x64, step):
    """O18: the stationary variance of `x + e score + sqrt(2 e) z` is s^2 / (1 - e / (2 s^2)), s = 1."""
    process = EDM()
    sampler = langevin(steps=1, step_size=step, sigma_last=0.8)
    moments = Moments(sampler, linear_denoiser(process, 0.6), process)
    found = variance(moments, np.full(301, 0.8), 0.3)
    assert found == pytest.approx(1 / (1 - step / 2), abs=1e-10)
    if step == 0.1:
        assert found == pytest.approx(1.0526315789, abs=1e-9)


def test_langevin_ends_with_the_denoised_image(x64, key):
    """The last step returns x + sigma^2 score, the posterior mean (foundations 2.2)."""
    process, x = EDM(), jnp.array([0.7])
    quiet = langevin(steps=1, step_size=0.0)
    assert float(_run(quiet, process, np.array([0.8, 0.0]), x, 0.5)[0]) == pytest.approx(
        0.7 * 0.25 / 0.89, rel=1e-12
    )
    np.testing.assert_array_equal(_run(quiet, process, np.array([0.8, 0.4]), x, 0.5), x)


@functools.cache
def _family(name, k):
    process = {"vp": VP(), "ve": VE(0.01, 5.0), "edm": EDM()}[name]
    return process, Moments(euler_maruyama(k), linear_denoiser(process, 0.5), process)


@pytest.mark.parametrize(
    "name, k",
    [("vp", 0.0), ("vp", 0.5), ("vp", 1.0), ("ve", 1.0), ("edm", 1.7)]
    + [pytest.param(name, k, marks=pytest.mark.slow) for name in ("ve", "edm") for k in (0.0, 0.5)],
)
def test_reverse_sde_family_shares_its_marginals(x64, name, k):
    """O19: every k ends at the marginal's variance, with an error of first order; the recursion is exact."""
    process, moments = _family(name, k)
    t0, t1 = (3.0, 0.5) if name == "edm" else (0.9, 0.3)
    marginal = lambda t: 0.25 * float(process.alpha(t)) ** 2 + float(process.sigma(t)) ** 2
    errors = []
    for steps in (150, 300):
        grid = np.linspace(t0, t1, steps + 1)
        found = variance(moments, grid, marginal(t0))
        errors.append(found / marginal(t1) - 1)
        expected = marginal(t0)
        for t, s, f, g2 in zip(
            grid[:-1], grid[1:], *(np.asarray(v) for v in process.sde(grid)), strict=False
        ):
            drift = f + 0.5 * (1 + k**2) * g2 / float(marginal(t))
            expected = (1 + (s - t) * drift) ** 2 * expected + k**2 * g2 * (t - s)
        assert found == pytest.approx(expected, rel=1e-10)
    # First order, unless the first-order terms of drift and spread nearly cancel.
    assert abs(errors[1]) < 5e-4 or (
        abs(errors[1]) < 0.03 and errors[0] / errors[1] == pytest.approx(2, abs=0.15)
    )


def test_sde_coefficients_of_vp_and_ve(x64):
    """f = -beta / 2, g^2 = beta on VP; f = 0, g^2 = (sigma^2)' on VE."""
    for t in (0.05, 0.5, 0.95):
        beta = 0.1 + 19.9 * t
        f, g2 = VP().sde(t)
        assert float(f) == pytest.approx(-beta / 2, rel=1e-11) and float(g2) == pytest.approx(beta, rel=1e-9)
        f, g2 = VE(0.01, 50.0).sde(t)
        assert float(f) == 0
        assert float(g2) == pytest.approx(0.01**2 * 5000 ** (2 * t) * 2 * math.log(5000), rel=1e-11)
        assert float(EDM().sde(t)[1]) == pytest.approx(2 * t)


def _marginal(process, t, std=0.5):
    return std**2 * float(process.alpha(t)) ** 2 + float(process.sigma(t)) ** 2


def test_reverse_diffusion_recursion(x64):
    """Song's predictor: `x_s = (2 - a) x_t + g^2 score + g z`."""
    for process in (VP(), VE(0.01, 5.0)):
        grid = np.linspace(0.9, 0.1, 51)
        marginal = functools.partial(_marginal, process)
        expected = marginal(0.9)
        for t, s in zip(grid[:-1], grid[1:], strict=True):
            a = float(process.alpha(t)) / float(process.alpha(s))
            g2 = float(process.sigma(t)) ** 2 - (a * float(process.sigma(s))) ** 2
            expected = (2 - a - g2 / marginal(t)) ** 2 * expected + g2
        found = variance(
            Moments(reverse_diffusion(), linear_denoiser(process, 0.5), process), grid, marginal(0.9)
        )
        assert found == pytest.approx(expected, rel=1e-10)
        # On N(0, s^2) the mean of VE's step is the posterior's, so only the variance has an error.
        assert found == pytest.approx(marginal(0.1), rel=0.25)


def test_predictor_corrector_by_hand(x64):
    """Corrector, then predictor, with norms over one sample (Song et al. 2021, Algorithms 2 and 3)."""
    t, s, snr = 0.7, 0.6, 0.16
    x, z = jnp.array([1.1, -0.4, 0.3]), jnp.array([[0.5, 1.3, -0.8], [-1.0, 0.2, 0.6]])
    process = VP()
    forced = process.replace(law=GivenNoise(z, []))
    estimator = lift(forced, linear_denoiser(forced, 0.5))
    estimate = lambda key, x_t, t, guidance, s=None: estimator.apply(key, x_t, t, guidance)
    found = predictor_corrector(snr=snr).step(jax.random.key(0), forced, estimate, State(x, (), ()), t, s).x
    alpha, sigma = float(process.alpha(t)), float(process.sigma(t))
    score = lambda x: -np.asarray(x) / (0.25 * alpha**2 + sigma**2)
    x, z = np.asarray(x), np.asarray(z)
    a = alpha / float(process.alpha(s))
    e = 2 * a**2 * (snr * np.linalg.norm(z[0]) / np.linalg.norm(score(x))) ** 2
    x = x + e * score(x) + math.sqrt(2 * e) * z[0]
    g2 = sigma**2 - (a * float(process.sigma(s))) ** 2
    np.testing.assert_allclose(found, (2 - a) * x + g2 * score(x) + math.sqrt(g2) * z[1], rtol=1e-11)


def test_churn_as_a_grid_is_edm_stochastic_sampler(x64):
    """O20 and row 4: Heun with gamma churn, n = 64, S = 20: final std .5082 by EDM's recursion."""
    process, grid = EDM(), karras(64)
    gamma = min(20 / 64, math.sqrt(2) - 1)
    moments = Moments(heun(), linear_denoiser(process, 0.5), process)
    found = variance(moments, churn(grid, 20.0), 80.0**2)
    assert found == pytest.approx(churned_heun_variance(0.5, grid, gamma, 80.0**2), rel=1e-10)
    assert math.sqrt(found) == pytest.approx(0.5082, abs=6e-5)


def test_churn_keeps_the_marginals_in_the_limit(x64):
    """O20: S_noise = 1 preserves the marginals as the steps shrink; the error is of second order."""
    process = EDM()
    moments = Moments(heun(), linear_denoiser(process, 0.5), process)
    start = 0.25 + 80.0**2
    errors = [variance(moments, churn(karras(n), 20.0), start) / 0.25 - 1 for n in (64, 128, 256)]
    assert abs(errors[-1]) < 2.5e-3 and errors[0] > errors[1] > errors[2] > 0


def test_heun_native_and_edm_frame_on_vp(x64):
    """Row 1: Heun in the coefficients of VP against Heun in EDM's frame, on the same 40 levels."""
    process, std = VP(), 0.5
    top = float(process.ratio(1.0)) * (1 - 1e-9)
    times = karras(40, sigma_max=top, process=process)
    alpha, sigma = float(process.alpha(times[0])), float(process.sigma(times[0]))
    native = Moments(heun(), linear_denoiser(process, std), process).path(times, jnp.ones(1))
    frame = Moments(heun(), linear_denoiser(EDM(), std), EDM()).path(
        karras(40, sigma_max=top), jnp.ones(1) / alpha
    )
    exact = std / math.hypot(std * alpha, sigma)
    errors = [float(x[0]) / exact - 1 for x in (native, frame)]
    assert errors == [pytest.approx(5.325e-3, abs=2e-6), pytest.approx(1.2420e-2, abs=2e-6)]

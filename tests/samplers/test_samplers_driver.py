"""The driver and what samplers share: structural identities, commits, voxel-wise time, hijack, refusals."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles.closed_forms import linear_denoiser
from oracles.moments import Moments

from pgm_jax.core import Estimator, prior_key, sample_key, step_key
from pgm_jax.guidance import blend
from pgm_jax.priors import MixturePrior
from pgm_jax.processes import DDPM, EDM, VP, FlowMatching, PFGMpp
from pgm_jax.processes.categorical import Absorbing, Bernoulli, Categorical
from pgm_jax.processes.grid import karras, linear
from pgm_jax.processes.regrid import resample, voxelwise
from pgm_jax.samplers import (
    ancestral,
    consistency,
    ctm,
    ddim,
    dpmpp_1s,
    dpmpp_2m,
    dpmpp_2s,
    euler,
    euler_maruyama,
    heun,
    langevin,
    predictor_corrector,
    reverse_diffusion,
    sample,
    sample_one,
)


def _mixture():
    means = jnp.array([[1.0, 0.2], [-0.7, 0.5], [0.1, -1.2]])
    covs = jnp.array([[[0.3, 0.1], [0.1, 0.2]], [[0.1, 0.0], [0.0, 0.4]], [[0.2, -0.1], [-0.1, 0.2]]])
    return MixturePrior(jnp.array([0.5, 0.3, 0.2]), means, covs)


# Structural identities (foundations 4.5), with a denoiser that is not linear.


def test_ddim_is_dpm_solver_1_is_euler_in_sigma(x64):
    """`x' = (sigma'/sigma) x + (1 - sigma'/sigma) x0` after division by alpha, to machine precision."""
    process, prior = VP(), _mixture()
    denoise, grid = prior.denoiser(process), np.array([0.9, 0.7, 0.4, 0.15, 0.0])
    x = by_lambda = jnp.array([1.3, -0.4])
    by_sigma = x / process.alpha(0.9)
    for t, s in zip(grid[:-1], grid[1:], strict=True):
        alpha, sigma, alpha_s, sigma_s = (
            float(v) for v in (process.alpha(t), process.sigma(t), process.alpha(s), process.sigma(s))
        )
        h = math.log(alpha_s / max(sigma_s, 1e-300)) - math.log(alpha / sigma)
        by_lambda = sigma_s / sigma * by_lambda - alpha_s * math.expm1(-h) * denoise(by_lambda, t)
        slope = (by_sigma - denoise(alpha * by_sigma, t)) / (sigma / alpha)
        by_sigma = by_sigma + (sigma_s / alpha_s - sigma / alpha) * slope
    for sampler in (ddim(), dpmpp_1s(), euler()):
        found = sample_one(jax.random.key(0), sampler, denoise, process, grid, x_init=x)
        np.testing.assert_allclose(found, by_lambda, rtol=1e-12)
        np.testing.assert_allclose(found, by_sigma, rtol=1e-12)


@pytest.mark.parametrize("name", ["ddim", "2m", "2s", "ancestral"])
def test_vp_is_edm_after_rescaling(x64, key, name):
    """The same levels and draws give the same images: samplers in the lambda variable see one ODE."""
    sampler = {"ddim": ddim(), "2m": dpmpp_2m(), "2s": dpmpp_2s(), "ancestral": ancestral()}[name]
    prior, process = _mixture(), VP()
    levels = karras(12, 0.01, 60.0)
    times = karras(12, 0.01, 60.0, process=process)
    x = 60 * jnp.array([0.9, -0.3])
    native = sample_one(
        key, sampler, prior.denoiser(process), process, times, x_init=float(process.alpha(times[0])) * x
    )
    frame = sample_one(key, sampler, prior.denoiser(EDM()), EDM(), levels, x_init=x)
    np.testing.assert_allclose(native, frame, rtol=1e-10)


def test_2m_by_hand(x64):
    """Lu et al. 2022, Algorithm 2: three steps on VP, the first and the last of first order."""
    process, prior = VP(), _mixture()
    denoise, grid = prior.denoiser(process), [0.8, 0.5, 0.2, 0.0]
    x, previous, last_h = jnp.array([0.4, 1.1]), None, None
    for t, s in zip(grid[:-1], grid[1:], strict=True):
        alpha, sigma, alpha_s, sigma_s = (float(f(u)) for u in (t, s) for f in (process.alpha, process.sigma))
        clean = denoise(x, t)
        if s == 0:
            x = clean
            continue
        h = math.log(alpha_s / sigma_s) - math.log(alpha / sigma)
        mixed = clean if previous is None else clean + h / (2 * last_h) * (clean - previous)
        x, previous, last_h = sigma_s / sigma * x - alpha_s * math.expm1(-h) * mixed, clean, h
    found = sample_one(jax.random.key(0), dpmpp_2m(), denoise, process, grid, x_init=jnp.array([0.4, 1.1]))
    np.testing.assert_allclose(found, x, rtol=1e-12)


def test_ancestral_step_is_the_ddpm_posterior(x64, key):
    """DDPM's posterior mean and variance from its betas (foundations 2.1), at a step in the middle."""
    process, i = DDPM(), 400
    betas = np.linspace(1e-4, 0.02, 1000)
    abar = np.cumprod(1 - betas)
    now, before, beta = abar[i - 1], abar[i - 2], betas[i - 1]
    x, x0 = jnp.array([0.3, -1.0]), jnp.array([0.5, 0.2])
    mean = math.sqrt(before) * beta / (1 - now) * x0 + math.sqrt(1 - beta) * (1 - before) / (1 - now) * x
    for name, var in (("small", beta * (1 - before) / (1 - now)), ("large", beta)):
        moments = Moments(ancestral(name), lambda x_t, t, c: x0 + 0 * x_t, process)
        found, cov = moments([i, i - 1], x, jnp.zeros((2, 2)))
        np.testing.assert_allclose(found, mean, rtol=1e-10)
        np.testing.assert_allclose(cov, var * np.eye(2), rtol=1e-9, atol=1e-18)


# Commits of guidance state (row 3).


def _counting(inner):
    """Guidance whose state counts the evaluations that a sampler keeps."""

    def apply(key, x_t, t, state, *, cond=None, s=None):
        estimate, inner_state = inner.apply(key, x_t, t, state[0], cond=cond, s=s)
        return estimate, (inner_state, state[1] + 1)

    return Estimator(inner.process, lambda x: (inner.init(x), jnp.zeros((), jnp.int32)), apply)


COMMITS = {
    "ddim": (ddim(), 10),
    "ancestral": (ancestral(), 10),
    "heun": (heun(), 10),
    "2m": (dpmpp_2m(), 10),
    "2s": (dpmpp_2s(), 10),
    "sde": (euler_maruyama(), 10),
    "pc 2 + ddim": (predictor_corrector(ddim(), steps=2), 30),
    "pc 1 + heun": (predictor_corrector(heun(), steps=1), 20),
    "pc 1 + reverse diffusion": (predictor_corrector(), 20),
    "langevin 3": (langevin(steps=3), 30),
    "consistency": (consistency(), 10),
    "ctm": (ctm(0.5), 10),
}


@pytest.mark.parametrize("name", COMMITS)
def test_commits_in_ten_steps(key, name):
    sampler, expected = COMMITS[name]
    process = EDM()
    denoise = lambda x_t, t, cond, s=None: 0.2 * x_t
    trace = lambda state, t, s: state.guidance[1]
    _, counts = sample_one(
        key, sampler, denoise, process, linear(10, 1.0, 0.1), shape=(2,), guidance=_counting, trace=trace
    )
    assert counts[-1] == expected
    np.testing.assert_array_equal(np.diff(counts), expected // 10)


def test_rises_of_a_grid_keep_the_guidance_state(key):
    grid = resample(linear(3, 1.0, 0.1), 2)
    _, counts = sample_one(
        key,
        ddim(),
        lambda x_t, t, cond: 0.2 * x_t,
        EDM(),
        grid,
        shape=(2,),
        guidance=_counting,
        trace=lambda state, t, s: state.guidance[1],
    )
    assert counts[-1] == np.sum(np.diff(grid) < 0)


# Voxel-wise time (row 10).

VOXEL = {"ddim": ddim(), "ancestral": ancestral(), "heun": heun()}


def _neighbours(x_t, t, cond=None):
    """A denoiser that mixes voxels, so that a clean voxel has every chance to move."""
    return 0.5 * x_t + 0.3 * jnp.roll(x_t, 1, 0) + 0.1 * jnp.roll(x_t, 1, 1) - 0.05


@pytest.mark.parametrize(
    "name, process",
    [
        ("ddim", EDM()),
        ("ancestral", VP()),
        ("heun", FlowMatching()),
        ("heun", VP()),
        ("ancestral", FlowMatching()),
    ],
)
def test_clean_voxels_never_change(key, name, process):
    scale = np.ones((6, 5, 1))
    scale[1:4, 2:] = 0.0
    scale[0] = 0.5
    x = jax.random.normal(key, (6, 5, 1))
    grid = voxelwise(linear(6, 0.9), scale)
    found = sample_one(key, VOXEL[name], _neighbours, process, grid, x_init=x)
    np.testing.assert_array_equal(np.asarray(found)[scale == 0], np.asarray(x)[scale == 0])
    assert (np.asarray(found)[scale > 0] != np.asarray(x)[scale > 0]).all()


@pytest.mark.parametrize("name", VOXEL)
def test_constant_map_is_scalar_time(key, name):
    """To float32 rounding: XLA contracts products with a scalar and with an array otherwise."""
    x = jax.random.normal(key, (6, 5, 1))
    for process in (EDM(), VP()):
        grids = voxelwise(linear(6, 0.9), np.ones((6, 5, 1))), linear(6, 0.9)
        found, scalar = (sample_one(key, VOXEL[name], _neighbours, process, g, x_init=x) for g in grids)
        np.testing.assert_allclose(found, scalar, rtol=0, atol=1e-6)


# Starts: prior, hijack, jump start.


def test_hijack_and_blend_is_ppfm(x64, key):
    """Row 5: one Euler step from the noisy image, blended with it: `w x + (1 - w) y`."""
    process, w, y = PFGMpp(64.0), 0.7, jnp.array([0.3, -0.2, 0.8])
    denoise = lambda x_t, t, cond: jnp.tanh(x_t) * 0.9
    found = sample_one(key, ddim(), denoise, process, [0.0719, 0.002], x_init=y, guidance=blend(y, w))
    euler_step = y + (0.002 - 0.0719) * (y - denoise(y, None, None)) / 0.0719
    np.testing.assert_allclose(found, w * euler_step + (1 - w) * y, rtol=3e-16, atol=3e-16)


def test_start_is_the_prior_at_the_first_time(key):
    process = PFGMpp(3.0)
    still = lambda x_t, t, cond: x_t
    found = sample_one(key, ddim(), still, process, [80.0, 40.0], shape=(5, 4, 1))
    start = process.prior(prior_key(key), (5, 4, 1), jnp.float32(80.0))
    np.testing.assert_allclose(found, start, rtol=1e-6)


def test_keys_are_per_sample_and_per_step(key):
    """Sample i draws from fold_in(key, i), step j from fold_in of that: a run is reproducible by hand."""
    process, denoise, grid = EDM(), linear_denoiser(EDM(), 0.5), [3.0, 1.0, 0.3]
    batch = sample(key, ancestral(), denoise, process, grid, shape=(3, 2))
    own = sample_key(key, 2)
    one = sample_one(own, ancestral(), denoise, process, grid, shape=(2,))
    np.testing.assert_allclose(batch[2], one, rtol=1e-6)
    assert not np.allclose(batch[0], batch[1])
    x = process.prior(prior_key(own), (2,), jnp.float32(3.0))
    for index, (t, s) in enumerate(zip(grid[:-1], grid[1:], strict=True)):
        noise_key = jax.random.split(step_key(own, index))[1]
        z = jax.random.normal(noise_key, (2,))
        x0 = denoise(x, t)
        x = x0 + (s / t) ** 2 * (x - x0) + s * math.sqrt(1 - (s / t) ** 2) * z
    np.testing.assert_allclose(one, x, rtol=2e-5)


def test_trace_is_stacked(key):
    x, states = sample_one(
        key,
        ddim(),
        linear_denoiser(EDM(), 0.5),
        EDM(),
        karras(5),
        shape=(2,),
        trace=lambda st, t, s: (st.x, t, s),
    )
    assert states[0].shape == (5, 2)
    np.testing.assert_array_equal(states[0][-1], x)
    np.testing.assert_allclose(states[1], karras(5)[:-1], rtol=1e-6)
    np.testing.assert_allclose(states[2], karras(5)[1:], rtol=1e-6)


def test_complex_images(key):
    """A complex image is two real components: the same std in each, one program."""
    x = sample(
        key, ancestral(), linear_denoiser(EDM(), 0.5), EDM(), karras(60), shape=(300, 4), dtype=jnp.complex64
    )
    assert x.dtype == jnp.complex64
    for part in (np.real(x), np.imag(x)):
        assert part.std() == pytest.approx(0.5, abs=5 * 0.5 / math.sqrt(2400) + 0.01)
    assert abs(np.mean(np.real(x) * np.imag(x))) < 5 * 0.25 / math.sqrt(1200)


# Categorical processes run by the same driver (row 8).


def _independent(process, law):
    """The exact posterior of one pixel whose class follows `law`."""
    law = jnp.asarray(law)

    def denoise(x_t, t, cond=None):
        marginals = process.marginal(jnp.eye(len(law)), t)
        joint = law[None, :] * (x_t @ marginals.T)
        shares = joint / jnp.sum(joint, -1, keepdims=True)
        return jnp.pad(shares, ((0, 0), (0, x_t.shape[-1] - len(law))))

    return denoise


@pytest.mark.parametrize(
    "process, law",
    [(Bernoulli(), (0.9, 0.1)), (Categorical(3), (0.1, 0.2, 0.7)), (Absorbing(3), (0.1, 0.2, 0.7))],
    ids=["bernoulli", "uniform", "absorbing"],
)
def test_categorical_frequencies(key, process, law):
    states, pixels = len(process.base), 20000
    x = sample_one(key, ddim(1.0), _independent(process, law), process, linear(20), shape=(pixels, states))
    frequency = np.asarray(x).mean(0)
    np.testing.assert_array_equal(np.asarray(x).sum(-1), 1)
    assert (frequency[len(law) :] == 0).all(), "masks are left"
    for found, p in zip(frequency[: len(law)], law, strict=True):
        assert found == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / pixels))


# Refusals.


def _run(grid=(1.0, 0.5), sampler=None, process=None, **options):
    if "shape" not in options:
        options["x_init"] = jnp.ones(2)
    sampler, process = sampler or ddim(), process or EDM()
    return sample_one(
        jax.random.key(0), sampler, lambda x_t, t, cond, s=None: 0.5 * x_t, process, grid, **options
    )


STOCHASTIC = {
    "ancestral": ancestral(),
    "ddim .5": ddim(0.5),
    "large": ancestral("large"),
    "langevin": langevin(),
    "sde": euler_maruyama(),
    "pc": predictor_corrector(),
    "reverse diffusion": reverse_diffusion(),
}


@pytest.mark.parametrize("name", STOCHASTIC)
def test_finite_d_refuses_stochastic_samplers_with_the_way_out(name):
    with pytest.raises(ValueError, match=r"(?s)(heun|ddim).*D = inf"):
        _run(sampler=STOCHASTIC[name], process=PFGMpp(8.0))


@pytest.mark.parametrize("sampler", [ctm(0.5), consistency(0.1)])
def test_finite_d_refuses_to_widen(sampler):
    with pytest.raises(ValueError, match="only descends"):
        _run(sampler=sampler, process=PFGMpp(8.0))
    with pytest.raises(ValueError, match="only descends"):
        _run(grid=[1.0, 0.5, 0.8, 0.2], process=PFGMpp(8.0))


@pytest.mark.parametrize("sampler", [ddim(), heun(), dpmpp_2m(), dpmpp_2s(), consistency(), ctm(0.0)])
def test_finite_d_allows(sampler):
    assert np.isfinite(_run(sampler=sampler, process=PFGMpp(8.0))).all()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"grid": [1.0]}, "two times"),
        ({"grid": [1.0, np.nan]}, "non-finite"),
        ({"grid": [[1.0, 0.5], [0.5, 0.8]]}, "split the step"),
        ({"shape": None}, "x_init"),
        ({"shape": (3,), "x_init": jnp.zeros(2)}, "leave shape out"),
        ({"sampler": dpmpp_2m(), "process": FlowMatching(), "grid": [1.0, 0.5]}, r"heun\(\)"),
        ({"sampler": dpmpp_2m(), "grid": [[1.0, 0.9], [0.5, 0.4]]}, r"ddim\(\)"),
        ({"x1": jnp.zeros(2)}, "no end point"),
    ],
)
def test_wrong_arguments_say_how_to_mend_them(options, message):
    with pytest.raises(ValueError, match=message):
        _run(**options)


def test_wrong_denoisers_batches_and_names():
    with pytest.raises(ValueError, match="batch axis"):
        sample_one(jax.random.key(0), ddim(), lambda x_t, t, c: x_t[None], EDM(), [1.0, 0.5], shape=(2,))
    with pytest.raises(ValueError, match="one row a sample"):
        sample(
            jax.random.key(0),
            ddim(),
            lambda x_t, t, c: x_t,
            EDM(),
            [1.0, 0.5],
            shape=(3, 2),
            cond=jnp.zeros((2, 1)),
        )
    with pytest.raises(ValueError, match=r"shape=\(samples"):
        sample(jax.random.key(0), ddim(), lambda x_t, t, c: x_t, EDM(), [1.0, 0.5])
    with pytest.raises(ValueError, match='"small" or "large"'):
        ancestral("medium")
    with pytest.raises(ValueError, match="posterior"):
        EDM().reverse(None, None, None, 1.0, 0.5, 0.5, of="prior")

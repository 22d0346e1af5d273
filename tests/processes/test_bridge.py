"""I2SB's bridge: figures of the paper's schedule, exact ends, the posterior by conditioning a Gaussian."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax.core import Estimate
from pgm_jax.processes import Normal
from pgm_jax.processes.bridge import Bridge

BRIDGES = {
    "symmetric": Bridge(),
    "wide": Bridge(beta_max=1.0),
    "constant": Bridge(schedule="constant", beta_max=0.5),
}


def test_schedule_matches_the_references_1000_steps():
    process = Bridge(beta_max=0.3)
    betas = np.linspace(np.sqrt(1e-4), np.sqrt(0.3 / 1000), 1000) ** 2
    betas = np.concatenate([betas[:500], betas[:500][::-1]])
    forward = np.concatenate([[0.0], np.cumsum(betas)])
    variance = process.schedule.variance(np.linspace(0, 1, 1001))
    assert abs(process.schedule.total() - 0.141) < 5e-4
    assert abs(process.sigma(0.5) - 0.188) < 5e-4
    np.testing.assert_allclose(variance, forward, atol=2e-4)


def test_constant_rate_is_the_brownian_bridge():
    process, t = BRIDGES["constant"], np.linspace(0, 1, 11)
    np.testing.assert_allclose(process.alpha(t), 1 - t, atol=1e-15)
    np.testing.assert_allclose(process.sigma(t) ** 2, 0.5 * t * (1 - t), atol=1e-15)


@pytest.mark.parametrize("process", BRIDGES.values(), ids=BRIDGES)
@pytest.mark.parametrize("cast", [float, jnp.float32], ids=["host", "float32"])
def test_ends_are_exact(process, cast):
    start, end = cast(0.0), cast(1.0)
    assert process.alpha(start) == 1 and process.beta(start) == 0 and process.sigma(start) == 0
    assert process.alpha(end) == 0 and process.beta(end) == 1 and process.sigma(end) == 0


@pytest.mark.parametrize("process", BRIDGES.values(), ids=BRIDGES)
def test_closed_form_is_the_integral_of_a_symmetric_rate(process):
    t = np.linspace(0, 1, 201)
    schedule = process.schedule
    low, high = np.sqrt(schedule.rate_min), np.sqrt(schedule.rate_max)
    nodes, weights = np.polynomial.legendre.leggauss(8)
    rate = lambda u: (low + (high - low) * np.minimum(u, 1 - u)) ** 2
    pieces = [
        0.5 * (b - a) * weights @ rate(a + 0.5 * (b - a) * (nodes + 1)) for a, b in itertools.pairwise(t)
    ]
    np.testing.assert_allclose(schedule.variance(t)[1:], np.cumsum(pieces), rtol=1e-12)
    np.testing.assert_allclose(process.sigma(t), process.sigma(1 - t), atol=1e-14)
    np.testing.assert_allclose(process.alpha(t) + process.beta(t), 1.0, atol=1e-15)


@pytest.mark.parametrize("process", BRIDGES.values(), ids=BRIDGES)
def test_time_inverts_the_ratio(process):
    t = np.array([1e-9, 1e-4, 0.1, 0.4999, 0.5, 0.7, 0.99, 1 - 1e-9])
    ratio = process.sigma(t) / process.alpha(t)
    np.testing.assert_allclose(process.time(ratio), t, rtol=1e-9)
    np.testing.assert_allclose(1 - process.time(ratio), 1 - t, rtol=1e-6)
    assert process.time(0.0) == 0 and process.time(np.inf) == 1
    ratio_32 = jax.jit(lambda u: process.time(process.ratio(u)))(jnp.float32(0.3))
    assert abs(float(ratio_32) - 0.3) < 1e-6


def _affine_in_noise(process, x_t, x0, x1, t, s, eta):
    """Mean and standard deviation of one reverse step: it is affine in its one fresh draw."""
    key = jax.random.key(3)
    estimate = process.estimate(x_t, t, x0, x1)
    fresh = Normal().sample(key, x_t.shape, x_t.dtype)
    x_s = process.reverse(key, x_t, estimate, t, s, eta)
    r = eta * process._markov(t, s)
    mean = process.mix(Estimate(x0, np.sqrt(1 - r**2) * estimate.noise, x1), s)
    return mean, (x_s - mean) / fresh


@pytest.mark.parametrize("process", BRIDGES.values(), ids=BRIDGES)
def test_reverse_is_the_conditional_of_the_joint_gaussian(x64, process):
    t, s = 0.73, 0.31
    x0, x1, x_t = (jnp.array([v]) for v in (0.4, -1.1, 0.2))
    forward_t, forward_s = process.schedule.variance(t), process.schedule.variance(s)
    total = process.schedule.total()
    # Law of (W_s, W_t, W_1), a Brownian motion in the clock F started at x0, given the last two.
    clock = np.array([forward_s, forward_t, total])
    joint = np.minimum(clock[:, None], clock[None, :])
    gain = joint[0, 1:] @ np.linalg.inv(joint[1:, 1:])
    mean = x0 + gain @ np.array([float(x_t[0] - x0[0]), float(x1[0] - x0[0])])
    variance = joint[0, 0] - gain @ joint[1:, 0]
    got_mean, got_std = _affine_in_noise(process, x_t, x0, x1, t, s, eta=1.0)
    np.testing.assert_allclose(got_mean, mean, atol=1e-12)
    np.testing.assert_allclose(got_std**2, variance, atol=1e-12)
    # I2SB's own form, which knows no x1 (generation_analysis B1).
    short = ((forward_t - forward_s) * x0 + forward_s * x_t) / forward_t
    np.testing.assert_allclose(got_mean, short, atol=1e-12)
    np.testing.assert_allclose(got_std**2, forward_s * (forward_t - forward_s) / forward_t, atol=1e-12)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_every_eta_preserves_the_marginal(x64, eta):
    process, t, s = BRIDGES["symmetric"], 0.8, 0.45
    r = eta * process._markov(t, s)
    key, x0, x1 = jax.random.key(1), jnp.array([0.3]), jnp.array([-0.6])
    noise = jnp.array([0.7])
    state = process.mix(Estimate(x0, noise, x1), t)
    x_s = process.reverse(key, state, process.estimate(state, t, x0, x1), t, s, eta)
    fresh = Normal().sample(key, (1,), x0.dtype)
    expected = process.mix(Estimate(x0, np.sqrt(1 - r**2) * noise + r * fresh, x1), s)
    np.testing.assert_allclose(x_s, expected, atol=1e-12)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_perfect_predictor_ends_at_the_clean_image(key, eta):
    process, x0, x1 = BRIDGES["symmetric"], jnp.array([0.5, -0.2]), jnp.array([1.0, 0.0])
    x = process.prior(key, x0.shape, 1.0, x1)
    assert jnp.array_equal(x, x1)
    grid = [1.0, 0.7, 0.2, 0.0]
    for i, (t, s) in enumerate(itertools.pairwise(grid)):
        x = process.reverse(jax.random.fold_in(key, i), x, process.estimate(x, t, x0, x1), t, s, eta)
    assert jnp.array_equal(x, x0)


def test_identical_ends_stay(key):
    process, x0 = BRIDGES["symmetric"], jnp.array([0.5, -0.2])
    x = x0
    for t, s in [(1.0, 0.6), (0.6, 0.2), (0.2, 0.0)]:
        x = process.reverse(key, x, process.estimate(x, t, x0, x0), t, s, 0.0)
        np.testing.assert_allclose(x, x0, atol=1e-6)


def test_small_rates_give_the_optimal_transport_ode(x64, key):
    process = Bridge(beta_max=3e-10, beta_min=1e-10)
    x_t, x0, x1, t, s = jnp.array([0.4]), jnp.array([0.1]), jnp.array([1.0]), 0.8, 0.5
    x_s = process.reverse(key, x_t, process.estimate(x_t, t, x0, x1), t, s, 1.0)
    share = process.schedule.variance(s) / process.schedule.variance(t)
    np.testing.assert_allclose(x_s, (1 - share) * x0 + share * x_t, atol=1e-4)


def test_refusals(key):
    with pytest.raises(ValueError, match="end point"):
        Bridge().perturb(key, jnp.zeros(2), 0.5)
    with pytest.raises(ValueError, match="schedule"):
        Bridge(schedule="linear")
    with pytest.raises(ValueError, match="positive"):
        Bridge(beta_max=0.0)
    with pytest.raises(ValueError, match="renoised"):
        Bridge().renoise(key, jnp.zeros(2), 0.2, 0.5)

"""Averages of parameters: explicit weights, EDM2's numbers, and reconstruction after training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax.training import ema
from pgm_jax.training.power_ema import post_hoc_weights, power_exponent, profile_products


def _run(rule, trajectory):
    """Returns the averages after each step, (steps, ...), of a trajectory whose row 0 is the start."""

    def body(average, inputs):
        step, params = inputs
        average = rule.update(average, {"w": params}, step)
        return average, average["w"]

    start = rule.init({"w": trajectory[0]})
    steps = jnp.arange(1, len(trajectory))
    return jax.lax.scan(body, start, (steps, trajectory[1:]))[1]


@pytest.fixture
def trajectory():
    rng = np.random.default_rng(0)
    return jnp.asarray(np.cumsum(rng.normal(size=(401, 3)), axis=0) / 20, jnp.float32)


def test_exponents_of_edm2():
    # Foundations 2.4.
    for std, gamma in ((0.05, 16.9722), (0.10, 6.9372), (0.15, 3.5579)):
        assert power_exponent(std) == pytest.approx(gamma, abs=5e-5)
        g = power_exponent(std)
        assert np.sqrt((g + 1) / ((g + 2) ** 2 * (g + 3))) == pytest.approx(std, rel=1e-10)


@pytest.mark.parametrize("std", [0.05, 0.25])
def test_power_is_the_explicit_weighted_average(trajectory, std):
    got = _run(ema.power(std), trajectory)
    exponent = power_exponent(std) + 1
    for t in (1, 2, 37, 400):
        s = np.arange(1, t + 1)
        weights = (s / t) ** exponent - ((s - 1) / t) ** exponent
        assert weights.sum() == pytest.approx(1)
        expected = weights @ np.asarray(trajectory[1 : t + 1], np.float64)
        np.testing.assert_allclose(got[t - 1], expected, rtol=2e-5, atol=2e-5)


def test_relative_width_is_that_of_the_weights():
    step = np.arange(1, 2001)
    ramp = jnp.asarray(np.stack([step, step**2], 1) / [2000, 2000**2], jnp.float32)
    mean, square = _run(ema.power(0.1), jnp.concatenate([ramp[:1], ramp]))[-1]
    assert float(square - mean**2) ** 0.5 == pytest.approx(0.1, rel=2e-3)


def test_half_life_ramps_with_the_steps_made():
    # Parameters jump from 0 to 1 after step 1000: the average is 1 / 2 one half-life later.
    rule, average = ema.half_life(50, rampup=0.05), {"w": jnp.zeros(())}
    update = jax.jit(lambda a, step: rule.update(a, {"w": jnp.ones(())}, step))
    for step in range(1001, 1051):
        average = update(average, step)
    assert float(average["w"]) == pytest.approx(0.5, abs=1e-6)
    # Below 1000 steps it is 5 % of them: beta = 2^(-1 / .05 step).
    early = rule.update({"w": jnp.zeros(())}, {"w": jnp.ones(())}, 100)
    assert float(early["w"]) == pytest.approx(1 - 0.5 ** (1 / 5), rel=1e-6)


def test_constant_is_the_geometric_average(trajectory):
    got, decay = _run(ema.constant(0.9), trajectory), 0.9
    for t in (1, 60):
        weights = np.append(decay**t, (1 - decay) * decay ** np.arange(t - 1, -1, -1))
        np.testing.assert_allclose(got[t - 1], weights @ np.asarray(trajectory[: t + 1]), atol=1e-6)


def test_averages_are_float32_copies_and_named():
    params = {"w": jnp.full(4, 1.0, jnp.bfloat16), "z": jnp.ones(2, jnp.complex64)}
    rule = ema.constant(0.999)
    average = rule.init(params)
    assert average["w"].dtype == jnp.float32 and average["z"].dtype == jnp.complex64
    kept = rule.init({"w": jnp.zeros(3)})
    assert kept["w"].unsafe_buffer_pointer() != rule.init(kept)["w"].unsafe_buffer_pointer()
    # bf16 holds no step of 1e-3 above 1; the average does.
    moved = rule.update(average, {"w": jnp.full(4, 2.0, jnp.bfloat16), "z": 2 * params["z"]}, 1)
    np.testing.assert_allclose(moved["w"], 1.001, rtol=1e-6)
    np.testing.assert_allclose(moved["z"], 1.001, rtol=1e-6)
    names = [ema.constant(0.999).name, ema.half_life(500).name, ema.power(0.1).name]
    assert names == ["constant_0.999", "half_life_500", "power_0.1"]


def test_inner_products_of_profiles_by_quadrature():
    stds, times = [0.05, 0.1, 0.2], [300.0, 700.0, 1000.0]
    tau = (np.arange(200_000) + 0.5) * 1000 / 200_000
    gamma = [power_exponent(s) for s in stds]
    profiles = [
        np.where(tau <= t, (g + 1) * (tau / t) ** g / t, 0.0) for t, g in zip(times, gamma, strict=True)
    ]
    expected = np.array([[np.sum(p * q) for q in profiles] for p in profiles]) * 1000 / 200_000
    np.testing.assert_allclose(profile_products(times, stds, times, stds), expected, rtol=1e-4)


def test_post_hoc_reconstructs_a_width_between_the_stored_ones():
    # A trajectory of a smooth path plus noise; averages of widths .05 and .10 stored 8 times.
    steps, every = 1600, 200
    rng = np.random.default_rng(1)
    tau = np.arange(steps + 1)[:, None] / steps
    path = np.exp(-3 * tau) * np.array([1.0, -2.0]) + np.sin(7 * tau) + 0.1 * rng.normal(size=(steps + 1, 2))
    path = jnp.asarray(path, jnp.float32)
    stored = {std: _run(ema.power(std), path) for std in (0.05, 0.10)}
    times = [t for t in range(every, steps + 1, every) for _ in stored]
    stds = [std for _ in range(steps // every) for std in stored]
    snapshots = [{"w": stored[std][t - 1]} for t, std in zip(times, stds, strict=True)]

    for target in (0.07, 0.085):
        tracked = _run(ema.power(target), path)[-1]
        got = ema.post_hoc(snapshots, times, stds, target)["w"]
        # The two nearest stored averages miss by more than ten times as much.
        nearest = min(float(jnp.max(jnp.abs(stored[s][-1] - tracked))) for s in stored)
        assert np.max(np.abs(got - tracked)) < 2e-3 < nearest / 10
    # At an earlier time that was not stored, half way between two that were.
    tracked = _run(ema.power(0.08), path[: 1300 + 1])[-1]
    misses = lambda average: float(np.max(np.abs(np.asarray(average) - np.asarray(tracked))))
    nearest = min(misses(s["w"]) for s in snapshots)
    assert misses(ema.post_hoc(snapshots, times, stds, 0.08, 1300)["w"]) < 0.03 < nearest / 2
    # A stored one is returned as it is.
    same = ema.post_hoc(snapshots, times, stds, 0.10, 800)["w"]
    np.testing.assert_allclose(same, stored[0.10][799], atol=2e-6)
    assert same.dtype == np.float32


def test_weights_of_a_stored_average_are_one_hot():
    times, stds = [100, 100, 200, 200, 300, 300], [0.05, 0.1] * 3
    weights = post_hoc_weights(times, stds, 0.05, 200)
    np.testing.assert_allclose(weights, [0, 0, 1, 0, 0, 0], atol=1e-6)


def test_refusals():
    for call, match in (
        (lambda: ema.constant(1.0), "decay"),
        (lambda: ema.half_life(0), "steps > 0"),
        (lambda: ema.power(0.3), "0.2887"),
        (lambda: ema.post_hoc([{}], [1, 2], [0.1, 0.1], 0.1), "1 snapshots and 2 times"),
        (lambda: ema.post_hoc([{}, {}], [1, 2], [0.1], 0.1), "as many positive times"),
        (lambda: ema.post_hoc([{}], [0], [0.1], 0.1), "positive times"),
    ):
        with pytest.raises(ValueError, match=match):
            call()

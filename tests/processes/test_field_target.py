"""Field and stable targets: exact with the whole data set; PFGM's perturbation and hyper-parameters."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import digamma

from pgm_jax.processes import (
    EDM,
    PFGM,
    VP,
    Bridge,
    PFGMpp,
    field_target,
    pfgm_hyperparameters,
    pfgm_perturb,
    stable_target,
)

# O6: two points (+-1, 0), x = (.5, .3), sigma = .7.
POINTS = jnp.array([[1.0, 0.0], [-1.0, 0.0]])
ORACLE_6 = {1: 0.7258759922, 2: 0.7269992479, 8: 0.7452910574, 128: 0.7677220594, 2048: 0.7698840208}
ORACLE_6[math.inf] = 0.7700327308


@pytest.mark.parametrize("D", ORACLE_6)
def test_stable_target_of_the_whole_data_set_is_the_empirical_denoiser(x64, D):
    points, x = POINTS.astype(float), jnp.array([0.5, 0.3])
    got = stable_target(PFGMpp(D), x, 0.7, points)
    np.testing.assert_allclose(got, [ORACLE_6[D], 0.0], atol=5e-11)
    # The same posterior in another frame of the same law.
    if math.isinf(D):
        process = VP()
        t = process.time(0.7)
        np.testing.assert_allclose(stable_target(process, process.alpha(t) * x, t, points), got, atol=1e-9)


def test_field_target_is_the_normalised_field_oracle_14(x64):
    points, x, z = POINTS.astype(float), jnp.array([0.5, 0.3]), 0.7
    e = np.append(np.array([ORACLE_6[1], 0.0]) - np.asarray(x), -z)
    for gamma in (0.0, 5.0):
        v_x, v_z = field_target(x, z, points, gamma)
        expected = math.sqrt(2) * e / (np.linalg.norm(e) + gamma)
        np.testing.assert_allclose(np.append(v_x, v_z), expected, atol=1e-9)


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_chunks_do_not_change_the_mean(x64, key, chunk):
    reference = jax.random.normal(key, (50, 3, 4))
    x, process = jax.random.normal(jax.random.fold_in(key, 1), (3, 4)), PFGMpp(3)
    log_weights = jax.vmap(lambda y: process.law.log_prob((x - y) / 0.8))(reference)
    expected = jnp.tensordot(jax.nn.softmax(log_weights), reference, axes=1)
    np.testing.assert_allclose(stable_target(process, x, 0.8, reference, chunk=chunk), expected, rtol=1e-12)


def test_far_points_do_not_overflow_in_float32(key):
    # Pitfall 13: the power N + 1 of a distance of 3000 leaves every float.
    reference = jax.random.normal(key, (100, 3072))
    x, z = 3000 / math.sqrt(3072) * jax.random.normal(jax.random.fold_in(key, 1), (3072,)), jnp.float32(40.0)
    v_x, v_z = jax.jit(field_target)(x, z, reference)
    offset = np.asarray(x, np.float64) - np.asarray(reference, np.float64)
    logs = -0.5 * 3073 * np.log((offset**2).sum(1) + 40.0**2)
    weights = np.exp(logs - logs.max()) / np.exp(logs - logs.max()).sum()
    e = np.append(-weights @ offset, -40.0)
    expected = math.sqrt(3072) * e / (np.linalg.norm(e) + 5)
    np.testing.assert_allclose(np.append(v_x, v_z), expected, rtol=2e-2, atol=2e-4)


def test_targets_batch_and_keep_clean_images(key):
    x = jax.random.normal(key, (5, 2))
    batched = jax.vmap(lambda x: field_target(x, 0.7, POINTS))(x)
    np.testing.assert_allclose(batched[0][3], field_target(x[3], 0.7, POINTS)[0], rtol=1e-5)
    assert jnp.array_equal(stable_target(EDM(), x[0], 0.0, POINTS), x[0])
    ends = stable_target(Bridge(), jnp.array([0.9, 0.0]), 0.2, POINTS, x1=jnp.zeros(2))
    assert ends[0] > 0.99
    assert stable_target(PFGM(), x[0] + 0j, 0.5, POINTS + 0j).dtype == jnp.complex64


def test_perturbation_follows_pfgms_law(key):
    y, M, tau, sigma = jnp.full((8,), 0.3), 100, 0.03, 0.01
    draw = jax.jit(jax.vmap(lambda k: pfgm_perturb(k, y, M, tau, sigma)))
    x, z = draw(jax.random.split(key, 20_000))
    radius = jnp.linalg.norm(x - 0.3, axis=-1)
    # ln radius = ln |e_x| + m ln(1 + tau), m uniform: mean and the shared exponent are in closed form.
    growth = 0.5 * M * math.log1p(tau)
    log_norm = math.log(sigma) + 0.5 * (digamma(4) + math.log(2))
    log_abs = math.log(sigma) + 0.5 * (digamma(0.5) + math.log(2))
    assert abs(float(jnp.log(radius).mean()) - growth - log_norm) < 0.03
    assert abs(float(jnp.log(z).mean()) - growth - log_abs) < 0.05
    shared = np.cov(np.log(radius), np.log(z))[0, 1]
    assert abs(shared - (M * math.log1p(tau)) ** 2 / 12) < 0.05
    np.testing.assert_allclose((x - 0.3).mean(0) / radius.mean(), 0, atol=0.05)


def test_restricted_exponent_keeps_small_z_near_the_data(key):
    draw = jax.jit(jax.vmap(lambda k: pfgm_perturb(k, jnp.zeros(64), 291, restrict_M=True)))
    x, z = draw(jax.random.split(key, 20_000))
    radius = jnp.linalg.norm(x, axis=-1)
    # |e_x| is close to sigma sqrt(N), so radius / (sigma sqrt N) tells the growth.
    small = z * 0.01 * 8 / radius < 0.0035
    assert small.sum() > 100
    assert float(radius[small].max()) < 0.01 * 8 * 1.6 * 1.03 ** (0.7 * 291)


def test_hyperparameters_of_cifar():
    # Norm 30 in 3072 dimensions: M = 287 by the rule. The paper trains with 291, whose z_max and norm are the
    # 43.4 and 3015 of foundations.md 2.6.
    data = np.full((4, 32, 32, 3), 30 / math.sqrt(3072))
    suggested = pfgm_hyperparameters(data)
    assert suggested.M == 287
    np.testing.assert_allclose(suggested.z_max * 1.03**4, 43.408, atol=1e-3)
    np.testing.assert_allclose(suggested.upper_norm * 1.03**4, 3015.39, atol=1e-2)
    with pytest.raises(ValueError, match="smaller sigma"):
        pfgm_hyperparameters(np.zeros((4, 8)))
    with pytest.raises(ValueError, match="finite"):
        pfgm_hyperparameters(np.full((4, 8), np.nan))

"""Categorical processes: every claim is checked by enumerating states, never by sampling alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax.core import Estimate
from pgm_jax.processes.categorical import Absorbing, Bernoulli, Categorical

BETAS = np.linspace(0.01, 0.5, 20)
CASES = {
    "bernoulli": Bernoulli(BETAS),
    "uniform": Categorical(3, BETAS),
    "weighted": Categorical(3, BETAS, base=[0.2, 0.5, 0.3]),
    "absorbing": Absorbing(3, BETAS),
}
EACH = pytest.mark.parametrize("process", CASES.values(), ids=CASES)


def _one_step(process, beta):
    states = len(process.base)
    return (1 - beta) * np.eye(states) + beta * np.tile(process.base, (states, 1))


def _marginals(process, t):
    """Row k holds q(x_t | x_0 = k), for every state k."""
    return np.asarray(process.marginal(jnp.eye(len(process.base)), t))


def _transitions(process, calibrated, t, s, eta, of="posterior"):
    """Row j holds p(x_s | x_t = j) for a denoiser whose class probabilities are row j of `calibrated`."""
    states = jnp.eye(len(process.base))
    return np.asarray(_transition(process, states, jnp.asarray(calibrated), float(t), float(s), eta, of))


@functools.partial(jax.jit, static_argnames="of")
def _transition(process, x_t, probabilities, t, s, eta, of):
    return process.transition(x_t, process.estimate(x_t, t, probabilities), t, s, eta, of)


def _calibrated(process, law, t):
    """p(x0 | x_t = j) by Bayes' rule for one pixel whose class follows `law`."""
    prior = np.zeros(len(process.base))
    prior[: len(law)] = law
    joint = prior[None, :] * _marginals(process, t).T
    total = joint.sum(1, keepdims=True)
    return np.where(total > 0, joint / np.where(total > 0, total, 1), 0)


def _run(process, law, eta, of="posterior", start=None):
    """Propagates the one-pixel law exactly through the whole reverse chain."""
    times = range(len(BETAS), 0, -1)
    p = np.asarray(process.base) if start is None else start
    for t in times:
        p = p @ _transitions(process, _calibrated(process, law, t), t, t - 1, eta, of)
    return p


@EACH
def test_chapman_kolmogorov(x64, process):
    product = functools.reduce(np.matmul, [_one_step(process, beta) for beta in BETAS])
    np.testing.assert_allclose(_marginals(process, len(BETAS)), product, atol=1e-14)
    np.testing.assert_allclose(_marginals(process, 0), np.eye(len(process.base)), atol=0)


@EACH
@pytest.mark.parametrize("t, s", [(20, 19), (12, 5), (3, 0)])
def test_posterior_by_enumeration(x64, process, t, s):
    states, classes = len(process.base), process.classes
    forward = functools.reduce(np.matmul, [_one_step(process, beta) for beta in BETAS[s:t]])
    law = np.array([0.5, 0.2, 0.3])[:classes] / np.sum([0.5, 0.2, 0.3][:classes])
    expected = np.zeros((states, states))
    for k in range(classes):
        expected += law[k] * _marginals(process, s)[k][:, None] * forward
    reached = expected.sum(0)
    got = _transitions(process, _calibrated(process, law, t), t, s, 1.0)
    np.testing.assert_allclose(got[reached > 0], (expected / reached).T[reached > 0], atol=1e-12)


@EACH
@pytest.mark.parametrize("of", ["posterior", "marginal"])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_every_eta_preserves_the_marginal(x64, process, eta, of):
    law, t, s = [0.2, 0.8] if process.classes == 2 else [0.1, 0.2, 0.7], 14, 6
    data = np.zeros(len(process.base))
    data[: len(law)] = law
    moved = (data @ _marginals(process, t)) @ _transitions(
        process, _calibrated(process, law, t), t, s, eta, of
    )
    np.testing.assert_allclose(moved, data @ _marginals(process, s), atol=1e-13)


def test_one_pixel_mixture_is_exact_and_the_plug_in_is_not(x64):
    process, law = CASES["bernoulli"], [0.9, 0.1]
    exact_start = np.array(law) @ _marginals(process, 20)
    assert abs(_run(process, law, 1.0, start=exact_start)[1] - 0.1) < 1e-13
    for eta in (0.0, 0.5, 1.0):
        assert abs(_run(process, law, eta)[1] - 0.1) < 5e-4
    assert round(_run(process, law, 1.0)[1], 4) == 0.1
    assert round(_run(process, law, 1.0, of="plugin")[1], 5) == 0.23315


@pytest.mark.parametrize("name", ["uniform", "absorbing"])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_three_classes(x64, name, eta):
    process, law = CASES[name], [0.1, 0.2, 0.7]
    start = np.append(law, 0.0)[: len(process.base)] @ _marginals(process, 20)
    end = _run(process, law, eta, start=start)
    np.testing.assert_allclose(end[:3], law, atol=1e-12)
    assert end[3:].sum() == 0


def test_absorbing_leaves_no_mask_whatever_the_network_says(key):
    process = Absorbing(3)
    x = process.prior(key, (50, 4), 1.0)
    assert jnp.array_equal(x[:, 3], jnp.ones(50))
    network = jnp.tile(jnp.array([0.1, 0.1, 0.1, 0.7]), (50, 1))
    step = jax.jit(lambda key, x, t, s: process.reverse(key, x, process.estimate(x, t, network), t, s, 1.0))
    for i, (t, s) in enumerate([(1.0, 0.6), (0.6, 0.3), (0.3, 0.0)]):
        before = x
        x = step(jax.random.fold_in(key, i), x, t, s)
        revealed = before[:, 3] == 0
        assert jnp.array_equal(x[revealed], before[revealed])
    assert x[:, 3].sum() == 0 and jnp.array_equal(x.sum(-1), jnp.ones(50))


def test_berdiff_background_reaches_the_fair_coin():
    betas = np.linspace(1e-4, 0.02, 1000)
    flip = Bernoulli(betas).marginal(jnp.array([1.0, 0.0]), 1000)[1]
    assert abs(flip - 0.5) < 1e-4


def test_draws_follow_the_probabilities(key):
    process = CASES["weighted"]
    x0 = jnp.tile(jnp.array([1.0, 0.0, 0.0]), (40_000, 1))
    x_t = process.perturb(key, x0, 7)
    np.testing.assert_allclose(x_t.mean(0), process.marginal(x0[0], 7), atol=0.01)
    x_s = process.renoise(jax.random.fold_in(key, 1), x_t, 7, 15)
    np.testing.assert_allclose(x_s.mean(0), process.marginal(x0[0], 15), atol=0.01)
    assert set(np.unique(x_s)) == {0.0, 1.0}


def test_voxelwise_time_keeps_clean_pixels(key):
    process = Bernoulli()
    x0 = jax.nn.one_hot(jnp.array([[0, 1], [1, 0]]), 2)
    t = jnp.array([[0.0, 0.9], [0.0, 0.9]])[..., None]
    x = process.perturb(key, x0, t)
    assert jnp.array_equal(x[:, 0], x0[:, 0])
    back = process.reverse(key, x, process.estimate(x, t, 1 - x0), t, 0.5 * t, 1.0)
    assert jnp.array_equal(back[:, 0], x0[:, 0])


def test_log_prior():
    process = CASES["weighted"]
    x = jax.nn.one_hot(jnp.array([0, 1, 1]), 3)
    np.testing.assert_allclose(process.log_prior(x, 20), np.log(0.2 * 0.5 * 0.5), rtol=1e-6)
    assert Absorbing(2).log_prior(jnp.eye(3)[:1], 1.0) == -jnp.inf
    assert Absorbing(2).log_prior(jnp.eye(3)[2:], 1.0) == 0


def test_steps_pass_jit_vmap_and_grad(key):
    process, x = CASES["weighted"], jax.nn.one_hot(jnp.array([0, 1, 1]), 3)

    @jax.jit
    def step(process, key, x, t):
        return process.reverse(key, x, process.estimate(x, t, x * 0.5 + 0.1), t, t - 1, 0.5)

    keys = jax.random.split(key, 4)
    batched = jax.jit(jax.vmap(step, (None, 0, None, None)))(process, keys, x, 5.0)
    assert jnp.array_equal(batched[2], step(process, keys[2], x, 5.0))
    loss = lambda p: process.transition(x, Estimate(p, x), 5.0, 3.0, 1.0)[0, 0]
    assert jnp.all(jnp.isfinite(jax.jit(jax.grad(loss))(x * 0.5 + 0.1)))


def test_refusals(key):
    process, x = Bernoulli(), jnp.eye(2)
    for call in (process.mix, process.tilt, process.sde):
        with pytest.raises(ValueError, match="categorical state"):
            call(Estimate(x, x), 0.5)
    with pytest.raises(ValueError, match="end point"):
        process.perturb(key, x, 0.5, x)
    with pytest.raises(ValueError, match="forward"):
        process.reverse(key, x, Estimate(x, x), 0.5, 0.2, 1.0, of="forward")
    with pytest.raises(ValueError, match="last axis"):
        process.perturb(key, jnp.zeros((4, 5)), 0.5)
    with pytest.raises(ValueError, match="channels"):
        process.prior(key, (4, 3), 1.0)
    with pytest.raises(ValueError, match="at least 2"):
        Categorical(1)
    with pytest.raises(ValueError, match="sum to 1"):
        Categorical(2, base=[0.5, 0.6])
    with pytest.raises(ValueError, match="betas"):
        Bernoulli([0.1, 1.2])

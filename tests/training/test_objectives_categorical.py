"""The categorical objective against enumeration of all states, and its optimum on an exact toy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from objective_toys import mean_and_error
from tables import rest_slow

from pgm_jax.core import Network
from pgm_jax.networks import as_denoiser
from pgm_jax.processes import Absorbing, Bernoulli, Categorical, predict_x0
from pgm_jax.training.objectives import categorical, class_probabilities, levels
from pgm_jax.training.objectives.categorical import pixel_losses

BETAS = np.linspace(0.05, 0.5, 8)
LAW = np.array([0.5, 0.2, 0.3])
# Every process with the length of a step and its last time.
CASES = {
    "bernoulli": (Bernoulli(BETAS), 1.0, 8.0),
    "weighted": (Categorical(3, BETAS, base=[0.2, 0.5, 0.3]), 1.0, 8.0),
    "absorbing": (Absorbing(3, BETAS), 1.0, 8.0),
    "continuous": (Absorbing(3), 0.25, 1.0),
}
EACH = pytest.mark.parametrize("process, step, end", CASES.values(), ids=CASES)
WEIGHTED, ABSORBING = CASES["weighted"][0], CASES["absorbing"][0]


def _law(process):
    return LAW[: process.classes] / LAW[: process.classes].sum()


def _matrices(process, t, s):
    """Row k of each: q(x_s | x_0 = k), and q(x_t | x_s = k), over states."""
    states = len(process.base)
    step = float(process.keep(t)) / float(process.keep(s))
    forward = step * np.eye(states) + (1 - step) * np.tile(process.base, (states, 1))
    return np.asarray(process.marginal(jnp.eye(states), s)), forward


def _enumerated(process, probabilities, t, s):
    """Rows (x0, x_t): KL and cross-entropy by Bayes' rule, for probabilities (states, classes)."""
    marginal, forward = _matrices(process, t, s)
    reach = marginal @ forward
    posterior = lambda k, j: marginal[k] * forward[:, j] / reach[k, j]
    kl, entropy = (np.full((process.classes, len(process.base)), np.nan) for _ in range(2))
    for k, j in np.argwhere(reach[: process.classes] > 0):
        p = np.where(reach[: process.classes, j] > 0, probabilities[j], 0)
        p = p / p.sum()
        model = sum(p[i] * posterior(i, j) for i in range(process.classes) if p[i] > 0)
        q = posterior(k, j)
        kl[k, j] = np.sum(q[q > 0] * np.log(q[q > 0] / model[q > 0]))
        entropy[k, j] = -np.log(p[k])
    return kl, entropy, reach[: process.classes]


@EACH
@pytest.mark.parametrize("of_end", rest_slow([1.0, 0.25, 0.5], keep=2))
def test_terms_equal_enumeration(x64, process, step, end, of_end):
    t = of_end * end
    s = t - step
    states, classes = len(process.base), process.classes
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(states, classes)))
    expected_kl, expected_entropy, reach = _enumerated(process, np.asarray(jax.nn.softmax(logits)), t, s)
    k, j = np.argwhere(reach > 0).T
    got = jax.jit(pixel_losses)(process, logits[j], jnp.eye(classes)[k], jnp.eye(states)[j], t, s)
    np.testing.assert_allclose(got[0], expected_kl[k, j], atol=1e-12)
    np.testing.assert_allclose(got[1], expected_entropy[k, j], atol=1e-12)
    assert np.all(np.asarray(got[0]) > -1e-12)
    # The same from a network with one output a state: that of a state that is never clean is not read.
    padded = jnp.pad(logits, [(0, 0), (0, states - classes)], constant_values=3.0)
    again = pixel_losses(process, padded[j], jnp.eye(states)[k], jnp.eye(states)[j], t, s)
    np.testing.assert_allclose(again, got, atol=1e-12)


def _table_network():
    """One row of logits for each state, for a single time."""
    return Network(lambda key, *_: None, lambda params, x, t, cond=None, *, key=None, train=False: x @ params)


def _calibrated(process, t):
    joint = (
        _law(process)[:, None]
        * np.asarray(process.marginal(jnp.eye(len(process.base)), t))[: process.classes]
    )
    return (joint / joint.sum(0)).T


@pytest.mark.parametrize("process", [WEIGHTED, ABSORBING], ids=["weighted", "absorbing"])
def test_calibrated_network_reaches_the_floor_and_its_gradient_vanishes(process):
    # An interior step: both terms are at their least at once, which BerDiff's plug-in rule does not give.
    t, count = 5.0, 20_000
    p = _calibrated(process, t)
    kl, entropy, reach = _enumerated(process, p, t, t - 1)
    weight = _law(process)[:, None] * reach
    floor_kl, floor_entropy = (float(np.nansum(weight * term)) for term in (kl, entropy))
    assert floor_kl > 0.01
    params = jnp.asarray(np.log(np.maximum(p, 1e-9)), jnp.float32)
    x0 = jax.nn.one_hot(
        jax.random.choice(jax.random.key(0), process.classes, (count, 1), p=_law(process)), process.classes
    )

    @functools.partial(jax.jit, static_argnums=(1, 2))
    def run(params, kl, cross_entropy):
        objective = categorical(
            process, _table_network(), levels.discrete([t]), kl=kl, cross_entropy=cross_entropy
        )
        one = lambda params, i: objective(
            params, (), {"x0": x0[i][None], "index": i[None]}, jax.random.key(1)
        )
        (losses, (_, metrics)), gradients = jax.vmap(jax.value_and_grad(one, has_aux=True), (None, 0))(
            params, jnp.arange(count)
        )
        return losses, metrics, gradients

    for weights, floor in (((1.0, 0.0), floor_kl), ((0.0, 1.0), floor_entropy)):
        losses, metrics, gradients = run(params, *weights)
        mean, error = mean_and_error(losses)
        assert abs(mean - floor) < 4 * error and error < 0.1 * floor
        np.testing.assert_allclose(losses, metrics["kl" if weights[0] else "cross_entropy"], atol=1e-6)
        score = jnp.mean(gradients, 0) / (jnp.std(gradients, 0) / count**0.5 + 1e-6)
        assert jnp.max(jnp.abs(score)) < 4.5


def test_hybrid_is_the_weighted_sum_and_a_whole_image_the_mean_of_its_pixels():
    process, x0 = WEIGHTED, jax.nn.one_hot(jnp.array([[[0, 1], [2, 1]], [[1, 1], [0, 2]]]), 3)
    params = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3)), jnp.float32)
    network, given = _table_network(), levels.discrete(np.arange(1, 9))
    objective = jax.jit(categorical(process, network, given, kl=0.5, cross_entropy=0.1))
    loss, (carry, metrics) = objective(params, 7, {"x0": x0}, jax.random.key(0))
    np.testing.assert_allclose(loss, 0.5 * metrics["kl"] + 0.1 * metrics["cross_entropy"], rtol=1e-6)
    assert carry == 7 and metrics["worst_level"] in np.arange(1, 9)
    permuted = {"x0": x0[::-1], "index": jnp.array([1, 0])}
    np.testing.assert_allclose(objective(params, (), permuted, jax.random.key(0))[0], loss, rtol=1e-6)
    # Shown one at a time with their numbers, the same.
    parts = [
        objective(params, (), {"x0": x0[i : i + 1], "index": jnp.array([i])}, jax.random.key(0))[0]
        for i in (0, 1)
    ]
    np.testing.assert_allclose(np.mean(parts), loss, rtol=1e-6)


@pytest.mark.parametrize("scale", rest_slow([80.0, 1.0]))
@EACH
def test_finite_for_sure_and_wrong_logits_at_every_time(process, step, end, scale):
    times = [0.0, *np.arange(1, round(end / step) + 1) * step]
    classes, states = process.classes, len(process.base)
    network = Network(None, lambda params, x, t, cond=None, **_: (x @ params).astype(jnp.bfloat16))
    params = scale * jnp.asarray(np.random.default_rng(1).normal(size=(states, classes)), jnp.float32)
    objective = categorical(process, network, levels.discrete(times), step=step)
    x0 = jax.nn.one_hot(jnp.arange(64) % classes, classes)[:, None]
    (loss, _), gradient = jax.jit(jax.value_and_grad(objective, has_aux=True))(
        params, (), {"x0": x0}, jax.random.key(0)
    )
    assert jnp.isfinite(loss) and jnp.all(jnp.isfinite(gradient)) and loss > 0
    # A clean state leaves nothing to learn.
    clean = categorical(process, network, levels.discrete([0.0]), step=step)
    assert float(clean(params, (), {"x0": x0}, jax.random.key(0))[0]) < 1e-6


def test_probabilities_sample_what_was_trained():
    process, params = ABSORBING, jnp.log(jnp.tile(jnp.asarray(LAW, jnp.float32), (4, 1)))
    network = class_probabilities(_table_network(), process)
    denoise = as_denoiser(network, params, process, predict_x0)
    p = denoise(jnp.eye(4)[jnp.array([3, 1])], jnp.float32(4.0))
    np.testing.assert_allclose(p, np.tile([0.5, 0.2, 0.3, 0.0], (2, 1)), rtol=1e-6)
    estimate = process.estimate(jnp.eye(4)[jnp.array([3, 1])], 4.0, p)
    np.testing.assert_allclose(estimate.x0, [[0.5, 0.2, 0.3, 0], [0, 1, 0, 0]], atol=1e-6)


def test_categorical_refusals():
    given, x0 = levels.discrete([1.0]), jnp.eye(3)[None]
    for arguments in ({"step": 0}, {"kl": -1.0}, {"kl": 0, "cross_entropy": 0}):
        with pytest.raises(ValueError, match="step > 0 and weights"):
            categorical(WEIGHTED, _table_network(), given, **arguments)
    with pytest.raises(ValueError, match="logits must hold 3 classes"):
        categorical(WEIGHTED, _table_network(), given)(jnp.ones((3, 5)), (), {"x0": x0}, jax.random.key(0))

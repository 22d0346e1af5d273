"""The denoising loss over the whole range of noise: finite in float32 and bf16, and equal to its definition."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tables import rest_slow

from pgm_jax.core import Network
from pgm_jax.processes import (
    DDPM,
    EDM,
    PFGM,
    VE,
    VP,
    Bridge,
    Cosine,
    FlowMatching,
    Heat,
    Normal,
    PFGMpp,
    SubVP,
    Trigonometric,
    linear_betas,
    precondition,
    predict_noise,
    predict_residual,
    predict_v,
    predict_velocity,
    predict_x0,
    zero_terminal_snr,
)
from pgm_jax.training.objectives import levels, sample_losses, weighting
from pgm_jax.training.objectives.pairs import draw_pairs
from pgm_jax.training.objectives.residual import mean_square, weighted_error

# Every process with the end of its time and a time inside.
PROCESSES = {
    "VP": (VP(), 1.0, 0.4),
    "PFGMpp2.5": (PFGMpp(2.5), 1e3, 0.7),
    "EDM": (EDM(), 1e3, 0.7),
    "VE": (VE(), 1.0, 0.6),
    "SubVP": (SubVP(), 1.0, 0.4),
    "Cosine": (Cosine(), 1.0, 0.7),
    "FlowMatching": (FlowMatching(), 1.0, 0.3),
    "Trigonometric": (Trigonometric(0.5), math.pi / 2, 1.0),
    "DDPM": (DDPM(), 1000.0, 400.0),
    "zero-SNR": (DDPM(zero_terminal_snr(linear_betas())), 1000.0, 400.0),
    "PFGM": (PFGM(), 1e3, 0.7),
    "PFGMpp64": (PFGMpp(64), 1e3, 0.7),
    "PFGMpp-inf": (PFGMpp(math.inf), 1e3, 0.7),
    "Heat": (Heat((4, 4), 1.0, 0.5), 1.0, 0.4),
    "Bridge": (Bridge(), 1.0, 0.4),
    "Brownian": (Bridge(schedule="constant"), 1.0, 0.6),
}
EACH = pytest.mark.parametrize("process, end, inside", PROCESSES.values(), ids=PROCESSES)
SOME = pytest.mark.parametrize("case", rest_slow(PROCESSES.values(), keep=1, ids=PROCESSES))
PARAMETERISATIONS = {
    "edm": precondition.edm(0.5),
    "noise": predict_noise,
    "x0": predict_x0,
    "v": predict_v,
    "velocity": predict_velocity,
    "trigonometric": precondition.trigonometric(0.5),
}
WEIGHTINGS = {
    "output": None,
    "simple": weighting.simple,
    "min_snr": weighting.min_snr(5.0),
    "v": weighting.v,
    "edm": weighting.edm(0.5),
    "x0": weighting.x0,
    "likelihood": weighting.likelihood,
}
# The weights that go with each parameterisation: what people train with; the slow tests have all pairs.
USUAL = [("edm", "output"), ("noise", "simple"), ("noise", "likelihood"), ("v", "v"), ("velocity", "output")]
USUAL += [("x0", "min_snr")]
# Compiling is the cost of these tests.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def _valid(process, parameterisation, weight):
    chain = type(process.schedule).__name__ == "Tabulated"
    smooth = not chain and not process.schedule.paired
    if process.schedule.paired:
        return parameterisation == "x0" and weight != "likelihood"
    return (parameterisation != "velocity" or smooth) and (
        weight != "likelihood" or (smooth and isinstance(process.law, Normal))
    )


def _network(dtype):
    """One linear layer over channels, its body in the given dtype."""

    def apply(params, x, t, cond=None, *, key=None, train=False):
        w, b = params["w"].astype(dtype), params["b"].astype(dtype)
        # Heat tells the network one level a frequency.
        time = jnp.tanh(t.astype(dtype)).reshape(t.shape if t.ndim == x.ndim else (-1, 1, 1, 1))
        return x.astype(dtype) @ w + b * time

    return Network(
        lambda key, *_: {"w": 0.3 * jnp.eye(2), "b": jnp.array([0.2, -0.1]).reshape(1, 1, 1, 2)}, apply
    )


def _batch(process, count):
    x0, x1 = 0.5 * jax.random.normal(jax.random.key(7), (2, count, 4, 4, 2))
    return {"x0": x0, "x1": x1} if process.schedule.paired else {"x0": x0}


def _times(end):
    return [0.0, 1e-30, 1e-9 * end, 1e-6 * end, 1e-3 * end, 0.5 * end, end * (1 - 1e-7), end]


def _parameterisation(name):
    return predict_residual if name == "residual" else PARAMETERISATIONS[name]


def _losses(process, pairs, times, dtype, count):
    """Losses of a list of (parameterisation, weighting), and their gradients, by one compiled program."""
    network, batch = _network(dtype), _batch(process, count)

    @quick_jit
    def run(params, key):
        drawn = draw_pairs(process, levels.discrete(times), batch, key, stratified=True)

        def loss(params, p, w):
            error, _ = weighted_error(process, network, _parameterisation(p), WEIGHTINGS[w], params, drawn)
            return jnp.mean(mean_square(error))

        return {pair: jax.value_and_grad(loss)(params, *pair) for pair in pairs}

    return run(network.init(None), jax.random.key(1))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, pytest.param(jnp.float32, marks=pytest.mark.slow)])
@EACH
def test_losses_and_gradients_are_finite_at_every_time(process, end, inside, dtype):
    pairs = [pair for pair in USUAL if _valid(process, *pair)]
    if process.schedule.paired:
        pairs += [("residual", "output")]
    results = _losses(process, pairs, _times(end), dtype, 32)
    for pair, (loss, grads) in results.items():
        assert loss.dtype == jnp.float32
        assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in [loss, *jax.tree.leaves(grads)]), pair
    # The natural loss is of the order of 1 up to the ends, not merely finite; Cauchy noise is unbounded.
    natural = ("residual" if process.schedule.paired else "edm", "output")
    assert float(results[natural][0]) < 5 or not isinstance(process.law, Normal)


@pytest.mark.slow
@EACH
def test_every_combination_is_finite_at_every_time(process, end, inside):
    pairs = [(p, w) for p in PARAMETERISATIONS for w in WEIGHTINGS if _valid(process, p, w)]
    for pair, (loss, grads) in _losses(process, pairs, _times(end), jnp.float32, 32).items():
        assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in [loss, *jax.tree.leaves(grads)]), pair


@SOME
def test_loss_is_the_weighted_error_of_x0(x64, case):
    process, _, inside = case
    network, batch = _network(jnp.float64), _batch(process, 2)
    params = network.init(None)
    pairs = [(p, w) for p in PARAMETERISATIONS for w in ("output", "min_snr") if _valid(process, p, w)]
    pairs += [("x0", w) for w in WEIGHTINGS if _valid(process, "x0", w)]

    @quick_jit
    def run(params, key):
        drawn = draw_pairs(process, levels.discrete([inside]), batch, key)
        rows = {}
        for p, w in pairs:
            error, _ = weighted_error(process, network, PARAMETERISATIONS[p], WEIGHTINGS[w], params, drawn)
            # The definition, in the x0 domain, of one sample; both have the same time.
            c = PARAMETERISATIONS[p](process, drawn.t[0])
            output = network.apply(params, (c.c_in * drawn.x_t[0])[None], jnp.asarray(c.c_noise)[None])[0]
            weight = 1 / c.c_out**2 if w == "output" else WEIGHTINGS[w](process, drawn.t[0])
            direct = c.c_skip * drawn.x_t[0] + c.c_out * output - batch["x0"][0]
            rows[p, w] = mean_square(error)[0], jnp.mean(weight * direct**2)
        return rows

    for pair, (got, expected) in run(params, jax.random.key(3)).items():
        np.testing.assert_allclose(got, expected, rtol=1e-8, err_msg=str(pair))


@SOME
def test_pairs_are_the_process_own(case):
    process, _, inside = case
    batch, key = _batch(process, 3), jax.random.key(5)
    drawn = jax.jit(lambda key: draw_pairs(process, levels.discrete([inside]), batch, key))(key)
    sample = jax.random.split(jax.random.fold_in(key, 2))[1]
    x1 = batch["x1"][2] if "x1" in batch else None
    np.testing.assert_allclose(
        drawn.x_t[2], process.perturb(sample, batch["x0"][2], jnp.float32(inside), x1), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("dtype", rest_slow([jnp.float32, jnp.float64]))
def test_small_noise_is_measured_without_cancellation(x64, dtype):
    # At sigma = 1e-6 the difference x0_hat - x0 itself has lost all but one digit in float32.
    given, batch, network = (
        levels.discrete([1e-6]),
        {"x0": _batch(EDM(), 4)["x0"].astype(dtype)},
        _network(dtype),
    )
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), network.init(None))
    got, _ = sample_losses(EDM(), network, predict_noise, given)(params, batch, jax.random.key(0))
    drawn = draw_pairs(EDM(), given, batch, jax.random.key(0))
    output = np.asarray(network.apply(params, drawn.x_t, drawn.t), np.float64)
    expected = np.mean((output - np.asarray(drawn.noise)) ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose(got, expected, rtol=1e-5)

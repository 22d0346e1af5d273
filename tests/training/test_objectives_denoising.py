"""Identities of the denoising losses, their randomness, conditions, levels and metrics; two toys trained."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

from pgm_jax.core import Network
from pgm_jax.metrics import energy_distance
from pgm_jax.networks import as_denoiser
from pgm_jax.priors import MixturePrior
from pgm_jax.processes import (
    DDPM,
    EDM,
    VP,
    Bridge,
    FlowMatching,
    PFGMpp,
    karras,
    noise_from_x0,
    precondition,
    predict_noise,
    predict_residual,
    predict_v,
    predict_velocity,
    predict_x0,
    v_from_x0,
)
from pgm_jax.samplers import heun, sample
from pgm_jax.training.objectives import augmented, denoising, levels, sample_losses, weighting
from pgm_jax.training.objectives.levels import independent, stratified
from pgm_jax.training.objectives.pairs import draw_pairs

KEY = jax.random.key(4)
X0 = 0.5 * jax.random.normal(jax.random.key(0), (6, 4, 4, 2))
X1 = X0 + 0.2


def _network(x, t, cond=None):
    return jnp.tanh(x) + 0.1 * t.reshape(-1, 1, 1, 1)


NETWORK = Network(lambda key, *_: (), lambda params, x, t, cond=None, **_: _network(x, t))


def _mean(error):
    return np.mean(np.abs(np.asarray(error)) ** 2, axis=(1, 2, 3))


def _both(process, parameterisation, given, weight=None, batch=None):
    batch = batch or {"x0": X0}
    losses, _ = sample_losses(process, NETWORK, parameterisation, given, weight)((), batch, KEY)
    return losses, draw_pairs(process, given, batch, KEY)


def test_unit_weight_on_the_output_is_each_papers_loss():
    half = levels.discrete([0.5])
    # DDPM: the noise.
    chain = levels.discrete(np.arange(1, 1001))
    losses, drawn = _both(DDPM(), predict_noise, chain)
    assert set(np.asarray(drawn.t)) <= set(range(1, 1001)) and len(set(np.asarray(drawn.t))) > 3
    np.testing.assert_allclose(losses, _mean(_network(drawn.x_t, drawn.t) - drawn.noise), rtol=1e-5)
    # v on VP.
    losses, drawn = _both(VP(), predict_v, half)
    target = v_from_x0(VP(), drawn.x_t, 0.5, X0)
    np.testing.assert_allclose(losses, _mean(_network(drawn.x_t, drawn.t) - target), rtol=1e-4)
    # Flow matching: noise - x0.
    losses, drawn = _both(FlowMatching(), predict_velocity, half)
    np.testing.assert_allclose(losses, _mean(_network(drawn.x_t, drawn.t) - (drawn.noise - X0)), rtol=1e-5)
    # I2SB: (x_t - x0) / sqrt(F).
    losses, drawn = _both(Bridge(), predict_residual, half, batch={"x0": X0, "x1": X1})
    target = (drawn.x_t - X0) / math.sqrt(Bridge().schedule.variance(0.5))
    np.testing.assert_allclose(losses, _mean(_network(drawn.x_t, drawn.t) - target), rtol=1e-4)
    # EDM: its weight under its preconditioning.
    a, _ = _both(EDM(), precondition.edm(0.5), levels.lognormal())
    b, _ = _both(EDM(), precondition.edm(0.5), levels.lognormal(), weighting.edm(0.5))
    np.testing.assert_allclose(a, b, rtol=1e-5)


def test_loss_equivalences_of_foundations_1():
    process, t, given = VP(), 0.4, levels.discrete([0.4])
    x0_loss, drawn = _both(process, predict_x0, given, weighting.x0)
    x0_hat = _network(drawn.x_t, drawn.t)
    noise_error = noise_from_x0(process, drawn.x_t, t, x0_hat) - drawn.noise
    v_error = v_from_x0(process, drawn.x_t, t, x0_hat) - v_from_x0(process, drawn.x_t, t, X0)
    snr = float((process.alpha(t) / process.sigma(t)) ** 2)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4)
    weighted = lambda w: _both(process, predict_x0, given, w)[0]
    # |eps - eps^|^2 = SNR |y - y^|^2 and |v - v^|^2 = (SNR + 1) |y - y^|^2.
    close(weighted(weighting.simple), _mean(noise_error))
    close(weighted(weighting.simple), snr * x0_loss)
    close(weighted(weighting.snr), snr * x0_loss)
    close(weighted(weighting.v), _mean(v_error))
    close(weighted(weighting.v), (snr + 1) * x0_loss)
    # min-SNR: on the noise's loss min(SNR, g) / SNR, on v's min(SNR, g) / (SNR + 1), on both sides of g.
    for gamma in (0.5 * snr, 2 * snr):
        close(weighted(weighting.min_snr(gamma)), min(snr, gamma) / snr * _mean(noise_error))
        close(weighted(weighting.min_snr(gamma)), min(snr, gamma) / (snr + 1) * _mean(v_error))
    # Likelihood weighting: g^2 |score - score^|^2.
    _, g2 = process.sde(t)
    close(weighted(weighting.likelihood), g2 * _mean(noise_error / process.sigma(t)))


@pytest.mark.parametrize("process", [VP(), FlowMatching(), EDM()], ids=["VP", "FlowMatching", "EDM"])
def test_likelihood_weight_is_minus_the_rate_of_the_snr(x64, process):
    ratio = lambda t: (process.alpha(t) / process.sigma(t)) ** 2
    for t in (1e-3, 0.3, 0.9):
        rate = -jax.grad(ratio)(t)
        np.testing.assert_allclose(weighting.likelihood(process, jnp.float64(t)), rate, rtol=1e-9)


def test_permuted_and_split_batches_draw_the_same():
    # PFGM++ because its radius belongs to the sample, and every option that draws.
    def apply(params, x, t, cond=None, **_):
        return _network(x, t) + cond["present"].reshape(-1, 1, 1, 1)

    arguments = (PFGMpp(3), Network(None, apply), precondition.edm(0.5), levels.lognormal())
    options = {"condition_dropout": 0.5, "null": {"class": 6}, "stratified": True}
    each, mean = jax.jit(sample_losses(*arguments, **options)), jax.jit(denoising(*arguments, **options))
    batch = {"x0": X0, "cond": {"image": X1, "class": jnp.arange(6)}}
    rows = lambda index: jax.tree.map(lambda leaf: leaf[index], batch) | {"index": index}
    losses, level = each((), batch, KEY)
    order = jnp.array([3, 0, 5, 1, 4, 2])
    np.testing.assert_allclose(each((), rows(order), KEY)[0], losses[order], rtol=1e-6)
    parts = [mean((), (), rows(jnp.arange(i, 6, 2)), KEY)[0] for i in (0, 1)]
    np.testing.assert_allclose(np.mean(parts), np.mean(losses), rtol=1e-6)
    assert len(np.unique(np.asarray(level))) == 6


def test_a_step_has_its_own_randomness_and_each_sample_its_network_key():
    seen = []

    def apply(params, x, t, cond=None, *, key=None, train=False):
        assert train
        seen.append(np.asarray(jax.random.key_data(key)))
        return x

    objective = denoising(EDM(), Network(None, apply), predict_x0, levels.lognormal())
    first = objective((), "carry", {"x0": X0}, KEY)
    again = objective((), "carry", {"x0": X0}, KEY)
    other = objective((), "carry", {"x0": X0}, jax.random.fold_in(KEY, 1))
    objective((), "carry", {"x0": X0[3:], "index": jnp.arange(3, 6)}, KEY)
    assert first[0] == again[0] != other[0] and first[1][0] == "carry"
    np.testing.assert_array_equal(seen[0], seen[1])
    np.testing.assert_array_equal(seen[0][3:], seen[3])
    assert len(np.unique(np.concatenate([seen[0], seen[2]]), axis=0)) == 12


def test_condition_dropout_takes_everything_from_a_share_of_samples():
    seen = []

    def apply(params, x, t, cond=None, **_):
        seen.append(cond)
        return x

    count = 4000
    cond = {
        "image": jnp.ones((count, 1, 2)),
        "present": (jnp.arange(count) % 10 > 0).astype(jnp.float32),
        "class": jnp.arange(count) % 5,
        "vector": jnp.ones((count, 3)),
        "tokens": jnp.ones((count, 2, 4)),
    }
    null = {"class": 5, "vector": jnp.array([9.0, 8.0, 7.0])}
    batch = {"x0": jnp.ones((count, 1, 2)), "cond": cond}
    make = lambda rate, null: denoising(
        EDM(), Network(None, apply), predict_x0, levels.lognormal(), condition_dropout=rate, null=null
    )
    make(0.2, null)((), (), batch, KEY)
    gone = np.asarray(seen[0]["class"]) == 5
    assert abs(gone.mean() - 0.2) < 4 * math.sqrt(0.16 / count)
    np.testing.assert_array_equal(seen[0]["present"], np.where(gone, 0, cond["present"]))
    np.testing.assert_array_equal(seen[0]["token_mask"], np.where(gone[:, None], 0, np.ones((count, 2))))
    np.testing.assert_array_equal(seen[0]["vector"], np.where(gone[:, None], [9, 8, 7], 1))
    np.testing.assert_array_equal(seen[0]["class"][~gone], cond["class"][~gone])
    np.testing.assert_array_equal(seen[0]["image"], cond["image"])
    make(0.0, None)((), (), batch, KEY)
    assert seen[1].keys() == cond.keys()
    with pytest.raises(ValueError, match="no 'vector'"):
        make(0.2, {"class": 5})((), (), batch, KEY)
    with pytest.raises(ValueError, match="probability"):
        make(1.0, None)


def test_complex_images_are_two_real_channels():
    x0 = jax.lax.complex(X0[..., :1], X0[..., 1:])
    cond = {"image": x0}

    def apply(params, x, t, cond=None, **_):
        assert x.shape == X0.shape and x.dtype == jnp.float32
        np.testing.assert_array_equal(cond["image"], X0)
        return _network(x, t)

    given, network = levels.discrete([0.7]), Network(None, apply)
    losses, _ = sample_losses(EDM(), network, predict_noise, given)((), {"x0": x0, "cond": cond}, KEY)
    drawn = draw_pairs(EDM(), given, {"x0": x0}, KEY)
    split = lambda z: jnp.concatenate([z.real, z.imag], axis=-1)
    expected = _mean(_network(split(drawn.x_t), drawn.t) - split(drawn.noise))
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert drawn.x_t.dtype == jnp.complex64


def test_the_worst_level_is_named():
    # A network that breaks above sigma = 3.
    network = Network(None, lambda p, x, t, cond=None, **_: jnp.where(t > 3, p, 1.0).reshape(-1, 1, 1, 1) * x)
    given = levels.discrete([0.1, 1.0, 3.5])
    objective = jax.jit(denoising(EDM(), network, predict_x0, given, stratified=True))
    loss, (_, metrics) = objective(jnp.nan, (), {"x0": X0}, KEY)
    assert jnp.isnan(loss) and metrics["worst_level"] == 3.5
    # Where all is finite: the largest loss, here the largest noise.
    loss, (_, metrics) = objective(1.0, (), {"x0": X0}, KEY)
    assert metrics["worst_level"] == 3.5 and metrics["loss"] == loss
    # Pure noise has a finite name, and a bridge's end too.
    end = denoising(FlowMatching(), NETWORK, predict_x0, levels.discrete([1.0]), weighting.x0)
    assert jnp.isfinite(end((), (), {"x0": X0}, KEY)[1][1]["worst_level"])
    end = denoising(Bridge(), NETWORK, predict_x0, levels.discrete([1.0]), weighting.x0)
    assert jnp.isfinite(end((), (), {"x0": X0, "x1": X1}, KEY)[1][1]["worst_level"])


def test_augmentation_moves_an_image_and_its_condition_alike():
    seen = {}

    def objective(params, carry, batch, key):
        seen.update(batch)
        return jnp.mean(batch["x0"]), (carry, {"key": key})

    turn = lambda key, x: jnp.roll(x, jax.random.randint(key, (), 0, 4), axis=0)
    batch = {"x0": X0, "x1": X1, "cond": {"image": X0, "class": jnp.arange(6)}, "index": jnp.arange(6) + 10}
    _, (carry, metrics) = augmented(turn, objective, on=("x0", "cond/image"))((), 3, batch, KEY)
    np.testing.assert_array_equal(seen["x0"], seen["cond"]["image"])
    np.testing.assert_array_equal(seen["x1"], X1)
    assert carry == 3 and metrics["key"] != KEY
    shifts = [
        next(s for s in range(4) if np.array_equal(np.roll(X0[i], s, 0), seen["x0"][i])) for i in range(6)
    ]
    assert len(set(shifts)) > 1
    # Sample 12 turns by as much wherever it stands.
    whole = seen["x0"][2]
    augmented(turn, objective)((), 3, {"x0": X0[2:3], "index": jnp.array([12])}, KEY)
    np.testing.assert_array_equal(seen["x0"][0], whole)
    with pytest.raises(ValueError, match="no entry 'mask'"):
        augmented(turn, objective, on=("cond/mask",))((), 3, batch, KEY)


def test_levels_have_their_laws():
    keys = jax.random.split(KEY, 20_000)
    u = jax.vmap(independent)(keys)
    assert scipy.stats.kstest(u, "uniform").pvalue > 1e-3 and 0 < u.min() and u.max() < 1
    sigma = levels.lognormal(-1.2, 1.2)(EDM(), u)
    # Foundations 2.4: the 1, 50 and 99 % quantiles.
    quantiles = levels.lognormal(-1.2, 1.2)(EDM(), jnp.array([0.01, 0.5, 0.99]))
    np.testing.assert_allclose(quantiles, [0.01847, 0.30119, 4.91169], rtol=1e-4)
    for process in (VP(), FlowMatching(), DDPM()):
        t = levels.lognormal(-1.2, 1.2)(process, u)
        ratio = process.sigma(t) / process.alpha(t)
        np.testing.assert_allclose(np.median(np.log(ratio)), np.median(np.log(sigma)), atol=2e-3)
    logit = levels.lognormal(0.3, 0.8)(FlowMatching(), u)
    assert (
        scipy.stats.kstest(scipy.special.logit(np.asarray(logit, np.float64)), "norm", (0.3, 0.8)).pvalue
        > 1e-3
    )
    t = levels.uniform(0.2, 0.6)(VP(), u)
    assert scipy.stats.kstest(t, "uniform", (0.2, 0.4)).pvalue > 1e-3
    counts = np.bincount(levels.discrete([5, 1, 9])(DDPM(), u).astype(int))[[1, 5, 9]]
    assert scipy.stats.chisquare(counts).pvalue > 1e-3
    for make in (
        lambda: levels.lognormal(0, 0),
        lambda: levels.uniform(1, 1),
        lambda: levels.discrete([-1.0]),
    ):
        with pytest.raises(ValueError):
            make()


def test_stratified_levels_are_uniform_and_evenly_spread():
    index = jnp.arange(256)
    rows = jax.jit(jax.vmap(lambda key: jax.vmap(lambda i: stratified(key, i))(index)))(
        jax.random.split(KEY, 400)
    )
    # Each is uniform over keys; each run of 256 is spread over (0, 1), so means vary far less than 1 / sqrt(256).
    assert scipy.stats.kstest(rows[:, 100], "uniform").pvalue > 1e-3
    gaps = np.diff(np.sort(np.asarray(rows), axis=1), axis=1)
    assert gaps.max() < 3 / 256 and gaps.min() > 0.3 / 256
    spread = float(jnp.std(jnp.mean(rows**2, axis=1)))
    assert spread < 0.15 * math.sqrt(4 / 45 / 256)
    # Indices far along keep their full resolution.
    far = jax.vmap(lambda i: stratified(KEY, i))(index + 2**30)
    assert np.diff(np.sort(np.asarray(far))).max() < 3 / 256


def test_bad_batches_are_refused():
    objective = denoising(EDM(), NETWORK, predict_x0, levels.lognormal())
    with pytest.raises(ValueError, match='needs "x0"'):
        objective((), (), {"image": X0}, KEY)
    with pytest.raises(ValueError, match="leading axes"):
        objective((), (), {"x0": X0, "cond": {"class": jnp.arange(5)}}, KEY)
    with pytest.raises(ValueError, match="end point"):
        denoising(Bridge(), NETWORK, predict_x0, levels.uniform())((), (), {"x0": X0}, KEY)
    narrow = Network(None, lambda p, x, t, cond=None, **_: x[..., :1])
    with pytest.raises(ValueError, match="must be equal"):
        denoising(EDM(), narrow, predict_x0, levels.lognormal())((), (), {"x0": X0}, KEY)
    for process in (PFGMpp(8), Bridge(), DDPM()):
        with pytest.raises(ValueError):
            weighting.likelihood(process, jnp.float32(0.5))
    for make in (lambda: weighting.min_snr(0), lambda: weighting.edm(0)):
        with pytest.raises(ValueError, match="> 0"):
            make()


def _tiny_network(width=64):
    """Two hidden layers on the point and Fourier features of the level."""

    def init(key, *_):
        sizes = [(2 + 8, width), (width, width), (width, 2)]
        keys = jax.random.split(key, len(sizes))
        layers = [
            {"w": jax.random.normal(k, s) / math.sqrt(s[0]), "b": jnp.zeros((1, s[1]))}
            for k, s in zip(keys, sizes, strict=True)
        ]
        return {str(i): layer for i, layer in enumerate(layers)}

    def apply(params, x, t, cond=None, *, key=None, train=False):
        waves = jnp.arange(1.0, 5.0)[None] * t[:, None]
        h = jnp.concatenate([x, jnp.cos(waves), jnp.sin(waves)], axis=-1)
        for name in ("0", "1"):
            h = jax.nn.silu(h @ params[name]["w"] + params[name]["b"])
        return h @ params["2"]["w"] + params["2"]["b"]

    return Network(init, apply)


@pytest.mark.parametrize("D", [math.inf, 8])
def test_two_hundred_steps_on_a_toy_reach_a_small_energy_distance(D):
    # Three narrow Gaussians. Measured: .0053 (D = inf) and .0042 (8) after training, .20 before it, .0019
    # between two exact sets of 1024.
    process, network = PFGMpp(D), _tiny_network()
    means = jnp.array([[1.0, 0.0], [-0.5, 0.9], [-0.5, -0.9]])
    prior = MixturePrior(jnp.array([0.5, 0.25, 0.25]), means, jnp.tile(0.01 * jnp.eye(2), (3, 1, 1)))
    data = jax.jit(jax.vmap(prior.sample))(jax.random.split(jax.random.key(0), 3072))
    parameterisation = precondition.edm(0.75)
    objective = denoising(process, network, parameterisation, levels.lognormal(-1.0, 1.2), stratified=True)
    optimiser = optax.adam(optax.cosine_decay_schedule(1e-2, 200))

    @jax.jit
    def train(key):
        params = network.init(key)

        def step(state, step):
            params, moments = state
            at = jax.random.fold_in(key, step)
            rows = jax.random.choice(at, data[:2048], (512,))
            gradient, _ = jax.grad(objective, has_aux=True)(params, (), {"x0": rows}, at)
            updates, moments = optimiser.update(gradient, moments)
            return (optax.apply_updates(params, updates), moments), None

        return jax.lax.scan(step, (params, optimiser.init(params)), jnp.arange(200))[0][0]

    @jax.jit
    def draw(key, params):
        denoise = as_denoiser(network, params, process, parameterisation)
        return sample(key, heun(), denoise, process, karras(18, 0.01, 20.0, process=process), shape=(1024, 2))

    params = train(jax.random.key(1))
    start = network.init(jax.random.key(1))
    distance = lambda p: float(energy_distance(draw(jax.random.key(2), p), data[2048:]))
    assert distance(params) < 0.01
    assert distance(start) > 0.1

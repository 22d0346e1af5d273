"""Layers, resampling, embeddings and attention against NumPy, SciPy and, where installed, PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle_unet as oracle
import pytest
from flax import nnx

from pgm_jax.core import Precision
from pgm_jax.networks.attention import Attention, attend
from pgm_jax.networks.embedding import TimeEmbedding, fourier, sinusoidal
from pgm_jax.networks.layers import Conv, GroupNorm, Linear, conv, dropout, fold_key
from pgm_jax.networks.normalisation import group_norm, layer_norm
from pgm_jax.networks.resample import DOUBLE, HALVE, depth_to_space, space_to_depth

HALF = Precision(compute=jnp.bfloat16)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def given(module, seed=0):
    """Fills a module with random parameters, and returns it with the same parameters as a dict."""
    values = {}
    for number, (path, leaf) in enumerate(nnx.to_flat_state(nnx.state(module))):
        value = draw(*leaf.get_value().shape, seed=seed + number)
        leaf.set_value(jnp.asarray(value))
        node = values
        for name in path[:-1]:
            node = node.setdefault(str(name), {})
        node[path[-1]] = value
    return module, values


@pytest.mark.parametrize(("dims", "size"), [(1, 3), (2, 1), (2, 3), (3, 3)])
def test_convolution(dims, size):
    layer, params = given(Conv(3, 4, dims, nnx.Rngs(0), size=size))
    x = draw(2, *(4, 6, 2)[:dims], 3)
    np.testing.assert_allclose(layer(x), oracle.conv(params, x.astype(np.float64)), atol=1e-5)


def test_kernels_start_with_unit_gain_or_at_zero():
    kernel = Linear(256, 64, nnx.Rngs(1)).kernel.get_value()
    np.testing.assert_allclose(jnp.var(kernel), 2 / 320, rtol=0.03)  # 16384 draws: 0.8 % is one deviation
    kernel = Conv(32, 16, 2, nnx.Rngs(1)).kernel.get_value()
    np.testing.assert_allclose(jnp.var(kernel), 2 / (9 * 48), rtol=0.05)
    assert not np.any(Conv(3, 4, 2, nnx.Rngs(0), zero=True).kernel.get_value())


@pytest.mark.parametrize("channels", [3, 24, 136])
def test_group_norm_with_and_without_modulation(channels):
    layer, params = given(GroupNorm(channels))
    x, gain, shift = draw(2, 4, 2, channels), draw(2, channels, seed=1), draw(2, channels, seed=2)
    expected = oracle.group_norm(params, x.astype(np.float64))
    np.testing.assert_allclose(layer(x), expected, atol=1e-5)
    modulated = expected * (1 + gain[:, None, None]) + shift[:, None, None]
    np.testing.assert_allclose(layer(x, gain, shift), modulated, atol=2e-5)


def test_group_norm_survives_a_large_mean_and_bfloat16():
    one, zero = jnp.ones((1, 8)), jnp.zeros((1, 8))
    x = 1000 + draw(2, 8, 8, 8)
    expected = oracle.group_norm({"scale": np.ones(8), "bias": np.zeros(8)}, x.astype(np.float64))
    # E[x^2] - E[x]^2 in float32 would be wrong by tens of per cent here.
    np.testing.assert_allclose(group_norm(x, 2, one, zero), expected, atol=1e-3)
    low = jnp.asarray(draw(2, 16, 16, 8), jnp.bfloat16)
    np.testing.assert_allclose(
        group_norm(low, 2, one, zero), group_norm(low.astype(jnp.float32), 2, one, zero), atol=1e-6
    )
    assert GroupNorm(8, precision=HALF)(low).dtype == jnp.bfloat16


@pytest.mark.parametrize("silu", [False, True])
def test_group_norm_and_its_derivatives_of_two_orders_in_every_direction(silu):
    def by_definition(x, scale, bias):
        grouped = x.reshape(2, 12, 2, 3)
        centred = grouped - grouped.mean((1, 3), keepdims=True)
        hat = centred / jnp.sqrt(jnp.mean(centred**2, (1, 3), keepdims=True) + 1e-6)
        u = hat.reshape(x.shape) * scale[:, None, None] + bias[:, None, None]
        return u / (1 + jnp.exp(-u)) if silu else u

    ours = lambda x, scale, bias: group_norm(x, 2, scale, bias, silu=silu)
    # One scale for each sample, one bias for both; the loss is curved, so that second derivatives mix.
    at, along = ((draw(2, 3, 4, 6, seed=s), draw(2, 6, seed=s + 1), draw(1, 6, seed=s + 2)) for s in (0, 3))
    loss = lambda f: lambda *args: jnp.sum(jnp.sin(f(*args)))
    slope = lambda f: lambda *args: jax.jvp(loss(f), args, along)[1]
    everything = (0, 1, 2)
    results = [
        (f(*at), slope(f)(*at), jax.grad(loss(f), everything)(*at), jax.grad(slope(f), everything)(*at))
        + (jax.jvp(jax.grad(loss(f), everything), at, along)[1],)
        for f in (ours, by_definition)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5), *results)


def test_group_norm_with_silu_keeps_its_input_alone_for_the_backward_pass():
    x, one, zero = draw(1, 64, 64, 8), jnp.ones((1, 8)), jnp.zeros((1, 8))
    _, backward = jax.vjp(lambda x: group_norm(x, 2, one, zero, silu=True), x)
    kept = sum(array.size for array in jax.tree.leaves(backward) if hasattr(array, "size"))
    assert x.size <= kept < 1.1 * x.size


def test_layer_norm():
    x = 5 + draw(2, 3, 7).astype(np.float64)
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(layer_norm(x), expected, atol=1e-5)


def test_dropout_draws_for_each_sample(key):
    x = jnp.ones((3, 40, 50))
    dropped = dropout(key, x, 0.2, True)
    assert set(np.unique(dropped)) == {0.0, 1.25}
    # 6000 Bernoulli(0.2) draws: five deviations are 0.026.
    np.testing.assert_allclose(np.mean(dropped == 0), 0.2, atol=0.026)
    np.testing.assert_array_equal(dropout(key, x[:2], 0.2, True), dropped[:2])
    keys = jnp.stack([jax.random.fold_in(key, i) for i in (2, 0)])
    np.testing.assert_array_equal(dropout(keys, x[:2], 0.2, True), dropped[jnp.array([2, 0])])
    assert not np.array_equal(dropped[0], dropped[1])
    assert dropout(key, x, 0.2, False) is x and dropout(None, x, 0.0, True) is x
    with pytest.raises(ValueError, match="needs a key"):
        dropout(None, x, 0.2, True)


def test_keys_of_layers(key):
    folded = fold_key(jnp.stack([key, jax.random.key(5)]), 3)
    assert folded[0] == fold_key(key, 3) == jax.random.fold_in(key, 3)
    assert fold_key(None, 3) is None


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("how", ["average", "fir"])
def test_resampling(dims, how):
    x = draw(2, *(8, 4, 6)[:dims], 3)
    transposed = lambda x: jax.linear_transpose(HALVE[how], DOUBLE[how](x))(x)[0]
    halved, doubled, adjoint = jax.jit(lambda x: (HALVE[how](x), DOUBLE[how](x), transposed(x)))(x)
    np.testing.assert_allclose(halved, oracle.resampled(x, "halve", how), atol=1e-6)
    np.testing.assert_allclose(doubled, oracle.resampled(x, "double", how), atol=1e-6)
    np.testing.assert_allclose(doubled, 2**dims * adjoint, atol=1e-6)


def test_fir_keeps_constants_inside_and_removes_the_highest_frequency():
    line = jnp.ones((1, 12, 1))
    np.testing.assert_allclose(HALVE["fir"](line)[0, 1:-1], 1)
    np.testing.assert_allclose(DOUBLE["fir"](line)[0, 1:-1], 1)
    alternating = line * jnp.array([1.0, -1.0] * 6)[None, :, None]
    np.testing.assert_allclose(HALVE["fir"](alternating)[0, 1:-1], 0, atol=1e-7)


@pytest.mark.parametrize(("dims", "patch"), [(1, 3), (2, 1), (2, 2), (3, 2)])
def test_space_to_depth(dims, patch):
    x = draw(2, *(6, 12, 6)[:dims], 2)
    deep = space_to_depth(x, patch)
    np.testing.assert_array_equal(deep, oracle.blocks_to_channels(x, patch))
    np.testing.assert_array_equal(depth_to_space(deep, patch), x)


def test_features_of_time():
    t = np.array([-5.0, 0.0, 0.3, 999.0])
    np.testing.assert_allclose(sinusoidal(t, 8), oracle.time_features(t, 8, "sinusoidal"), atol=1e-4)
    t = np.array([-5.0, 0.0, 0.3, 5.0])
    np.testing.assert_allclose(fourier(t, 8), oracle.time_features(t, 8, "fourier"), atol=1e-4)
    # bfloat16 layers see features of the float32 time: 998 and 999 differ, which they do not in bfloat16.
    near = TimeEmbedding(32, 8, nnx.Rngs(0), precision=HALF)(jnp.array([998.0, 999.0]))
    assert near.dtype == jnp.bfloat16 and not np.array_equal(near[0], near[1])
    with pytest.raises(ValueError, match="even"):
        fourier(t, 7)


@pytest.mark.parametrize(("context", "heads"), [(None, 1), (None, 4), (5, 4)])
def test_attention(context, heads):
    layer, params = given(Attention(8, nnx.Rngs(0), heads=heads, context=context))
    x, tokens = draw(2, 6, 8), None if context is None else draw(2, 4, context, seed=1)
    source = x if context is None else tokens
    mask = np.ones(source.shape[:2])
    mask[0, 2:] = 0
    for used in (None, mask):
        expected = oracle.attention(params, x.astype(np.float64), source, heads, used)
        np.testing.assert_allclose(layer(x, tokens, used), expected, atol=2e-5)


def test_the_softmax_of_low_precision_attention_is_float32():
    # Logits 256 and 257 are one number in bfloat16; their weights differ by a factor e.
    query, key = jnp.full((1, 1, 1, 1), 1.0), jnp.array([256.0, 257.0]).reshape(1, 2, 1, 1)
    query, key = jnp.concatenate([query, query / 256], -1), jnp.concatenate([key * 0 + 256, key - 256], -1)
    key = key.at[..., 1].multiply(256)
    value = jnp.array([0.0, 1.0]).reshape(1, 2, 1, 1) * jnp.ones((1, 2, 1, 2))
    low = attend(*(a.astype(jnp.bfloat16) for a in (query * 2**0.5, key, value)))
    np.testing.assert_allclose(low.astype(jnp.float32)[0, 0, 0], 1 / (1 + np.exp(-1)), atol=0.01)


def test_heads_must_divide_the_channels():
    with pytest.raises(ValueError, match="3 heads do not divide 8 channels"):
        Attention(8, nnx.Rngs(0), heads=3)


@pytest.mark.slow
def test_pytorch_agrees():
    torch = pytest.importorskip("torch")
    functional, tensor = torch.nn.functional, torch.from_numpy
    x, kernel = draw(2, 6, 4, 8), draw(3, 3, 8, 4, seed=1)
    theirs = functional.conv2d(tensor(x).permute(0, 3, 1, 2), tensor(kernel).permute(3, 2, 0, 1), padding=1)
    np.testing.assert_allclose(conv(x, kernel), theirs.permute(0, 2, 3, 1), atol=2e-5)
    norm = torch.nn.GroupNorm(2, 8, eps=1e-6)
    theirs = norm(tensor(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).detach()
    np.testing.assert_allclose(GroupNorm(8)(x), theirs, atol=1e-5)
    q, k, v = (draw(2, 5, 3, 4, seed=s) for s in (2, 3, 4))
    heads_first = [tensor(a).transpose(1, 2) for a in (q, k, v)]
    theirs = functional.scaled_dot_product_attention(*heads_first).transpose(1, 2)
    np.testing.assert_allclose(attend(q, k, v), theirs, atol=1e-5)

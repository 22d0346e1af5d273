"""DRUNet against a forward pass written out by hand, in every dimension, and its refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle_unet import filled
from scipy import ndimage

from pgm_jax import networks
from pgm_jax.core.precision import MIXED
from pgm_jax.networks.embedding import sinusoidal

SMALL = {"widths": (4, 6), "encoder": (1, 1), "decoder": (1,), "embedding": 8}


def _conv(x, layer):
    kernel, bias = np.asarray(layer["kernel"], np.float64), np.asarray(layer["bias"])
    y = np.zeros((*x.shape[:-1], kernel.shape[-1]))
    for b in range(x.shape[0]):
        for i in range(kernel.shape[-2]):
            for o in range(kernel.shape[-1]):
                y[b, ..., o] += ndimage.correlate(x[b, ..., i], kernel[..., i, o], mode="constant")
    return y + bias


def _linear(x, layer):
    return x @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"])


def _silu(x):
    return x / (1 + np.exp(-x))


def _block(x, embedded, layer):
    gain, shift = np.split(_linear(embedded, layer["modulate"]), 2, axis=-1)
    wide = lambda v: v.reshape(len(v), *[1] * (x.ndim - 2), -1)
    hidden = np.maximum(_conv(x, layer["conv1"]) * (1 + wide(gain)) + wide(shift), 0)
    return x + _conv(hidden, layer["conv2"])


def _deep(x, f):
    # Every voxel of a patch becomes channels, in the order of the patch.
    places = np.ndindex(*[f] * (x.ndim - 2))
    return np.concatenate(
        [x[(slice(None), *(slice(p, None, f) for p in place))] for place in places], axis=-1
    )


def _wide(x, f, channels):
    y = np.zeros((x.shape[0], *(n * f for n in x.shape[1:-1]), channels))
    for number, place in enumerate(np.ndindex(*[f] * (x.ndim - 2))):
        part = x[..., number * channels : (number + 1) * channels]
        y[(slice(None), *(slice(p, None, f) for p in place))] = part
    return y


def _by_hand(params, x, t, channels):
    p = params
    features = np.asarray(sinusoidal(4 * t, 64), np.float64)
    embedded = _silu(_linear(_silu(_linear(features, p["embed"]["linear1"])), p["embed"]["linear2"]))
    fine = _block(_conv(_deep(x, 2), p["stem"]), embedded, p["encoder"]["0"]["0"])
    coarse = _block(_linear(_deep(fine, 2), p["down"]["0"]), embedded, p["encoder"]["1"]["0"])
    joined = _wide(_linear(coarse, p["up"]["0"]), 2, 4) + fine
    return _wide(_conv(_block(joined, embedded, p["decoder"]["0"]["0"]), p["head"]), 2, channels)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_equals_the_forward_pass_by_hand(dims):
    network = networks.drunet(2, dims=dims, **SMALL)
    params = filled(network)
    x = jax.random.normal(jax.random.key(0), (2, *[8] * dims, 2))
    t = jnp.array([-0.7, 0.4])
    expected = _by_hand(params, np.asarray(x, np.float64), t, 2)
    np.testing.assert_allclose(network.apply(params, x, t), expected, rtol=2e-4, atol=2e-5, equal_nan=False)


def test_starts_as_zero_and_counts_its_parameters():
    network = networks.drunet(2)
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 3_139_944
    small = networks.drunet(2, **SMALL)
    x = jax.random.normal(jax.random.key(0), (1, 8, 8, 2))
    assert not np.any(small.apply(small.init(jax.random.key(1)), x, jnp.zeros(1)))


def test_bfloat16_is_close():
    network, half = networks.drunet(2, **SMALL), networks.drunet(2, **SMALL, precision=MIXED)
    params = filled(network)
    x, t = jax.random.normal(jax.random.key(0), (2, 8, 8, 2)), jnp.array([-1.0, 1.0])
    full, rough = network.apply(params, x, t), half.apply(params, x, t)
    assert rough.dtype == jnp.float32 and jnp.linalg.norm(full - rough) < 0.03 * jnp.linalg.norm(full)


@pytest.mark.parametrize(
    ("x", "cond", "message"),
    [
        (np.zeros((1, 8, 6, 2)), None, "multiples of 4"),
        (np.zeros((1, 8, 8, 3)), None, "2 channels"),
        (np.zeros((1, 8, 8, 8, 2)), None, "2 spatial axes"),
        (np.zeros((1, 8, 8, 2)), {"class": np.zeros(1, int)}, "takes no condition"),
    ],
)
def test_wrong_inputs_are_named(x, cond, message):
    network = networks.drunet(2, **SMALL)
    with pytest.raises(ValueError, match=message):
        network.apply(filled(network), jnp.asarray(x), jnp.zeros(1), cond)


def test_levels_must_agree():
    with pytest.raises(ValueError, match="one decoder entry fewer"):
        networks.drunet(2, widths=(4, 8), encoder=(1, 1), decoder=(1, 1))

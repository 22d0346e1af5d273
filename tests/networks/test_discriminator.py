"""The patch discriminator against a forward pass written out by hand, its patches, and its refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle_unet import filled
from scipy import ndimage

from pgm_jax.core.precision import MIXED
from pgm_jax.networks import patch_discriminator


def _conv(x, layer):
    kernel, bias = np.asarray(layer["kernel"], np.float64), np.asarray(layer["bias"])
    y = np.zeros((*x.shape[:-1], kernel.shape[-1]))
    for b in range(x.shape[0]):
        for i in range(kernel.shape[-2]):
            for o in range(kernel.shape[-1]):
                y[b, ..., o] += ndimage.correlate(x[b, ..., i], kernel[..., i, o], mode="constant")
    return y + bias


def _strided(x, layer, dims):
    """A pointwise map behind space-to-depth is a convolution of stride 2 with a kernel of side 2."""
    kernel = np.asarray(layer["kernel"], np.float64).reshape(*[2] * dims, x.shape[-1], -1)
    places = np.ndindex(*[2] * dims)
    parts = (x[(slice(None), *(slice(p, None, 2) for p in place))] @ kernel[place] for place in places)
    return sum(parts) + np.asarray(layer["bias"])


def _leaky(x):
    return np.where(x > 0, x, 0.2 * x)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_forward_pass_by_hand(dims):
    network = patch_discriminator(2, widths=(3, 4), condition=1, dims=dims)
    params = filled(network, seed=1)
    rng = np.random.default_rng(0)
    draw = lambda channels: rng.normal(size=(2, *(4, 6, 2)[:dims], channels)).astype(np.float32)
    x, seen = draw(2), draw(1)
    h = _leaky(_conv(np.concatenate([x, seen], -1), params["stem"]))
    h = _leaky(_conv(_strided(h, params["down"]["0"], dims), params["mix"]["0"]))
    logits = jax.jit(network.apply)(params, x, None, {"image": seen})
    np.testing.assert_allclose(logits, _conv(h, params["head"]), atol=1e-5)


@pytest.mark.parametrize("widths, side", [((2,), 5), ((2, 2), 12), ((2, 2, 2), 26)])
def test_a_logit_sees_its_patch_alone(widths, side):
    network = patch_discriminator(1, widths=widths, dims=1)
    params = filled(network, seed=2)
    size = 64
    middle = lambda x: network.apply(params, x, None)[0, size // 2 ** len(widths), 0]
    slope = jax.grad(middle)(jax.random.normal(jax.random.key(1), (1, size, 1)))[0, :, 0]
    seen = np.flatnonzero(np.asarray(slope))
    assert seen[-1] - seen[0] + 1 == side


def test_it_starts_as_zero_and_computes_in_bfloat16():
    network = patch_discriminator(1, widths=(4, 8), precision=MIXED)
    params = network.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (3, 8, 8, 1))
    assert not network.apply(params, x, None).any()
    params = filled(network, seed=3)
    logits = network.apply(params, x, None)
    assert logits.dtype == jnp.float32 and logits.shape == (3, 4, 4, 1)
    full = patch_discriminator(1, widths=(4, 8)).apply(params, x, None)
    error = np.max(np.abs(logits - full)) / np.max(np.abs(full))
    assert 1e-5 < error < 0.05


@pytest.mark.parametrize(
    "call, told",
    [
        (lambda: patch_discriminator(1, widths=()), "at least one width"),
        (lambda: _call((1, 8, 8, 2)), "2 spatial axes, 1 channels"),
        (lambda: _call((1, 8, 7, 1)), "multiples of 2"),
        (lambda: _call((1, 8, 8, 1), condition=1), "give it, or build with 0"),
    ],
)
def test_wrong_input_is_refused(call, told):
    with pytest.raises(ValueError, match=told):
        call()


def _call(shape, **options):
    network = patch_discriminator(1, widths=(2, 2), **options)
    return network.apply(network.init(jax.random.key(0)), jnp.zeros(shape), None, None)

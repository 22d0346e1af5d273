"""What a conditioned network reads: absence, presence, null class, masked tokens, and what is refused."""

import jax
import numpy as np
import pytest
from flax import nnx
from oracle_unet import filled

from pgm_jax.networks import Conditions, from_nnx, unet
from pgm_jax.networks.attention import Attention
from pgm_jax.networks.condition import Conditioning
from pgm_jax.networks.layers import Linear

ALL = Conditions(image=2, classes=3, vector=2, tokens=4)


class Probe(nnx.Module):
    """Reads every part of what is conditioned: the joined image, the embedding, tokens behind their mask."""

    def __init__(self, rngs):
        self.conditioning = Conditioning(ALL, 4, rngs)
        self.image = Linear(ALL.input_channels(1), 4, rngs)
        self.cross = Attention(4, rngs, context=ALL.tokens)

    def __call__(self, x, t, cond):
        seen = self.conditioning(x, cond)
        h = self.image(seen.x) + seen.embedding[:, None]
        return jax.nn.silu(h) + self.cross(h, seen.tokens, seen.mask)


@pytest.fixture(scope="module")
def network():
    return from_nnx(Probe)


@pytest.fixture(scope="module")
def apply(network):
    params = filled(network)
    x = np.random.default_rng(1).standard_normal((3, 8, 1)).astype(np.float32)
    return lambda cond=None: network.apply(params, x, None, cond)


@pytest.fixture(scope="module")
def full():
    draw = np.random.default_rng(2).standard_normal
    return {
        "image": draw((3, 8, 2)).astype(np.float32),
        "class": np.array([2, 0, 1]),
        "vector": draw((3, 2)).astype(np.float32),
        "tokens": draw((3, 2, 4)).astype(np.float32),
    }


def test_absent_conditions(apply, full):
    absent = apply()
    null = {
        # An absent image may hold anything, such as the NaN of a missing measurement.
        "image": np.full_like(full["image"], np.nan),
        "present": np.zeros(3, np.float32),
        "class": np.full(3, 3),
        "tokens": full["tokens"],
        "token_mask": np.zeros((3, 2)),
    }
    np.testing.assert_allclose(apply(null), absent, atol=1e-6)
    assert np.all(np.isfinite(absent))


@pytest.mark.parametrize("name", ["image", "class", "vector", "tokens"])
def test_each_condition_matters_alone(apply, full, name):
    assert np.all(np.max(np.abs(apply({name: full[name]}) - apply()), axis=(1, 2)) > 1e-3)


def test_zeros_are_told_from_absence(apply, full):
    for name in ("image", "vector"):
        assert not np.allclose(apply({name: 0 * full[name]}), apply(), atol=1e-4)


def test_presence_is_of_each_sample(apply, full):
    present = np.array([1, 0, 1], np.float32)
    dropped = apply({"image": full["image"], "present": present})
    expected = np.where(present[:, None, None] == 1, apply({"image": full["image"]}), apply())
    np.testing.assert_allclose(dropped, expected, atol=1e-6)


def test_masked_tokens_are_shorter_tokens(apply, full):
    mask = np.array([[1, 0], [1, 0], [1, 0]], bool)
    masked = apply({"tokens": full["tokens"], "token_mask": mask})
    np.testing.assert_allclose(masked, apply({"tokens": full["tokens"][:, :1]}), atol=1e-6)
    assert not np.allclose(masked, apply({"tokens": full["tokens"]}), atol=1e-4)


def test_the_order_of_tokens_does_not_matter(apply, full):
    swapped = {"tokens": full["tokens"][:, ::-1].copy()}
    np.testing.assert_allclose(apply(swapped), apply({"tokens": full["tokens"]}), atol=1e-6)


def test_vmap_over_samples_is_the_batch(network, apply, full):
    params, x = filled(network), np.random.default_rng(1).standard_normal((3, 8, 1)).astype(np.float32)

    def one(x, cond):
        return network.apply(params, x[None], None, jax.tree.map(lambda leaf: leaf[None], cond))[0]

    np.testing.assert_allclose(jax.vmap(one)(x, full), apply(full), atol=1e-6)


def test_a_class_beyond_the_table_is_not_another_class(apply):
    assert np.all(np.isnan(apply({"class": np.array([4, 0, 0])})[0]))


@pytest.mark.parametrize(
    ("cond", "message"),
    [
        ({"label": np.zeros(3, int)}, "takes no condition 'label'"),
        ({"present": np.ones(3)}, "'present' without 'image'"),
        ({"token_mask": np.ones((3, 2))}, "'token_mask' without 'tokens'"),
        ({"image": np.ones((3, 8, 1))}, r"has shape \(3, 8, 1\); the network and x need \(3, 8, 2\)"),
        ({"image": np.ones((3, 8, 2), np.complex64)}, "complex"),
        ({"class": np.ones(3)}, "must be integers"),
        ({"vector": np.ones((3, 5))}, r"need \(3, 2\)"),
        ({"tokens": np.ones((3, 2, 5))}, r"need \(3, 2, 4\)"),
        ({"tokens": np.ones((3, 4))}, r"has shape \(3, 4\)"),
        ({"tokens": np.ones((3, 2, 4)), "token_mask": np.ones((3, 3))}, r"need \(3, 2\)"),
    ],
)
def test_a_wrong_condition_is_refused(apply, cond, message):
    with pytest.raises(ValueError, match=message):
        apply(cond)


def test_an_unconditional_network_names_the_key():
    network = unet(1, dims=1, width=4, multipliers=(1,), blocks=1)
    with pytest.raises(ValueError, match=r"takes no condition 'image': it was built for \[\]"):
        network.apply(filled(network), np.ones((1, 8, 1)), np.ones(1), {"image": np.ones((1, 8, 2))})

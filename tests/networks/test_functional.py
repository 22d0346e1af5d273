"""The NNX adapter: pure functions over plain dicts, equal to the module itself, under every transform."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pgm_jax.core import checkpoint
from pgm_jax.networks import from_nnx


class Block(nnx.Module):
    def __init__(self, features, rngs):
        self.conv = nnx.Conv(features, features, (3, 3), rngs=rngs)
        self.dropout = nnx.Dropout(0.5)

    def __call__(self, x, key, train):
        return x + self.dropout(jax.nn.silu(self.conv(x)), rngs=key, deterministic=not train)


class Tiny(nnx.Module):
    def __init__(self, rngs, channels=2, features=4):
        self.enter = nnx.Conv(channels, features, (3, 3), rngs=rngs)
        self.time = nnx.Linear(1, features, rngs=rngs)
        self.blocks = nnx.List([Block(features, rngs) for _ in range(2)])
        self.leave = nnx.Conv(features, channels, (1, 1), rngs=rngs)

    def __call__(self, x, t, cond, *, key=None, train=False):
        h = self.enter(x) + self.time(t[:, None])[:, None, None, :]
        h = h if cond is None else h + cond[:, None, None, None]
        for i, block in enumerate(self.blocks):
            h = block(h, None if key is None else jax.random.fold_in(key, i), train)
        return self.leave(h)


@pytest.fixture(scope="module")
def network():
    return from_nnx(lambda rngs: Tiny(rngs))


@pytest.fixture(scope="module")
def params(network):
    return network.init(jax.random.key(3))


@pytest.fixture
def batch(key):
    return jax.random.normal(key, (4, 8, 8, 2)), jnp.linspace(0.1, 1.0, 4), jnp.arange(4.0)


def test_params_are_plain_nested_dicts_with_string_keys(params):
    def walk(node):
        if type(node) is dict:
            assert all(type(name) is str for name in node)
            return sum(map(walk, node.values()))
        assert isinstance(node, jax.Array)
        return 1

    assert walk(params) == len(jax.tree.leaves(params)) == 10
    assert params["blocks"]["1"]["conv"]["kernel"].shape == (3, 3, 4, 4)


def test_apply_is_the_module(network, params, batch):
    module = Tiny(nnx.Rngs(jax.random.key(3)))
    np.testing.assert_array_equal(network.apply(params, *batch), module(*batch))


def test_init_depends_on_the_key_only_and_traces(network, params, batch):
    chex.assert_trees_all_close(jax.jit(network.init)(jax.random.key(3), *batch), params, atol=1e-6)
    other = network.init(jax.random.key(4))
    assert not np.allclose(other["enter"]["kernel"], params["enter"]["kernel"])
    chex.assert_trees_all_equal_shapes_and_dtypes(jax.eval_shape(network.init, jax.random.key(0)), params)


def test_first_use_inside_a_transform_leaks_nothing(params, batch):
    fresh = from_nnx(lambda rngs: Tiny(rngs))
    with jax.checking_leaks():
        inside = jax.jit(jax.grad(lambda p: jnp.sum(fresh.apply(p, *batch) ** 2)))(params)
    again = jax.grad(lambda p: jnp.sum(fresh.apply(p, *batch) ** 2))(params)
    chex.assert_trees_all_close(inside, again, rtol=1e-4, atol=1e-4)


def test_gradient_is_the_directional_derivative(network, params, batch):
    loss = jax.jit(lambda p: jnp.mean(network.apply(p, *batch) ** 2))
    direction = jax.tree.map(lambda p: jnp.cos(jnp.arange(p.size, dtype=p.dtype)).reshape(p.shape), params)
    moved = lambda step: jax.tree.map(lambda p, d: p + step * d, params, direction)
    numeric = (loss(moved(1e-2)) - loss(moved(-1e-2))) / 2e-2
    exact = jax.jvp(loss, (params,), (direction,))[1]
    products = jax.tree.map(lambda g, d: jnp.sum(g * d), jax.grad(loss)(params), direction)
    np.testing.assert_allclose(sum(jax.tree.leaves(products)), exact, rtol=1e-4)
    np.testing.assert_allclose(numeric, exact, rtol=2e-2)


def test_vmap_over_params_is_an_ensemble(network, params, batch):
    members = [params, network.init(jax.random.key(1))]
    together = jax.vmap(lambda p: network.apply(p, *batch))(jax.tree.map(lambda *p: jnp.stack(p), *members))
    np.testing.assert_allclose(together[1], network.apply(members[1], *batch), atol=1e-5)


def test_key_and_train_reach_the_module(network, params, batch):
    still = network.apply(params, *batch)
    np.testing.assert_array_equal(still, network.apply(params, *batch, key=jax.random.key(1)))
    first, second = (network.apply(params, *batch, key=jax.random.key(i), train=True) for i in (1, 2))
    assert not np.allclose(first, second) and not np.allclose(first, still)
    np.testing.assert_array_equal(first, network.apply(params, *batch, key=jax.random.key(1), train=True))


def test_one_trace_for_new_parameters(network, params, batch):
    apply = jax.jit(chex.assert_max_traces(lambda p: network.apply(p, *batch), n=1))
    apply(params), apply(network.init(jax.random.key(9)))


def test_checkpoint_round_trip(network, params, batch, tmp_path):
    checkpoint.save(tmp_path, params, {"network": "tiny"})
    restored, _ = checkpoint.restore(tmp_path, jax.eval_shape(network.init, jax.random.key(0)))
    np.testing.assert_array_equal(network.apply(restored, *batch), network.apply(params, *batch))


def test_wrong_parameters_are_named(network, params, batch):
    with pytest.raises(ValueError, match="lack 'leave/bias'"):
        network.apply({**params, "leave": {"kernel": params["leave"]["kernel"]}}, *batch)
    with pytest.raises(ValueError, match="unknown 'more'"):
        network.apply({**params, "more": jnp.ones(1)}, *batch)


class Impure(nnx.Module):
    def __init__(self, rngs):
        self.norm = nnx.BatchNorm(2, rngs=rngs)

    def __call__(self, x, t, cond):
        return self.norm(x)


class Random(nnx.Module):
    def __init__(self, rngs):
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x, t, cond):
        return self.dropout(x)


@pytest.mark.parametrize(("module", "name"), [(Impure, "norm/mean is BatchStat"), (Random, "dropout/rngs")])
def test_state_that_is_not_a_parameter_is_refused(module, name):
    with pytest.raises(TypeError, match=name):
        from_nnx(module).init(jax.random.key(0))

"""Views over eight simulated devices: the numbers of one device, and one sum of volumes in the adjoint."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec as P

from pgm_jax.operators import Matrix, adjoint_gap
from pgm_jax.operators.ct.cone import ConeBeam
from pgm_jax.operators.ct.geometry3d import Cone, VolumeGrid
from pgm_jax.operators.ct.view_sharded import shard_views
from pgm_jax.parallel import make_mesh

COLLECTIVES = r"all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter|collective-broadcast"


def _operator(views=16, tilt=(0.0, 0.0, 0.0), subsets=1):
    cone = Cone(np.arange(views) * 0.4, 200.0, 300.0, 8, 9, (6.0, 6.0), tilt=tilt)
    return ConeBeam(VolumeGrid((6, 9, 8), 4.0), cone, subsets)


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(8)


def _loss(operator, x, y):
    return jnp.sum((operator(x) - y) ** 2)


@pytest.mark.parametrize("tilt", [(0.0, 0.0, 0.0), (0.1, 0.0, 0.0)])
def test_eight_devices_give_the_numbers_of_one(mesh, tilt):
    operator = _operator(tilt=tilt)
    sharded = shard_views(operator, mesh)
    x = jax.random.normal(jax.random.key(0), operator.domain.shape)
    y = jax.jit(lambda a, x: a(x))(operator, x)
    forward = jax.jit(lambda a, x: a(x))(sharded, x)
    assert forward.sharding.is_equivalent_to(NamedSharding(mesh, P("data")), 4)
    np.testing.assert_allclose(forward, y, atol=1e-5 * np.abs(y).max())
    backward = jax.jit(lambda a, y: a.adjoint(y))
    whole = np.asarray(backward(operator, y))
    np.testing.assert_allclose(backward(sharded, y), whole, atol=1e-6 * np.abs(whole).max())
    gradients = [np.asarray(jax.jit(jax.grad(_loss, 1))(a, x, 2 * y)) for a in (operator, sharded)]
    np.testing.assert_allclose(gradients[1], gradients[0], atol=1e-6 * np.abs(gradients[0]).max())
    assert float(adjoint_gap(sharded, jax.random.key(1))) < 1e-6


def test_the_only_collective_is_the_sum_of_the_adjoint(mesh):
    sharded = shard_views(_operator(), mesh)
    x, y = jnp.ones(sharded.domain.shape), jnp.ones(sharded.range.shape)
    y = jax.device_put(y, NamedSharding(mesh, P("data")))

    def collectives(f, *arguments):
        text = jax.jit(f).lower(*arguments).compile().as_text()
        return re.findall(rf"= \S+ ({COLLECTIVES})(?:-start)?\(", text)

    assert collectives(lambda a, x: a(x), sharded, x) == []
    assert collectives(lambda a, y: a.adjoint(y), sharded, y) == ["all-reduce"]
    assert collectives(jax.grad(_loss, 1), sharded, x, y) == ["all-reduce"]


def test_subsets_and_batches(mesh):
    operator = _operator(32, subsets=2)
    sharded = shard_views(operator, mesh)
    xs = jax.random.normal(jax.random.key(0), (2, *operator.domain.shape))
    y = sharded(xs[0])
    np.testing.assert_allclose(sharded.subset(1)(xs[0]), sharded.restrict(y, 1), atol=1e-5 * np.abs(y).max())
    batch = jax.jit(jax.vmap(sharded))(xs)
    np.testing.assert_allclose(batch[1], operator(xs[1]), atol=1e-5 * np.abs(y).max())


def test_what_cannot_be_shared_out_is_refused(mesh):
    with pytest.raises(ValueError, match="12 views do not divide over 8 devices"):
        shard_views(_operator(12), mesh)
    with pytest.raises(ValueError, match="not 'views'"):
        shard_views(_operator(), mesh, "views")
    with pytest.raises(ValueError, match="shard its slices"):
        shard_views(Matrix(jnp.ones((16, 3)), (3,), (8, 2)), mesh)

"""A network that is grown computes what the smaller one computes, and says where it cannot."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle_unet import filled

from pgm_jax import networks

SMALL = {"widths": (4, 6), "encoder": (1, 1), "decoder": (1,), "embedding": 8}
CONDITIONS = networks.Conditions(image=3, classes=2, vector=5)


def _shapes(network):
    return jax.eval_shape(network.init, jax.random.key(0))


def test_a_grown_network_is_the_smaller_one_under_every_condition():
    small, large = networks.drunet(2, **SMALL), networks.drunet(2, **SMALL, conditions=CONDITIONS)
    params = filled(small)
    grown = networks.grow(_shapes(large), params, places=4)
    x, t = jax.random.normal(jax.random.key(0), (2, 8, 8, 2)), jnp.array([-0.5, 0.3])
    cond = {
        "image": jax.random.normal(jax.random.key(1), (2, 8, 8, 3)),
        "class": jnp.array([0, 1]),
        "vector": jnp.ones((2, 5)),
    }
    expected = small.apply(params, x, t)
    for given in (None, cond):
        np.testing.assert_allclose(large.apply(grown, x, t, given), expected, rtol=1e-5, atol=1e-6)


def test_every_condition_reaches_the_output():
    network = networks.drunet(2, **SMALL, conditions=CONDITIONS)
    params = filled(network)
    x, t = jax.random.normal(jax.random.key(0), (1, 8, 8, 2)), jnp.zeros(1)
    plain = network.apply(params, x, t)
    for cond in (
        {"image": jnp.ones((1, 8, 8, 3))},
        {"class": jnp.array([1])},
        {"vector": jnp.ones((1, 5))},
    ):
        assert float(jnp.abs(network.apply(params, x, t, cond) - plain).max()) > 1e-4


def test_what_does_not_fit_is_named():
    wide = networks.drunet(2, **(SMALL | {"widths": (4, 8)}))
    with pytest.raises(ValueError, match="has shape .* only inputs may be more"):
        networks.grow(_shapes(wide), filled(networks.drunet(2, **SMALL)))
    with pytest.raises(ValueError, match="has no conditioning"):
        networks.grow(
            _shapes(networks.drunet(2, **SMALL)), filled(networks.drunet(2, **SMALL, conditions=CONDITIONS))
        )
    with pytest.raises(ValueError, match="no attention for tokens"):
        networks.drunet(2, **SMALL, conditions=networks.Conditions(tokens=4))

"""A fused network is the posterior mean given two noisy images, and is the network itself at the clean end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax.core import Network
from pgm_jax.networks import Conditions, as_denoiser, drunet, fused, fused_drunet
from pgm_jax.processes import EDM, PFGMpp, precondition

DATA, SPREAD = 0.5, 0.06


def of_normal_images(variance):
    """The network whose denoiser under EDM's scalings is that of pixels `N(0, variance)`."""

    def apply(params, x, t, cond=None, **_):
        sigma = jnp.exp(4 * t).reshape(t.shape + (1,) * (x.ndim - t.ndim))
        skip, out = DATA**2 / (sigma**2 + DATA**2), sigma * DATA / jnp.hypot(sigma, DATA)
        return (variance / (variance + sigma**2) - skip) / out * jnp.hypot(sigma, DATA) * x

    return Network(lambda key: (), apply)


@pytest.mark.parametrize("process", [EDM(), PFGMpp(64.0)])
@pytest.mark.parametrize("sigma", [0.01, 0.06, 0.3, 3.0, 80.0])
def test_it_is_the_posterior_mean_given_both_images(process, sigma, x64):
    variance = 0.7
    network = fused(of_normal_images(variance), DATA, SPREAD)
    x, image = jax.random.normal(jax.random.key(0), (2, 4, 4, 1))
    found = as_denoiser(network, (), process, precondition.edm(DATA))(x, jnp.float64(sigma), {"image": image})
    precision = 1 / variance + 1 / sigma**2 + 1 / SPREAD**2
    np.testing.assert_allclose(found, (x / sigma**2 + image / SPREAD**2) / precision, rtol=1e-9)


def test_at_the_clean_end_it_is_the_network_itself(x64):
    inner = of_normal_images(0.7)
    x, image = jax.random.normal(jax.random.key(0), (2, 1, 4, 4, 1))
    t = jnp.log(jnp.array([1e-7])) / 4
    joined = fused(inner, DATA, SPREAD).apply((), x, t, {"image": image})
    np.testing.assert_allclose(joined, inner.apply((), x, t, None), atol=1e-4)


def test_voxelwise_times_are_those_of_each_voxel():
    network = fused(of_normal_images(0.7), DATA, SPREAD)
    x, image = jax.random.normal(jax.random.key(0), (2, 1, 4, 4, 1))
    t = jnp.log(jnp.linspace(0.05, 2.0, 16)).reshape(1, 4, 4, 1) / 4
    whole = network.apply((), x, t, {"image": image})
    for row, column in ((0, 0), (2, 3)):
        alone = network.apply((), x, t[:, row, column, 0], {"image": image})
        np.testing.assert_allclose(whole[0, row, column], alone[0, row, column], rtol=1e-5)


def test_its_parameters_are_those_of_the_network():
    options = {
        "widths": (8, 8),
        "encoder": (1, 1),
        "decoder": (1,),
        "embedding": 8,
        "conditions": Conditions(image=1),
    }
    network, plain = fused_drunet(DATA, SPREAD, channels=1, **options), drunet(1, **options)
    params, same = network.init(jax.random.key(0)), plain.init(jax.random.key(0))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.array_equal(a, b)), params, same))


def test_what_it_cannot_read_is_refused():
    with pytest.raises(ValueError, match="spread above 0"):
        fused(of_normal_images(1.0), DATA, 0.0)
    with pytest.raises(ValueError, match="conditions=Conditions"):
        fused_drunet(DATA, SPREAD, channels=1)
    with pytest.raises(ValueError, match="reads an image"):
        fused(of_normal_images(1.0), DATA, SPREAD).apply((), jnp.ones((1, 4, 4, 1)), jnp.zeros(1), None)

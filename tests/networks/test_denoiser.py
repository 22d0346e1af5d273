"""The denoiser of one sample: the formula, complex images, voxel-wise time, and every transform."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pgm_jax.core import Network
from pgm_jax.networks import as_denoiser, from_nnx

DATA_STD = 0.5


class Coefficients(NamedTuple):
    c_skip: jax.Array
    c_out: jax.Array
    c_in: jax.Array
    c_noise: jax.Array


class Scaled(NamedTuple):
    scale: float = 1.0


def edm(process, t):
    """Karras et al. 2022, Table 1, with sigma = scale t."""
    sigma = process.scale * t
    total = sigma**2 + DATA_STD**2
    return Coefficients(
        DATA_STD**2 / total, sigma * DATA_STD / jnp.sqrt(total), 1 / jnp.sqrt(total), jnp.log(sigma) / 4
    )


class Convolution(nnx.Module):
    def __init__(self, rngs, dtype=None):
        self.enter = nnx.Conv(2, 6, (3, 3), rngs=rngs, dtype=dtype)
        self.leave = nnx.Conv(6, 2, (3, 3), rngs=rngs, dtype=dtype)

    def __call__(self, x, t, cond):
        h = self.enter(x) * jnp.cos(t).reshape(-1, 1, 1, 1)
        return self.leave(jax.nn.silu(h if cond is None else h + cond["level"].reshape(-1, 1, 1, 1)))


@pytest.fixture(scope="module")
def network():
    return from_nnx(lambda rngs: Convolution(rngs))


@pytest.fixture(scope="module")
def params(network):
    return network.init(jax.random.key(0))


@pytest.fixture
def images(key):
    return jax.random.normal(key, (4, 8, 8, 2)), jnp.array([0.1, 0.5, 2.0, 10.0]), {"level": jnp.arange(4.0)}


def test_the_formula_and_one_batched_call(network, params, images):
    x, t, cond = images
    denoise = as_denoiser(network, params, Scaled(2.0), edm)
    c = edm(Scaled(2.0), t.reshape(-1, 1, 1, 1))
    expected = c.c_skip * x + c.c_out * network.apply(params, c.c_in * x, jnp.log(2 * t) / 4, cond)
    np.testing.assert_allclose(jax.vmap(denoise)(x, t, cond), expected, atol=1e-6)
    np.testing.assert_allclose(denoise(x[2], t[2], {"level": cond["level"][2]}), expected[2], atol=1e-6)
    assert denoise(x[2], t[2]).shape == x[2].shape


def test_jit_pmap_and_gradient(network, params, images):
    x, t, _ = images
    denoise = as_denoiser(network, params, Scaled(), edm)
    compiled = jax.jit(jax.vmap(denoise))(x, t)
    np.testing.assert_allclose(jax.vmap(denoise)(x, t), compiled, atol=1e-6)
    np.testing.assert_allclose(jax.pmap(denoise, devices=jax.devices()[:4])(x, t), compiled, atol=1e-6)
    direction = jnp.sin(jnp.arange(128.0)).reshape(8, 8, 2)
    exact = jax.jvp(lambda x: denoise(x, t[1]), (x[1],), (direction,))[1]
    pulled = jax.vjp(lambda x: denoise(x, t[1]), x[1])[1](x[2])[0]
    np.testing.assert_allclose(jnp.sum(pulled * direction), jnp.sum(exact * x[2]), rtol=1e-4)
    numeric = (denoise(x[1] + 1e-2 * direction, t[1]) - denoise(x[1] - 1e-2 * direction, t[1])) / 2e-2
    np.testing.assert_allclose(numeric, exact, atol=1e-3)


def test_process_and_parameters_cross_jit_without_a_new_trace(network, params, images):
    x, t, _ = images
    traces = []

    @jax.jit
    def run(params, process, x, t):
        traces.append(None)
        return as_denoiser(network, params, process, edm)(x, t)

    first, second = run(params, Scaled(1.0), x[0], t[0]), run(params, Scaled(3.0), x[0], t[0])
    assert len(traces) == 1 and not np.allclose(first, second)


def _record(seen):
    def apply(params, x, t, cond, *, key=None, train=False):
        seen.append((x, t, cond))
        return x

    return Network(lambda key, x, t, cond: {}, apply)


def test_complex_images_are_two_real_channels(key):
    seen = []
    x = jax.lax.complex(jax.random.normal(key, (4, 4, 3)), jnp.ones((4, 4, 3)))
    denoise = as_denoiser(_record(seen), {}, Scaled(), edm)
    x0 = denoise(x, jnp.float32(2.0), {"zero_filled": x, "coils": jnp.ones(2)})
    (shown, t, cond), c = seen[0], edm(Scaled(), 2.0)
    assert shown.shape == (1, 4, 4, 6) and shown.dtype == jnp.float32 and t.shape == (1,)
    np.testing.assert_allclose(shown[0, ..., :3], c.c_in * x.real, rtol=1e-6)
    np.testing.assert_allclose(shown[0, ..., 3:], c.c_in * x.imag, rtol=1e-6)
    np.testing.assert_array_equal(cond["zero_filled"][0], jnp.concatenate([x.real, x.imag], -1))
    assert cond["coils"].shape == (1, 2)
    # The recorder returns its input, so the whole map is multiplication by a real number.
    np.testing.assert_allclose(x0, (c.c_skip + c.c_out * c.c_in) * x, rtol=1e-6)
    assert x0.dtype == jnp.complex64


def test_time_of_each_voxel(key):
    seen = []
    x, t = jax.random.normal(key, (4, 4, 2)), jnp.linspace(0.1, 3.0, 16).reshape(4, 4, 1)
    x0 = as_denoiser(_record(seen), {}, Scaled(), edm)(x, t)
    assert seen[0][1].shape == (1, 4, 4, 1)
    single = as_denoiser(_record(seen), {}, Scaled(), edm)(x, t[1, 2, 0])
    np.testing.assert_allclose(x0[1, 2], single[1, 2], rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.complex64])
def test_low_precision_networks_return_the_dtype_of_the_image(dtype, key, params):
    low = from_nnx(lambda rngs: Convolution(rngs, dtype=jnp.bfloat16))
    full = from_nnx(lambda rngs: Convolution(rngs))
    x = jax.random.normal(key, (8, 8, 2 if dtype == jnp.float32 else 1)).astype(dtype)
    results = [as_denoiser(n, params, Scaled(), edm)(x, np.float64(0.7)) for n in (low, full)]
    assert all(r.dtype == dtype for r in results)
    np.testing.assert_allclose(results[0], results[1], atol=0.05)


def test_a_network_of_another_output_shape_is_refused():
    halved = Network(lambda *a: {}, lambda params, x, t, cond, **_: x[..., :1])
    with pytest.raises(ValueError, match=r"returned \(4, 4, 1\) for an input of \(4, 4, 2\)"):
        as_denoiser(halved, {}, Scaled(), edm)(jnp.ones((4, 4, 2)), 1.0)

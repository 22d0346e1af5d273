"""Winograd's form against `lax.conv_general_dilated`: values, every derivative, vmap, chunks, odd sizes, choice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax.networks import convolution as c, winograd as w

# (batch, height, width, inputs, outputs): whole tiles, sizes of every remainder by 4, less than one tile.
SHAPES = [(2, 8, 8, 3, 5), (1, 5, 11, 5, 3), (3, 6, 4, 2, 2), (1, 9, 7, 1, 4), (2, 3, 2, 4, 1)]
# Sums of up to 128 terms, at the 2e-6 of the largest result that the transforms lose.
CLOSE = dict(rtol=1e-5, atol=5e-5)


def draws(*shapes):
    return [jax.random.normal(jax.random.key(n), shape) for n, shape in enumerate(shapes)]


def images(shape):
    b, h, wide, i, o = shape
    return draws((b, h, wide, i), (3, 3, i, o), (b, h, wide, i), (3, 3, i, o), (b, h, wide, o))


def close(ours, plain):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), ours, plain)


@pytest.fixture(params=["whole", "images", "bands"])
def chunks(request, monkeypatch):
    """Everything at once; a few images at a time; a row of tiles of one image at a time."""
    jax.clear_caches()
    numbers, tiles = {"whole": (1 << 16, 256), "images": (32, 4), "bands": (1, 1)}[request.param]
    monkeypatch.setattr(w, "_NUMBERS", numbers)
    monkeypatch.setattr(w, "_TILES", tiles)
    yield request.param
    jax.clear_caches()


@pytest.mark.parametrize("results, taps", [(2, 3), (3, 2)])
def test_the_matrices_filter_exactly(results, taps):
    into, taps_in, out = w.minimal_filter((0, 1, -2), results, taps)
    d, g = draws((results + taps - 1,), (taps,))
    ours = out @ ((taps_in @ np.asarray(g, np.float64)) * (into @ np.asarray(d, np.float64)))
    np.testing.assert_allclose(ours, np.correlate(np.float64(d), np.float64(g), "valid"), rtol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_both_gradients(shape, chunks):
    x, kernel, _, _, cotangent = images(shape)
    ours, pull = jax.vjp(w.winograd, x, kernel)
    plain, pull_plain = jax.vjp(c.plain_conv, x, kernel)
    close((ours, pull(cotangent)), (plain, pull_plain(cotangent)))
    close(w.winograd_kernel(x, cotangent), pull_plain(cotangent)[1])


@pytest.mark.parametrize("shape", SHAPES[:3])
def test_tangents_of_either_argument_and_of_both(shape):
    x, kernel, dx, dkernel, _ = images(shape)
    close(jax.jvp(w.winograd, (x, kernel), (dx, dkernel)), jax.jvp(c.plain_conv, (x, kernel), (dx, dkernel)))
    close(jax.jvp(lambda x: w.winograd(x, kernel), (x,), (dx,))[1], c.plain_conv(dx, kernel))
    close(jax.jvp(lambda k: w.winograd(x, k), (kernel,), (dkernel,))[1], c.plain_conv(x, dkernel))


def test_gradients_of_the_kernel_gradient():
    """Along either of its arguments, as a second derivative of a loss needs them."""
    x, kernel, dx, _, y = images(SHAPES[1])
    of_lax = lambda x, y: jax.vjp(lambda k: c.plain_conv(x, k), kernel)[1](y)[0]
    loss = lambda gradient: jax.value_and_grad(lambda x, y: jnp.mean(gradient(x, y) ** 2), argnums=(0, 1))
    close(loss(w.winograd_kernel)(x, y), loss(of_lax)(x, y))
    close(jax.jvp(w.winograd_kernel, (x, y), (dx, y)), jax.jvp(of_lax, (x, y), (dx, y)))


def test_a_gradient_through_a_tangent_and_a_vmap():
    """A consistency loss differentiates a jvp; guidance and per-sample gradients vmap a vjp."""
    x, kernel, dx, _, _ = images(SHAPES[0])

    def loss(conv):
        def value(k, x, dx):
            y, dy = jax.jvp(lambda x: jnp.tanh(conv(x[None], k)), (x,), (dx,))
            return jnp.mean(y * dy + dy**2)

        return jax.jit(jax.vmap(jax.value_and_grad(value), in_axes=(None, 0, 0)))

    close(loss(w.winograd)(kernel, x, dx), loss(c.plain_conv)(kernel, x, dx))


@pytest.mark.parametrize("axes", [(1, None), (None, 3), (0, 0)])
def test_vmap_along_any_axis_of_either_argument(axes):
    shapes = [(2, 5, 4, 3), (3, 3, 3, 2)]
    for place, axis in enumerate(axes):
        shape = list(shapes[place])
        shapes[place] = tuple(shape if axis is None else shape[:axis] + [2] + shape[axis:])
    x, kernel = draws(*shapes)
    value = lambda conv: jax.value_and_grad(lambda x, k: jnp.mean(conv(x, k) ** 2), argnums=(0, 1))
    mapped = lambda conv: jax.vmap(value(conv), in_axes=axes)(x, kernel)
    close(mapped(w.winograd), mapped(c.plain_conv))


def test_second_derivatives_of_the_kernel():
    x, kernel, _, dkernel, _ = images(SHAPES[2])
    curvature = lambda conv: jax.jvp(jax.grad(lambda k: jnp.mean(conv(x, k) ** 3)), (kernel,), (dkernel,))[1]
    np.testing.assert_allclose(curvature(w.winograd), curvature(c.plain_conv), rtol=1e-4, atol=1e-3)


def test_transposes_checkpoint_and_scan():
    x, kernel, _, _, y = images(SHAPES[1])
    (back,) = jax.linear_transpose(lambda x: w.winograd(x, kernel), x)(y)
    close(jnp.vdot(back, x), jnp.vdot(y, w.winograd(x, kernel)))
    twice = lambda conv: (
        lambda k: jnp.mean(
            jax.lax.scan(lambda x, _: (jax.checkpoint(conv)(x, k[..., :5]), None), x, length=2)[0] ** 2
        )
    )
    square = draws((3, 3, 5, 5))[0] / 5
    close(jax.grad(twice(w.winograd))(square), jax.grad(twice(c.plain_conv))(square))


@pytest.mark.parametrize("shape", [(1, 32, 32, 128, 64), (2, 30, 18, 64, 128)])
def test_error_in_float32_at_the_sizes_of_use(shape):
    """Against float64: below 1e-5 of the largest result, forward and in both gradients."""
    x, kernel, _, _, y = images(shape)
    ours, pull = jax.vjp(w.winograd, x, kernel)
    with jax.enable_x64():
        exact, pull_exact = jax.vjp(c.plain_conv, *(jnp.asarray(np.float64(v)) for v in (x, kernel)))
        both = pull_exact(jnp.asarray(np.float64(y)))
        exact, both = np.asarray(exact), jax.tree.map(np.asarray, both)
    for a, b in zip((ours, *pull(y)), (exact, *both), strict=True):
        assert np.abs(a - b).max() < 5e-6 * np.abs(b).max()


def test_other_dtypes_keep_theirs():
    x, kernel, _, _, _ = images(SHAPES[0])
    half = w.winograd(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16))
    # Rounded four times on the way, to 8 bits, in sums that cancel.
    assert half.dtype == jnp.bfloat16 and jnp.abs(half - w.winograd(x, kernel)).max() < 1.0
    with jax.enable_x64():
        wide = [jnp.asarray(np.float64(v)) for v in (x, kernel)]
        np.testing.assert_allclose(w.winograd(*wide), c.plain_conv(*wide), rtol=1e-11, atol=1e-12)


def test_the_choice(monkeypatch):
    monkeypatch.setattr(c, "on_one_cpu", lambda: True)
    array = lambda *shape, dtype=jnp.float32: jax.ShapeDtypeStruct(shape, dtype)
    chosen = lambda x, k: "= winograd" in str(jax.make_jaxpr(lambda x, k: c.conv(x, k))(x, k))
    kernel = array(3, 3, 64, 64)
    assert chosen(array(2, 32, 32, 64), kernel) and chosen(array(1, 30, 62, 64), kernel)
    assert not chosen(array(2, 32, 32, 32), array(3, 3, 32, 64)) and not chosen(array(1, 8, 8, 64), kernel)
    assert not chosen(array(2, 32, 32, 64), array(5, 5, 64, 64))
    assert not chosen(array(2, 32, 64), array(3, 64, 64))
    half = array(2, 32, 32, 64, dtype=jnp.bfloat16), array(3, 3, 64, 64, dtype=jnp.bfloat16)
    assert not chosen(*half)
    monkeypatch.setattr(c, "on_one_cpu", lambda: False)
    assert not chosen(array(2, 32, 32, 64), kernel)


def test_shard_map_keeps_to_other_forms(monkeypatch):
    monkeypatch.setattr(c, "on_one_cpu", lambda: True)
    x, kernel = draws((2, 16, 16, 64), (3, 3, 64, 64))
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:1])
    spec = jax.sharding.PartitionSpec("data")
    gradient = lambda conv: jax.grad(lambda k, x: jnp.mean(conv(x, k) ** 2))
    mapped = jax.shard_map(
        gradient(c.conv), mesh=mesh, in_specs=(jax.sharding.PartitionSpec(), spec), out_specs=jax.P()
    )
    close(jax.jit(mapped)(kernel, x), gradient(c.plain_conv)(kernel, x))

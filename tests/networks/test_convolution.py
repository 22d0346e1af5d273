"""The fast forms against `lax.conv_general_dilated` and `einsum`: values, gradients, tangents, vmap, sharding."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax.networks import convolution as c
from pgm_jax.networks.convolution_form import Form, band_rows, extra_rows, form_of

# (batch, height, width, inputs, outputs, form): several bands in pairs and one by one, one band, single rows, extra
# rows of padding forward, backward and both with lax for the kernel, the kernel tap by tap and by Winograd.
SHAPES = [
    (2, 8, 6, 3, 5, Form(0, 0, 4)),
    (2, 8, 6, 5, 3, Form(1, 0, 8)),
    (1, 6, 7, 2, 2, Form(0, 1, 1)),
    (3, 5, 6, 3, 2, Form(0, 0, 5)),
    (2, 6, 5, 2, 3, Form(1, 1, 0)),
    (2, 6, 5, 4, 2, Form(0, 0, 0, "taps")),
    (2, 6, 5, 4, 3, Form(0, 1, 2, "winograd")),
]


def draws(*shapes):
    return [jax.random.normal(jax.random.key(n), shape) for n, shape in enumerate(shapes)]


def images(shape):
    b, h, w, i, o, form = shape
    return (*draws((b, h, w, i), (3, 3, i, o), (b, h, w, i), (3, 3, i, o), (b, h, w, o)), form)


def close(ours, plain):
    # Sums of up to b h w = 96 terms in another order.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=3e-5), ours, plain)


def direct(x, kernel):
    """The sum in the docstring, taken literally."""
    padded = np.pad(np.asarray(x, np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = x.shape[1:3]
    shifted = ((i, j, padded[:, i : i + height, j : j + width]) for i in range(3) for j in range(3))
    return sum(part @ np.asarray(kernel[i, j], np.float64) for i, j, part in shifted)


@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_both_gradients(shape):
    x, kernel, _, _, cotangent, form = images(shape)
    ours, pull = jax.vjp(lambda x, k: c.formed_conv(x, k, form), x, kernel)
    plain, pull_plain = jax.vjp(c.plain_conv, x, kernel)
    close((ours, pull(cotangent)), (plain, pull_plain(cotangent)))
    close(ours, direct(x, kernel).astype(np.float32))


@pytest.mark.parametrize("shape", SHAPES)
def test_tangents_of_either_argument_and_of_both(shape):
    x, kernel, dx, dkernel, _, form = images(shape)
    banded = lambda x, k: c.formed_conv(x, k, form)
    close(jax.jvp(banded, (x, kernel), (dx, dkernel)), jax.jvp(c.plain_conv, (x, kernel), (dx, dkernel)))
    close(jax.jvp(lambda x: banded(x, kernel), (x,), (dx,))[1], c.plain_conv(dx, kernel))
    close(jax.jvp(lambda k: banded(x, k), (kernel,), (dkernel,))[1], c.plain_conv(x, dkernel))


def test_a_gradient_through_a_tangent_and_a_vmap():
    """A consistency loss differentiates a jvp; guidance and per-sample gradients vmap a vjp."""
    x, kernel, dx, _, _, form = images(SHAPES[0])

    def loss(conv):
        def value(k, x, dx):
            y, dy = jax.jvp(lambda x: jnp.tanh(conv(x[None], k)), (x,), (dx,))
            return jnp.sum(y * dy + dy**2)

        return jax.jit(jax.vmap(jax.value_and_grad(value), in_axes=(None, 0, 0)))

    close(loss(lambda x, k: c.formed_conv(x, k, form))(kernel, x, dx), loss(c.plain_conv)(kernel, x, dx))


def test_second_derivatives_of_the_kernel():
    x, kernel, _, dkernel, _, form = images(SHAPES[2])
    curvature = lambda conv: jax.jvp(jax.grad(lambda k: jnp.sum(conv(x, k) ** 3)), (kernel,), (dkernel,))[1]
    ours, plain = curvature(lambda x, k: c.formed_conv(x, k, form)), curvature(c.plain_conv)
    # Numbers reach 1e3.
    np.testing.assert_allclose(ours, plain, rtol=1e-4, atol=1e-2)


def test_a_product_of_many_rows():
    x, kernel, dx, dkernel = draws((40, 3), (3, 5), (40, 3), (3, 5))
    plain = lambda x, k: jnp.einsum("ri,io->ro", x, k)
    loss = lambda product: jax.value_and_grad(lambda x, k: jnp.sum(jnp.sin(product(x, k))), argnums=(0, 1))
    close(loss(c.tall_product)(x, kernel), loss(plain)(x, kernel))
    tangents = lambda product: jax.jvp(product, (x, kernel), (dx, dkernel))
    close(tangents(c.tall_product), tangents(plain))


def test_settling_changes_no_number_and_is_linear():
    x, dx, g = draws((4, 3, 2), (4, 3, 2), (4, 3, 2))
    value, pull = jax.vjp(c.settled_halves, x)
    assert jnp.array_equal(value, x) and jnp.array_equal(pull(g)[0], g)
    assert jnp.array_equal(jax.jvp(c.settled_halves, (x,), (dx,))[1], dx)
    per_sample = jax.vmap(jax.grad(lambda x: jnp.sum(c.settled_halves(x) ** 2)))
    np.testing.assert_allclose(per_sample(x), 2 * x, rtol=1e-6)


def test_settling_ends_a_fusion():
    """Of a chain of sums, each used twice, the compiled text computes the parts once only behind `settled`."""

    def chain(settle):
        def value(x):
            for _ in range(6):
                x = settle(x)
                x = x + jnp.sin(x)
            return jnp.sum(x)

        return jax.jit(jax.grad(value)).lower(jnp.ones((64, 64))).compile().as_text().count(" while(")

    # A constant factor of one would be folded and the loops removed with it.
    assert chain(lambda x: x) == 0 and chain(c.settled_halves) == 6


def test_the_choice_by_platform_and_shape(monkeypatch):
    image, kernel = (2, 32, 32, 64), (3, 3, 64, 64)
    assert band_rows(image, kernel) == 32 and band_rows((2, 128, 128, 64), kernel) == 8
    # A height that 1024 / width = 8 does not divide, narrow images and kernels, other sizes and dimensions.
    assert band_rows((2, 100, 128, 64), kernel) == 5
    assert band_rows((2, 8, 8, 64), kernel) == 0 and band_rows((2, 32, 32, 8), (3, 3, 8, 64)) == 0
    assert band_rows(image, (5, 5, 64, 64)) == 0 and band_rows((2, 64, 64), (3, 64, 64)) == 0
    # A last convolution, and one that widens.
    of = lambda *shapes: form_of(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes))
    assert of((1, 32, 32, 32), (3, 3, 32, 1)).gradient == "taps"
    assert of((1, 32, 32, 32), (3, 3, 32, 64)).gradient == "winograd"
    # One row more moves a convolution to threads unless the plain one has them: of few inputs up to wider outputs.
    extra = lambda width, i, o: extra_rows((1, width, width, i), (3, 3, i, o))
    assert extra(256, 16, 128) and extra(256, 32, 96) and extra(64, 64, 64) and extra(256, 32, 16)
    assert not (extra(256, 32, 128) or extra(256, 64, 32) or extra(256, 64, 16) or extra(256, 8, 32))
    # The suite has eight devices: a sharded batch stays with lax.
    assert not c.on_one_cpu()
    gradient = lambda: str(jax.make_jaxpr(jax.grad(lambda k, x: c.conv(x, k).sum()))(K, X))
    assert "scan" not in gradient()
    monkeypatch.setattr(c, "on_one_cpu", lambda: True)
    assert "scan" in gradient()


X, K = jax.ShapeDtypeStruct((1, 16, 16, 48), jnp.float32), jax.ShapeDtypeStruct((3, 3, 48, 48), jnp.float32)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_conv_is_lax_in_every_dimension(dims, monkeypatch):
    monkeypatch.setattr(c, "on_one_cpu", lambda: True)
    x, kernel = draws((2, *(6, 5, 4)[:dims], 3), (*[3] * dims, 3, 2))
    axes = "DHW"[3 - dims :]
    numbers = (f"N{axes}C", f"{axes}IO", f"N{axes}C")
    expected = jax.lax.conv_general_dilated(x, kernel, (1,) * dims, "SAME", dimension_numbers=numbers)
    close(c.conv(x, kernel), expected)
    one = kernel[(slice(1, 2),) * dims]
    close(c.conv(x, one), jnp.einsum("...i,io->...o", x, one.reshape(3, 2)))


def test_bands_in_bfloat16(monkeypatch):
    """Products are rounded once, so both forms are within 2^-8 of the float32 gradient's size."""
    monkeypatch.setattr(c, "on_one_cpu", lambda: True)
    x, kernel = draws((1, 16, 16, 48), (3, 3, 48, 48))
    gradient = lambda conv, dtype: jax.grad(
        lambda k: jnp.mean(jnp.square(conv(x.astype(dtype), k).astype(jnp.float32)))
    )(kernel.astype(dtype))
    exact, ours = gradient(c.plain_conv, jnp.float32), gradient(c.conv, jnp.bfloat16)
    assert ours.dtype == jnp.bfloat16
    assert jnp.abs(ours.astype(jnp.float32) - exact).max() < 2**-6 * jnp.abs(exact).max()


def test_pmap_and_shard_map(monkeypatch):
    x, kernel = draws((2, 1, 16, 16, 48), (3, 3, 48, 48))
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:2])
    spec = jax.sharding.PartitionSpec("data")

    def gradients(fast):
        monkeypatch.setattr(c, "on_one_cpu", lambda: fast)
        gradient = lambda x: jax.grad(lambda k: jnp.mean(c.settled(c.conv(x, k)) ** 2))(kernel)
        # The kernel is the same on both devices, so shard_map sums its gradient over them.
        mapped = jax.shard_map(lambda x: gradient(x[0]), mesh=mesh, in_specs=spec, out_specs=spec)
        return jax.pmap(gradient)(x), jax.jit(mapped)(x)

    close(gradients(True), gradients(False))


@pytest.mark.parametrize("shape", [(2, 16, 8), (1, 16, 16, 8), (1, 16, 16, 1), (1, 8, 8, 8, 4)])
def test_derivatives_in_a_loop_keep_the_fast_form(monkeypatch, shape):
    """Guidance differentiates the network in a scan and training takes several steps in a loop: there a convolution
    of lax's dimension numbers runs at a fraction of the speed (64 channels, 4 x 64 x 64 pixels: 32 ms along the
    image instead of 6, 620 ms along the kernel instead of 11)."""
    monkeypatch.setattr(c, "on_one_cpu", lambda: True)
    x, kernel = draws(shape, (*[3] * (len(shape) - 2), shape[-1], 8))

    def backward(conv):
        def run(x, kernel):
            def back(pair, _):
                y, pull = jax.vjp(conv, *pair)
                return jax.tree.map(lambda leaf: leaf / 100, pull(y)), y / 100

            return jax.lax.scan(back, (x, kernel), None, length=2)

        return run

    def forms(conv):
        text = jax.jit(backward(conv)).lower(x, kernel).compile().as_text()
        return set(re.findall("dim_labels=([^ ,]+)", "".join(re.findall(r" convolution\(.*", text))))

    spatial = "012"[: len(shape) - 2]
    fast = f"b{spatial}f_{spatial}io->b{spatial}f"
    assert forms(c.conv) == {fast} and forms(c.plain_conv) > {fast}
    found = [jax.tree.leaves(backward(conv)(x, kernel)) for conv in (c.conv, c.plain_conv)]
    for ours, plain in zip(*found, strict=True):
        np.testing.assert_allclose(ours, plain, atol=1e-6 * jnp.abs(plain).max())

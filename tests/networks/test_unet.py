"""The U-Net: every option equals an independent NumPy U-Net; precision, remat, sharding, refusals."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from oracle_unet import Oracle, blocks_to_channels, filled

from pgm_jax.core import Precision
from pgm_jax.networks import Conditions, UNetOptions, adm, ddpmpp, ncsnpp, unet

SMALL = {"width": 8, "multipliers": (1, 2), "blocks": 1, "attention": (1,), "dropout": 0.0}
ONE_LEVEL = {"dims": 1, "width": 8, "multipliers": (1,), "blocks": 1}
QUICK = {"xla_backend_optimization_level": 0}
EVERY = Conditions(image=1, classes=3, vector=2, tokens=4)


def quick(network):
    """Compiles without LLVM's optimiser, which takes most of the time of these tests."""
    return jax.jit(network.apply, static_argnames="train", compiler_options=QUICK)


def images(options, side, batch=2):
    draw = np.random.default_rng(1).standard_normal
    x = draw((batch, *[side] * options.dims, options.channels)).astype(np.float32)
    return x, np.linspace(-1.3, 0.7, batch).astype(np.float32)


def condition(batch=2, side=8):
    draw = np.random.default_rng(2).standard_normal
    return {
        "image": draw((batch, side, side, 1)).astype(np.float32),
        "class": np.arange(batch),
        "vector": draw((batch, 2)).astype(np.float32),
        "tokens": draw((batch, 3, 4)).astype(np.float32),
        "token_mask": np.arange(3) < 1 + np.arange(batch)[:, None],
    }


CASES = {
    "ddpmpp": (ddpmpp, {}, {}),
    "ncsnpp_patch": (
        ncsnpp,
        {"patch": 2},
        {"embedding": "fourier", "resample": "fir", "residual_input": True},
    ),
    "adm_conditions": (
        adm,
        {"attention": (0, 1), "head_channels": 4, "conditions": EVERY, "outputs": "all", "out_channels": 3},
        {"adaptive": True, "rescale": False},
    ),
    "line_add_fir": (
        unet,
        {"dims": 1, "skip": "add", "resample": "fir", "multipliers": (1, 2, 2), "blocks": 2},
        {},
    ),
    "volume_add_average": (unet, {"dims": 3, "skip": "add", "rescale": False, "attention": ()}, {}),
}


@pytest.mark.parametrize("name", CASES)
def test_every_option_equals_the_oracle(name):
    make, changes, implied = CASES[name]
    network, options = make(2, **(SMALL | changes)), UNetOptions(2, **(SMALL | changes | implied))
    params, (x, t) = filled(network), images(options, 4 if options.dims == 3 else 8)
    cond = condition() if options.conditions == EVERY else None
    results, expected = quick(network)(params, x, t, cond), Oracle(params, options)(x, t, cond)
    assert jax.tree.structure(results) == jax.tree.structure(expected)
    # Values are of order 1; float32 sums of a few thousand products.
    for ours, theirs in zip(jax.tree.leaves(results), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_dropout_masks_are_those_of_sample_and_block(key):
    options = UNetOptions(2, dropout=0.3, **ONE_LEVEL)
    network, (x, t) = unet(**options._asdict()), images(options, 8)
    params, run = filled(network), quick(network)

    def drop(keys):
        def dropped(h, number):
            masks = [jax.random.bernoulli(keys(number, i), 0.7, h.shape[1:]) for i in range(len(h))]
            return np.where(np.stack(masks), h / 0.7, 0)

        return dropped

    fold, own = jax.random.fold_in, jnp.stack([jax.random.key(8), jax.random.key(9)])
    result = run(params, x, t, key=key, train=True)
    expected = Oracle(params, options, drop(lambda number, i: fold(fold(key, number), i)))(x, t)
    np.testing.assert_allclose(result, expected, atol=2e-5)
    expected = Oracle(params, options, drop(lambda number, i: fold(own[i], number)))(x, t)
    np.testing.assert_allclose(run(params, x, t, key=own, train=True), expected, atol=2e-5)
    np.testing.assert_allclose(run(params, x, t, key=key), Oracle(params, options)(x, t), atol=2e-5)
    with pytest.raises(ValueError, match="dropout of 0.3 in training needs a key"):
        run(params, x, t, train=True)


@pytest.mark.slow
def test_the_stem_is_space_to_depth_around_a_smaller_network():
    deep, shallow = unet(1, patch=2, **ONE_LEVEL), unet(2, **ONE_LEVEL)
    params, (x, t) = filled(deep), images(UNetOptions(1, dims=1), 8)
    inside = quick(shallow)(params, blocks_to_channels(x, 2).astype(np.float32), t)
    np.testing.assert_allclose(blocks_to_channels(quick(deep)(params, x, t), 2), inside, atol=1e-6)


@pytest.mark.slow
def test_the_finest_of_all_outputs_is_the_output():
    sizes = ONE_LEVEL | {"multipliers": (1, 1)}
    both, (x, t) = unet(1, outputs="all", **sizes), images(UNetOptions(1, dims=1), 8)
    params = filled(both)
    plain = {name: value for name, value in params.items() if name != "coarse"}
    finest, coarse = quick(both)(params, x, t)
    assert coarse.shape == (2, 4, 1)
    np.testing.assert_allclose(finest, quick(unet(1, **sizes))(plain, x, t), atol=1e-6)


def test_the_output_starts_at_zero(key):
    network, (x, t) = unet(2, **ONE_LEVEL), images(UNetOptions(2, dims=1), 8)
    params = network.init(key)
    assert not np.any(quick(network)(params, x, t))
    assert not any(np.any(block["conv2"]["kernel"]) for block in params["decoder"].values())
    assert np.any(params["decoder"]["0"]["conv1"]["kernel"])


def test_names_of_parameters_are_regular(key):
    network = unet(2, dims=1, outputs="all", conditions=EVERY, head_channels=4, **SMALL)
    params = jax.eval_shape(network.init, key)
    assert params["encoder"]["0"]["conv1"]["kernel"].shape == (3, 8, 8)
    assert params["decoder"]["0"]["cross"]["key"]["kernel"].shape == (4, 16)
    assert params["conditioning"]["table"].shape == (4, 32)


@pytest.mark.parametrize(
    ("make", "count"),
    [(ddpmpp, 56_524_291), (ncsnpp, 57_187_075), (adm, 295_131_267)],
    ids=lambda v: str(v)[:20],
)
def test_sizes_of_the_presets(make, count):
    shapes = jax.eval_shape(make(3).init, jax.random.key(0))
    assert sum(math.prod(p.shape) for p in jax.tree.leaves(shapes)) == count


def test_the_size_by_hand():
    """width 4, one level, one block: three blocks joined by one skip each or none, time, stem and head."""
    shapes = jax.eval_shape(unet(1, width=4, multipliers=(1,), blocks=1).init, jax.random.key(0))
    conv = lambda i, o, k=9: k * i * o + o
    norm = lambda c: 2 * c
    block = lambda i: norm(i) + conv(i, 4) + (16 * 4 + 4) + norm(4) + conv(4, 4)
    time = (4 * 16 + 16) + (16 * 16 + 16)
    total = time + conv(1, 4) + 3 * block(4) + 2 * (block(8) + conv(8, 4, 1)) + norm(4) + conv(4, 1)
    assert sum(p.size for p in jax.tree.leaves(shapes)) == total


# c_noise of every preconditioning lies between ln(1e-9) / 4 and 999; x has unit variance or is far from it.
TOLD = ONE_LEVEL | {"attention": (0,), "head_channels": 4, "dropout": 0.0}
EXTREMES = np.array([-5.2, 0.0, 5.0, 999.0], np.float32)


@pytest.fixture(scope="module")
def extremes():
    x = images(UNetOptions(2, dims=1), 8, batch=4)[0] * np.array([1e-3, 1, 30, 1], np.float32)[:, None, None]
    return filled(adm(2, **TOLD)), x


def value_and_gradient(params, x, **options):
    network = adm(2, **TOLD, **options)

    def loss(params):
        output = network.apply(params, x, EXTREMES)
        return jnp.mean(output**2), output

    compiled = jax.jit(jax.grad(loss, has_aux=True), compiler_options=QUICK)
    gradient, output = compiled(params)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((gradient, output)))
    return output, jax.tree.leaves(gradient)


@pytest.fixture(scope="module")
def exact(extremes):
    return value_and_gradient(*extremes)


def test_rematerialised_blocks_change_nothing(extremes, exact):
    output, gradient = value_and_gradient(*extremes, remat="block")
    np.testing.assert_allclose(output, exact[0], atol=1e-5)
    for ours, theirs in zip(gradient, exact[1], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * max(1.0, np.max(np.abs(theirs))))
    params, x = extremes
    text = str(jax.make_jaxpr(adm(2, **TOLD, remat="block").apply)(params, x, EXTREMES))
    # One block of the encoder, two in the middle, two of the decoder.
    assert text.count("= remat") + text.count("= checkpoint") == 5


def test_low_precision_is_close_and_finite(extremes, exact):
    output, gradient = value_and_gradient(*extremes, precision=Precision(compute=jnp.bfloat16))
    assert output.dtype == jnp.float32 and all(leaf.dtype == jnp.float32 for leaf in gradient)
    relative = lambda a, b: np.linalg.norm(a - b) / np.linalg.norm(b)
    # bfloat16 rounds at 0.2 to 0.4 %; some ten layers of it add up as a random walk.
    assert relative(output, exact[0]) < 0.03
    flat = lambda leaves: np.concatenate([np.ravel(leaf) for leaf in leaves])
    assert relative(flat(gradient), flat(exact[1])) < 0.06


def test_precision_of_output_and_parameters():
    network = unet(1, dims=1, precision=Precision(jnp.bfloat16, jnp.bfloat16, jnp.bfloat16), **SMALL)
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    assert {p.dtype for p in jax.tree.leaves(shapes)} == {jnp.dtype(jnp.bfloat16)}
    x, t = images(UNetOptions(1, dims=1), 8)
    assert jax.eval_shape(network.apply, shapes, x, t).dtype == jnp.bfloat16


@pytest.mark.slow
def test_sharded_samples_and_rows_change_nothing():
    network = ncsnpp(2, **SMALL)
    params, (x, t) = filled(network), images(UNetOptions(2), 8, batch=4)
    mesh = jax.make_mesh((2, 2), ("data", "rows"), axis_types=(AxisType.Auto,) * 2)
    spread = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data", "rows")))
    np.testing.assert_allclose(quick(network)(params, spread, t), quick(network)(params, x, t), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dims": 4}, r"dims is 4; choose one of \[1, 2, 3\]"),
        ({"resample": "bilinear"}, "resample is 'bilinear'"),
        ({"embedding": "learned"}, "embedding is 'learned'"),
        ({"skip": "none"}, "skip is 'none'"),
        ({"outputs": "both"}, "outputs is 'both'"),
        ({"remat": "full"}, "remat is 'full'"),
        ({"attention": (1, 3)}, r"attention levels \[3\] are none of the 3 levels"),
        ({"width": 7}, "width must be even"),
        ({"blocks": 0}, "blocks must be at least 1"),
        ({"dropout": 1.0}, "dropout is a probability"),
    ],
)
def test_an_impossible_option_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        unet(1, **options)


def test_an_unknown_option_is_refused():
    with pytest.raises(TypeError, match="colour"):
        unet(1, colour="red")
    with pytest.raises(ValueError, match="head_channels 5 does not divide the 8 channels"):
        jax.eval_shape(unet(1, width=8, attention=(0,), head_channels=5).init, jax.random.key(0))


@pytest.mark.parametrize(
    ("shape", "t", "message"),
    [
        ((2, 12, 8, 1), (2,), r"\(12, 8\) must be a multiple of 8 \(patch 2, 3 levels\): .* to \(16, 8\)"),
        ((2, 8, 8, 3), (2,), r"x has shape \(2, 8, 8, 3\); the network needs \(batch, height, width, 1\)"),
        ((8, 8, 1), (8,), "x has shape"),
        ((2, 8, 8, 1), (2, 8, 8, 1), "t has shape"),
        ((2, 8, 8, 1), (), "one time a sample"),
    ],
)
def test_a_wrong_input_is_refused(shape, t, message):
    network = unet(1, width=2, multipliers=(1, 1, 1), blocks=1, patch=2)
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(network.apply, shapes, jnp.zeros(shape), jnp.zeros(t))
    with pytest.raises(ValueError, match="x is complex"):
        jax.eval_shape(network.apply, shapes, jnp.zeros((2, 8, 8, 1), jnp.complex64), jnp.zeros(2))

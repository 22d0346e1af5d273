"""The diffusion transformer equals a NumPy one block by block; start, symmetry, remat, precision, refusals."""

import operator
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from oracle_unet import Oracle, attention, blocks_to_channels, channels_to_blocks, filled, linear

from pgm_jax.core import Precision
from pgm_jax.networks import Conditions, DiTOptions, dit
from pgm_jax.networks.dit_blocks import position_table

EVERY = Conditions(image=1, classes=3, vector=2, tokens=4)
SMALL = {"width": 16, "depth": 2, "heads": 2, "expansion": 2, "patch": 2}
QUICK = {"xla_backend_optimization_level": 0}


def quick(network):
    """Compiles without LLVM's optimiser, which takes most of the time of these tests."""
    return jax.jit(network.apply, compiler_options=QUICK)


def inputs(spatial=(8, 4), channels=2, batch=2):
    x = np.random.default_rng(1).standard_normal((batch, *spatial, channels)).astype(np.float32)
    return x, np.linspace(-1.3, 0.7, batch).astype(np.float32)


def condition(spatial=(8, 4), batch=2):
    draw = np.random.default_rng(2).standard_normal
    return {
        "image": draw((batch, *spatial, 1)).astype(np.float32),
        "class": np.arange(batch),
        "vector": draw((batch, 2)).astype(np.float32),
        "tokens": draw((batch, 3, 4)).astype(np.float32),
        "token_mask": np.arange(3) < 1 + np.arange(batch)[:, None],
    }


class Transformer(Oracle):
    """The transformer in float64 NumPy, a loop over blocks; conditions and time are read as the U-Net's are."""

    def __init__(self, params, options):
        # 256 features of either kind; the U-Net has twice its width of Fourier features.
        width = 128 if options.embedding == "fourier" else 256
        read = types.SimpleNamespace(**{**options._asdict(), "width": width})
        super().__init__(params, read)
        self.options = options

    def __call__(self, x, t, cond=None):
        p, o = self.params, self.options
        h = linear(p["stem"], self.read(np.asarray(x, np.float64), np.asarray(t, np.float64), cond or {}))
        grid = h.shape[1:-1]
        h = (h + positions(grid, o.width)).reshape(len(x), -1, o.width)
        for number in range(o.depth):
            h = self.block(jax.tree.map(operator.itemgetter(number), p["blocks"]), h)
        shift, gain = self.vectors(p["head"], 2)
        h = linear(p["head"]["out"], norm(h) * (1 + gain) + shift)
        return channels_to_blocks(h.reshape(len(x), *grid, -1), o.patch)

    def vectors(self, p, count):
        return np.split(linear(p["modulate"], self.embedding)[:, None], count, -1)

    def block(self, p, x):
        shift1, gain1, gate1, shift2, gain2, gate2 = self.vectors(p, 6)
        h = norm(x) * (1 + gain1) + shift1
        parts = zip(np.split(p["qkv"]["kernel"], 3, -1), np.split(p["qkv"]["bias"], 3), strict=True)
        three = [{"kernel": kernel, "bias": bias} for kernel, bias in parts]
        own = dict(zip(("query", "key", "value"), three, strict=True)) | {"out": p["out"]}
        x = x + gate1 * attention(own, h, h, self.options.heads)
        if "cross" in p:
            x = x + attention(p["cross"], norm(x), self.tokens, self.options.heads, self.mask)
        h = linear(p["mlp1"], norm(x) * (1 + gain2) + shift2)
        h = 0.5 * h * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))
        return x + gate2 * linear(p["mlp2"], h)


def norm(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)


def positions(grid, width):
    """Writes the table entry by entry from its formula."""
    share = width // len(grid)
    table = np.zeros((*grid, width))
    for place in np.ndindex(*grid):
        for axis, index in enumerate(place):
            for i in range(share // 2):
                angle = index / 10000 ** (i / (share // 2))
                table[(*place, axis * share + i)] = np.cos(angle)
                table[(*place, axis * share + share // 2 + i)] = np.sin(angle)
    return table


CASES = {
    "conditions": ((8, 4), {"conditions": EVERY, "out_channels": 3}),
    "fourier": ((4, 6), {"embedding": "fourier", "expansion": 3, "heads": 4}),
    "line": ((12,), {"dims": 1, "patch": 3, "depth": 3, "conditions": Conditions(tokens=4)}),
    "volume": ((2, 4, 6), {"dims": 3, "width": 12, "depth": 1, "heads": 1}),
}


@pytest.mark.parametrize("name", CASES)
def test_the_scan_equals_a_loop_in_numpy(name):
    spatial, changes = CASES[name]
    network, options = dit(2, **(SMALL | changes)), DiTOptions(2, **(SMALL | changes))
    params, (x, t) = filled(network), inputs(spatial)
    known = condition(spatial)
    cond = {key: known[key] for key in options.conditions.keys() if key in known} or None
    # Values are of order 1; float32 sums of a few thousand products.
    expected = Transformer(params, options)(x, t, cond)
    np.testing.assert_allclose(quick(network)(params, x, t, cond), expected, atol=5e-5)


@pytest.mark.parametrize("grid", [(5,), (3, 4), (2, 3, 2)])
def test_the_position_table_is_its_formula_at_any_size(grid):
    build = jax.jit(position_table, static_argnums=(0, 1), compiler_options=QUICK)
    table = build(grid, 24)
    np.testing.assert_allclose(table, positions(grid, 24), atol=1e-6)
    larger = build(tuple(n + 3 for n in grid), 24)
    np.testing.assert_allclose(larger[tuple(slice(n) for n in grid)], table, atol=1e-6)
    flat = np.asarray(table).reshape(-1, 24)
    distance = np.linalg.norm(flat[:, None] - flat[None], axis=-1) + np.eye(len(flat))
    assert distance.min() > 0.5  # no two places look alike


def test_positions_are_all_that_orders_the_patches():
    """Patches moved together with their positions move the output: the stem takes the table's change in."""
    network, (x, t) = dit(4, **SMALL), inputs(channels=4)
    params = filled(network)
    kernel = np.linalg.qr(params["stem"]["kernel"])[0]  # 16 numbers a patch to 16 channels: invertible
    params = params | {"stem": {"kernel": kernel, "bias": params["stem"]["bias"]}}
    order = np.random.default_rng(0).permutation(8)
    patches = blocks_to_channels(x, 2).reshape(2, 8, 16)
    table = positions((4, 2), 16).reshape(8, 16)
    moved = patches[:, order] + (table[order] - table) @ kernel.T
    apply = quick(network)
    output = apply(params, channels_to_blocks(moved.reshape(2, 4, 2, 16), 2).astype(np.float32), t)
    expected = blocks_to_channels(apply(params, x, t), 2).reshape(2, 8, 16)[:, order]
    np.testing.assert_allclose(blocks_to_channels(output, 2).reshape(2, 8, 16), expected, atol=2e-5)
    still = apply(params, channels_to_blocks(patches[:, order].reshape(2, 4, 2, 16), 2).astype(np.float32), t)
    assert not np.allclose(blocks_to_channels(still, 2).reshape(2, 8, 16), expected, atol=0.1)


@pytest.fixture(scope="module")
def start():
    network = dit(2, conditions=EVERY, **SMALL)
    return network, jax.jit(network.init, compiler_options=QUICK)(jax.random.key(3))


def test_at_the_start_the_output_is_zero_and_every_block_the_identity(start):
    network, params = start
    (x, t), cond, apply = inputs(), condition(), quick(start[0])
    assert not np.any(apply(params, x, t, cond))
    awake = params | {"head": filled(network)["head"]}
    none = DiTOptions(2, conditions=EVERY, **(SMALL | {"depth": 0}))
    np.testing.assert_allclose(apply(awake, x, t, cond), Transformer(awake, none)(x, t, cond), atol=2e-5)


def test_blocks_start_with_their_own_draws_of_unit_gain(start):
    for layer in ("qkv", "mlp1", "mlp2"):
        first, second = start[1]["blocks"][layer]["kernel"]
        for kernel in (first, second):
            # 512 uniform draws or more: the variance is known to 4 %, here to four deviations.
            np.testing.assert_allclose(jnp.var(kernel), 2 / sum(kernel.shape), rtol=0.16)
        assert abs(np.corrcoef(np.ravel(first), np.ravel(second))[0, 1]) < 4 / np.sqrt(512)


def test_training_wakes_every_parameter_of_every_block(start):
    """From zero gates and a zero output; a zero layer behind a zero gate would sleep for ever."""
    network, params = start
    (x, t), cond = inputs(), condition()

    def loss(params):
        return jnp.mean((network.apply(params, x, t, cond) - x) ** 2)

    descend = jax.jit(
        lambda p: jax.tree.map(lambda a, g: a - g, p, jax.grad(loss)(p)), compiler_options=QUICK
    )
    trained = params
    for _ in range(4):
        trained = descend(trained)
    moved = jax.tree_util.tree_map_with_path(
        lambda path, a, b: np.abs(a - b).reshape(len(a) if path[0].key == "blocks" else 1, -1).max(1),
        params,
        trained,
    )
    # Softmax does not see a bias of the keys, so it only moves by rounding.
    del moved["blocks"]["cross"]["key"]["bias"]
    for path, change in jax.tree_util.tree_leaves_with_path(moved):
        assert np.all(change > 1e-7), jax.tree_util.keystr(path)


def test_sizes():
    # DiT-XL/2 with 1000 classes: 675,129,632 in the reference, which counts its table of 256 positions too.
    network = dit(4, out_channels=8, width=1152, depth=28, heads=16, conditions=Conditions(classes=1000))
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    assert sum(p.size for p in jax.tree.leaves(shapes)) == 675_129_632 - 256 * 1152
    assert shapes["blocks"]["qkv"]["kernel"].shape == (28, 1152, 3456)


# c_noise of every preconditioning lies between ln(1e-9) / 4 and 999; x has unit variance or is far from it.
EXTREMES = np.array([-5.2, 0.0, 5.0, 999.0], np.float32)
TOLD = Conditions(vector=2)


@pytest.fixture(scope="module")
def extremes():
    x = inputs(batch=4)[0] * np.array([1e-3, 1, 30, 1], np.float32)[:, None, None, None]
    cond = {"vector": condition(batch=4)["vector"]}
    return filled(dit(2, conditions=TOLD, **SMALL)), x, cond


def program(x, cond, **options):
    network = dit(2, conditions=TOLD, **SMALL, **options)

    def loss(params):
        output = network.apply(params, x, EXTREMES, cond)
        return jnp.mean(output**2), output

    return jax.grad(loss, has_aux=True)


def value_and_gradient(params, x, cond, **options):
    gradient, output = jax.jit(program(x, cond, **options), compiler_options=QUICK)(params)
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


def test_rematerialised_blocks_keep_only_their_input(extremes):
    """The forward scan's stacked outputs are what the backward pass keeps of each block."""

    def kept(remat):
        jaxpr = jax.make_jaxpr(program(*extremes[1:], remat=remat))(extremes[0])
        forward = next(e for e in jaxpr.eqns if e.primitive.name == "scan")
        stacked = forward.outvars[forward.params["num_carry"] :]
        return sum(var.aval.size for var in stacked)

    state = 2 * 4 * 8 * 16  # depth, batch, patches, width
    parameters = sum(leaf.size for leaf in jax.tree.leaves(extremes[0]["blocks"]))
    assert kept("block") <= state + parameters < kept("none") / 3


def test_low_precision_is_close_and_finite(extremes, exact):
    output, gradient = value_and_gradient(*extremes, precision=Precision(compute=jnp.bfloat16))
    assert output.dtype == jnp.float32 and all(leaf.dtype == jnp.float32 for leaf in gradient)
    relative = lambda a, b: np.linalg.norm(a - b) / np.linalg.norm(b)
    # bfloat16 rounds at 0.2 to 0.4 %; some ten layers of it add up as a random walk.
    assert relative(output, exact[0]) < 0.03
    flat = lambda leaves: np.concatenate([np.ravel(leaf) for leaf in leaves])
    assert relative(flat(gradient), flat(exact[1])) < 0.06


def test_precision_of_output_and_parameters():
    network = dit(1, precision=Precision(jnp.bfloat16, jnp.bfloat16, jnp.bfloat16), **SMALL)
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    assert {p.dtype for p in jax.tree.leaves(shapes)} == {jnp.dtype(jnp.bfloat16)}
    assert jax.eval_shape(network.apply, shapes, *inputs(channels=1)).dtype == jnp.bfloat16


def test_masked_tokens_are_as_good_as_absent():
    network, (x, t), tokens = (
        dit(2, conditions=Conditions(tokens=4), **SMALL),
        inputs(),
        condition()["tokens"],
    )
    params, apply, loud = filled(network), quick(network), tokens.copy()
    loud[:, 2] = 1e3
    masked = apply(params, x, t, {"tokens": loud, "token_mask": np.array([[1, 1, 0]] * 2)})
    np.testing.assert_allclose(masked, apply(params, x, t, {"tokens": tokens[:, :2]}), atol=1e-6)


@pytest.mark.slow
def test_split_samples_and_parameters_change_nothing():
    network = dit(2, **SMALL)
    params, (x, t) = filled(network), inputs(batch=4)
    mesh = jax.make_mesh((2, 2), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
    put = lambda a, *axes: jax.device_put(a, NamedSharding(mesh, PartitionSpec(*axes)))
    spread = params | {"blocks": jax.tree.map(lambda p: put(p, None, "fsdp"), params["blocks"])}
    apply = quick(network)
    np.testing.assert_allclose(apply(spread, put(x, "data"), t), apply(params, x, t), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dims": 4}, r"dims is 4; choose one of \[1, 2, 3\]"),
        ({"embedding": "learned"}, "embedding is 'learned'"),
        ({"remat": "full"}, "remat is 'full'"),
        ({"depth": 0}, "depth must be at least 1"),
        ({"width": 40, "heads": 6}, "width 40 must be a multiple of 12: of 6 heads"),
        ({"width": 16, "heads": 4, "dims": 3}, "multiple of 12: .* each of 3 axes"),
    ],
)
def test_an_impossible_option_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        dit(1, **options)


@pytest.mark.parametrize(
    ("shape", "t", "message"),
    [
        ((2, 12, 9, 1), (2,), r"\(12, 9\) must be a multiple of the patch 2"),
        ((2, 8, 8, 3), (2,), r"x has shape \(2, 8, 8, 3\); the network needs \(batch, height, width, 1\)"),
        ((2, 8, 8, 1), (2, 8, 8, 1), "t has shape"),
    ],
)
def test_a_wrong_input_is_refused(shape, t, message):
    network = dit(1, **SMALL)
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(network.apply, shapes, jnp.zeros(shape), jnp.zeros(t))
    with pytest.raises(ValueError, match="x is complex"):
        jax.eval_shape(network.apply, shapes, jnp.zeros((2, 8, 8, 1), jnp.complex64), jnp.zeros(2))
    with pytest.raises(ValueError, match="takes no condition 'class'"):
        jax.eval_shape(
            network.apply, shapes, jnp.zeros((2, 8, 8, 1)), jnp.zeros(2), {"class": jnp.zeros(2, int)}
        )

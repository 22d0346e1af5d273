"""Meshes, sharding rules, global batches, and samples that do not depend on the number of devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec as P

from pgm_jax.parallel import fsdp, make_mesh, replicate, shard_batch, shard_samples, shardings, start


def test_mesh_takes_what_the_other_axes_leave():
    mesh = make_mesh(fsdp=2, model=2)
    assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "model": 2}
    assert set(mesh.axis_types) == {AxisType.Auto}
    assert dict(make_mesh(devices=jax.devices()[:3]).shape) == {"data": 3, "fsdp": 1, "model": 1}


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"fsdp": 3}, "fsdp=3 times model=1 does not divide the 8 devices"),
        ({"data": 2}, r"needs 2 devices and there are 8; .*devices\(\)\[:2\]"),
        ({"data": 16}, "needs 16 devices"),
        ({"model": 0}, "model has size 0"),
    ],
)
def test_sizes_that_do_not_fit_are_named(sizes, message):
    with pytest.raises(ValueError, match=message):
        make_mesh(**sizes)


SHAPES = {
    "embed": {"kernel": jax.ShapeDtypeStruct((512, 512), jnp.float32)},
    "blocks": [
        {"kernel": jax.ShapeDtypeStruct((3, 3, 6, 8), jnp.float32), "bias": jax.ShapeDtypeStruct((8,), "f4")}
    ],
}


def test_first_matching_rule_wins_and_fsdp_splits_the_largest_divisible_axis():
    mesh = make_mesh(fsdp=4)
    rules = [("^embed/", replicate), ("0/kernel$", fsdp(min_size=100)), ("kernel$", P("data")), (".*", P())]
    found = jax.tree.map(lambda s: s.spec, shardings(SHAPES, rules, mesh))
    assert found["embed"]["kernel"] == P()
    assert found["blocks"][0] == {"kernel": P(None, None, None, "fsdp"), "bias": P()}


def test_fsdp_alone():
    mesh = make_mesh(fsdp=4)
    assert fsdp(min_size=1)((8, 8), mesh) == P(None, "fsdp")
    assert fsdp(min_size=1)((12, 10), mesh) == P("fsdp", None)
    assert (
        fsdp(min_size=1)((9, 7), mesh) == fsdp(min_size=65)((8, 8), mesh) == fsdp(min_size=1)((), mesh) == P()
    )
    assert fsdp(min_size=1)((8, 8), make_mesh()) == P()


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([("embed", replicate)], "no sharding rule matches 'blocks/0/bias'"),
        ([("bias", P("data", None)), (".*", P())], "'blocks/0/bias'.*2 axes, the array 1"),
        (
            [("kernel", P("fsdp")), (".*", P())],
            r"'blocks/0/kernel' of shape \(3, 3, .*axis of 3 into 4 parts",
        ),
        ([(".*", P("rows"))], "no mesh axis 'rows'"),
    ],
)
def test_rules_that_do_not_fit_name_the_path(rules, message):
    with pytest.raises(ValueError, match=message):
        shardings(SHAPES, rules, make_mesh(fsdp=4))


def test_sharded_init_equals_eager_init(key):
    def init(key):
        return {"kernel": jax.random.normal(key, (64, 32)), "bias": jnp.zeros(32)}

    mesh = make_mesh(fsdp=8)
    out = shardings(jax.eval_shape(init, key), [("kernel", fsdp(min_size=1)), (".*", replicate)], mesh)
    sharded = jax.jit(init, out_shardings=out)(key)
    assert sharded["kernel"].addressable_shards[0].data.shape == (8, 32)
    np.testing.assert_array_equal(sharded["kernel"], init(key)["kernel"])


def test_batch_is_split_over_data_and_fsdp_and_replicated_over_model():
    mesh = make_mesh(data=2, fsdp=2, model=2)
    host = {"image": np.arange(16.0, dtype=np.float32).reshape(8, 2), "label": np.arange(8)}
    batch = shard_batch(mesh, host)
    assert {s.data.shape for s in batch["image"].addressable_shards} == {(2, 2)}
    np.testing.assert_array_equal(batch["image"], host["image"])
    np.testing.assert_array_equal(batch["label"], host["label"])
    assert float(jax.jit(jnp.sum)(batch["image"])) == host["image"].sum()


def test_batches_that_do_not_divide_are_named():
    with pytest.raises(ValueError, match="image has 6 rows.*8 parts.*multiple of 8"):
        shard_batch(make_mesh(), {"image": np.ones((6, 2))})
    with pytest.raises(ValueError, match="step is a scalar"):
        shard_batch(make_mesh(), {"step": np.float32(1)})


def _walk(key, scale):
    """Eight samples of a random walk: the structure of a sampler."""

    def one(key):
        def step(x, i):
            x = 0.9 * x + scale * jax.random.normal(jax.random.fold_in(key, i), x.shape)
            return x, jnp.mean(x)

        return jax.lax.scan(step, jax.random.normal(key, (4, 4)), jnp.arange(5))

    return jax.vmap(lambda i: one(jax.random.fold_in(key, i)))(jnp.arange(8))


@pytest.mark.parametrize("sizes", [{}, {"fsdp": 2, "model": 2}])
def test_samples_are_those_of_one_device_and_each_device_computes_its_own(key, sizes):
    mesh = make_mesh(**sizes)
    x, trace = shard_samples(_walk, mesh)(key, 0.5)
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    assert {s.data.shape for s in x.addressable_shards} == {(8 // parts, 4, 4)}
    expected, expected_trace = jax.jit(_walk)(key, 0.5)
    np.testing.assert_allclose(x, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(trace, expected_trace, rtol=1e-5, atol=1e-6)
    program = shard_samples(_walk, mesh).lower(key, 0.5).compile().as_text()
    assert "f32[8,4,4]" not in program and "all-gather" not in program


def test_draws_are_bit_equal_for_every_mesh(key):
    draw = lambda key: jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(key, i), (3, 3)))(
        jnp.arange(8)
    )
    single = jax.jit(draw)(key)
    for devices in (1, 2, 8):
        np.testing.assert_array_equal(
            shard_samples(draw, make_mesh(devices=jax.devices()[:devices]))(key), single
        )


def test_start_is_idempotent_and_passes_arguments_on(monkeypatch):
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *a, **k: calls.append((a, k)))
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: bool(calls))
    start("localhost:1", 2, 0, initialization_timeout=5)
    start()
    assert calls == [(("localhost:1", 2, 0), {"initialization_timeout": 5})]

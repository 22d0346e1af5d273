"""Checkpoints: every dtype comes back bit for bit, onto any sharding, and damage is named in one line."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

from pgm_jax.core import checkpoint


class Carry(NamedTuple):
    step: jax.Array
    key: jax.Array
    buffers: dict


def _state(seed=0):
    keys = jax.random.split(jax.random.key(seed), 3)
    return {
        "params": {"blocks": {"0": {"kernel": jax.random.normal(keys[0], (8, 4))}}},
        "carry": Carry(jnp.int32(7), keys, {"list": [jnp.ones(3, jnp.bfloat16), jnp.array([1 + 2j, 3j])]}),
        "empty": jnp.zeros((0, 3)),
    }


def _plain(tree):
    is_key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, tree)


def test_every_leaf_comes_back_bit_for_bit_with_the_meta(tmp_path):
    state, meta = _state(), {"sizes": [1, 2], "lr": 1e-4, "name": "é", "none": None, "deep": {"empty": []}}
    checkpoint.save(tmp_path, state, meta, step=3)
    restored, found = checkpoint.restore(tmp_path, jax.eval_shape(lambda: state))
    assert found == meta == checkpoint.read_meta(tmp_path)
    chex.assert_trees_all_equal(_plain(restored), _plain(state))
    chex.assert_trees_all_equal_shapes_and_dtypes(restored, state)
    assert isinstance(restored["carry"], Carry)
    assert jax.random.bits(restored["carry"].key[1]) == jax.random.bits(state["carry"].key[1])


def test_one_array_and_numpy_weights(tmp_path):
    checkpoint.save(tmp_path / "one", jnp.arange(5.0))
    restored, meta = checkpoint.restore(tmp_path / "one", jax.ShapeDtypeStruct((5,), jnp.float32))
    np.testing.assert_array_equal(restored, np.arange(5.0))
    assert meta is None
    checkpoint.save(tmp_path / "numpy", {"w": np.arange(4.0)})
    restored, _ = checkpoint.restore(tmp_path / "numpy", {"w": np.zeros(4)})
    assert isinstance(restored["w"], jax.Array) and restored["w"].dtype == jnp.float32


def test_restores_onto_another_sharding(tmp_path):
    mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
    state = {"w": jax.random.normal(jax.random.key(1), (8, 4)), "key": jax.random.split(jax.random.key(2), 4)}
    first = {"w": NamedSharding(mesh, P("a", "b")), "key": NamedSharding(mesh, P("a"))}
    second = {"w": NamedSharding(mesh, P(None, ("a",))), "key": NamedSharding(mesh, P())}
    checkpoint.save(tmp_path, jax.device_put(state, first))
    abstract = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, second)
    restored, _ = checkpoint.restore(tmp_path, abstract)
    assert all(restored[name].sharding.is_equivalent_to(second[name], state[name].ndim) for name in state)
    chex.assert_trees_all_equal(_plain(restored), _plain(state))


def test_steps_latest_keep_and_overwrite(tmp_path):
    assert checkpoint.steps(tmp_path / "absent") == [] and checkpoint.latest_step(tmp_path / "absent") is None
    for step in (1, 5, 20):
        checkpoint.save(tmp_path, jnp.full(2, float(step)), {"step": step}, step=step, keep=2)
    assert checkpoint.steps(tmp_path) == [5, 20] and checkpoint.latest_step(tmp_path) == 20
    shape = jax.ShapeDtypeStruct((2,), jnp.float32)
    assert checkpoint.restore(tmp_path, shape)[1] == {"step": 20}
    assert checkpoint.restore(tmp_path, shape, step=5)[0][0] == 5
    with pytest.raises(checkpoint.CheckpointError, match="20 exists"):
        checkpoint.save(tmp_path, jnp.zeros(2), step=20)
    checkpoint.save(tmp_path, jnp.zeros(2), step=20, overwrite=True)
    assert checkpoint.restore(tmp_path, shape)[0][0] == 0


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved")
    state = {"w": jax.random.normal(jax.random.key(0), (128, 128)), "b": jnp.zeros(3)}
    checkpoint.save(path, state, {"a": 1}, step=1)
    checkpoint.save(path, state, {"a": 1}, step=2)
    return path, jax.eval_shape(lambda: state)


def _copy(saved, tmp_path):
    import shutil

    shutil.copytree(saved[0], tmp_path / "copy")
    return tmp_path / "copy", saved[1]


def _flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGE = {
    "missing": lambda file: file.unlink(),
    "shortened": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "one bit flipped": _flip,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_to_any_file_is_named_in_one_line(saved, tmp_path, damage):
    path, abstract = _copy(saved, tmp_path)
    files = [
        f for f in (path / "2").rglob("*") if f.is_file() and f.stat().st_size and f.name != "_FILES.json"
    ]
    assert len(files) > 5
    for file in files:
        content = file.read_bytes()
        DAMAGE[damage](file)
        with pytest.raises(checkpoint.CheckpointError, match=file.name) as caught:
            checkpoint.restore(path, abstract)
        assert "\n" not in str(caught.value) and "other complete steps: [1]" in str(caught.value)
        file.write_bytes(content)
    checkpoint.restore(path, abstract)


def test_an_interrupted_save_is_never_the_latest_and_can_be_repeated(saved, tmp_path):
    path, abstract = _copy(saved, tmp_path)
    (path / "2" / "_FILES.json").unlink()
    (path / "3.orbax-checkpoint-tmp").mkdir()
    assert checkpoint.latest_step(path) == 1
    for step in (2, 3):
        with pytest.raises(
            checkpoint.CheckpointError, match=rf"{step} is incomplete.*complete steps: \[1.*\]"
        ):
            checkpoint.restore(path, abstract, step=step)
        checkpoint.save(path, {"w": jnp.ones((128, 128)), "b": jnp.ones(3)}, step=step)
    assert checkpoint.steps(path) == [1, 2, 3]
    with pytest.raises(checkpoint.CheckpointError, match="9 does not exist"):
        checkpoint.restore(path, abstract, step=9)
    with pytest.raises(checkpoint.CheckpointError, match="no complete checkpoint"):
        checkpoint.restore(tmp_path / "absent", abstract)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"w": jax.ShapeDtypeStruct((128, 64), jnp.float32)},
            r"'w' is float32\[128, 128\].*float32\[128, 64\]",
        ),
        ({"w": jax.ShapeDtypeStruct((128, 128), jnp.bfloat16)}, "'w' is float32.*bfloat16"),
        ({"extra": jax.ShapeDtypeStruct((2,), jnp.float32)}, "lacks 'extra'"),
        ({"b": None}, "the given state lacks, 'b'"),
    ],
)
def test_another_structure_is_named(saved, change, message):
    path, abstract = saved
    with pytest.raises(checkpoint.CheckpointError, match=message):
        checkpoint.restore(path, {**abstract, **change})


def test_what_cannot_be_saved_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(TypeError, match="rate is a float"):
        checkpoint.save(tmp_path, {"w": jnp.ones(2), "rate": 0.1})
    with pytest.raises(TypeError, match="JSON"):
        checkpoint.save(tmp_path, {"w": jnp.ones(2)}, {"a": object()})
    with pytest.raises(ValueError, match="no arrays"):
        checkpoint.save(tmp_path, {"w": jnp.ones((0, 2))})
    with pytest.raises(ValueError, match="same path"):
        checkpoint.save(tmp_path, {"a": {"b": jnp.ones(1)}, "a/b": jnp.ones(1)})
    assert not list(tmp_path.iterdir())


def test_a_scalar_key_comes_back_on_its_own_sharding(tmp_path):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    key = jax.device_put(jax.random.key(3), whole)
    checkpoint.save(tmp_path, {"key": key, "a": jnp.ones(2)})
    abstract = {"key": jax.ShapeDtypeStruct((), key.dtype, sharding=whole), "a": jnp.ones(2)}
    state, _ = checkpoint.restore(tmp_path, abstract)
    assert state["key"].sharding.is_equivalent_to(whole, 0) and state["key"].sharding.spec == whole.spec
    assert jnp.array_equal(jax.random.key_data(state["key"]), jax.random.key_data(key))


def test_what_an_interrupted_save_left_is_cleared_by_the_next(tmp_path):
    left = tmp_path / "3.orbax-checkpoint-tmp-17" / "state"
    left.mkdir(parents=True)
    (left / "part").write_text("cut short")
    (tmp_path / "notes.orbax-checkpoint-tmp").mkdir()
    checkpoint.save(tmp_path, jnp.ones(2), step=4)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["4", "notes.orbax-checkpoint-tmp"]

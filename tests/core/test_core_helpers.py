"""Keys per sample, the precision record, and the message of a missing extra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax.core import MissingExtra, Precision, prior_key, require, sample_key, step_key


def _draws(key, count):
    return jax.vmap(lambda i: jax.random.normal(step_key(sample_key(key, i), 2), (3,)))(jnp.arange(count))


def test_a_draw_does_not_depend_on_the_batch(key):
    np.testing.assert_array_equal(_draws(key, 8)[:3], _draws(key, 3))
    one = jax.random.normal(step_key(sample_key(key, 2), 2), (3,))
    np.testing.assert_array_equal(_draws(key, 8)[2], one)


def test_samples_steps_and_the_prior_have_different_keys(key):
    data = [jax.random.key_data(f(k)) for k in (sample_key(key, 0), sample_key(key, 1)) for f in _FOLDS]
    assert len({tuple(np.asarray(d)) for d in data}) == len(data)


_FOLDS = (prior_key, lambda k: step_key(k, 0), lambda k: step_key(k, 1), lambda k: step_key(k, 1000))


def test_keys_trace(key):
    traced = jax.jit(lambda k, i: jax.random.key_data(step_key(sample_key(k, i), i)))(key, 4)
    np.testing.assert_array_equal(traced, jax.random.key_data(step_key(sample_key(key, 4), 4)))


def test_precision_casts_floating_leaves_only(key):
    tree = {
        "w": jnp.ones(2),
        "i": jnp.arange(2),
        "c": jnp.ones(2, jnp.complex64),
        "k": key,
        "b": jnp.array(True),
        "n": 3,
    }
    cast = Precision(compute=jnp.bfloat16).cast(tree, "compute")
    assert cast["w"].dtype == jnp.bfloat16 and cast["n"] == 3
    assert all(cast[name].dtype == tree[name].dtype for name in "ickb")
    assert Precision(compute=jnp.bfloat16).cast(cast, "param")["w"].dtype == jnp.float32


def test_require_returns_the_module_or_names_the_extra():
    import math

    assert require("math", "viz") is math
    with pytest.raises(
        MissingExtra, match=r'absent_module is not installed: run  pip install "pgm_jax\[viz\]"'
    ):
        require("absent_module.sub", "viz")

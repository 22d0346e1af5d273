"""The primitive pair: one small map with integer and float tables under every transform."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

from pgm_jax.operators.linear_pair import linear_pair

VIEWS, SIZE, SLICES = 8, 5, 3


def _forward(tables, x, *, scale):
    """y[v] = scale sum_i weights[v, i] x[index[v, i]], with a scan over views as projectors have."""
    index, weights = tables

    def view(total, table):
        i, w = table
        y = jnp.sum(w[:, None] * x[i], axis=0)
        return total + y, scale * y

    return jax.lax.scan(view, jnp.zeros(x.shape[1:], x.dtype), (index, weights))[1]


def _adjoint(tables, y, *, scale):
    index, weights = tables

    def view(image, table):
        i, w, row = table
        hits = (i[:, None] == jnp.arange(SIZE)[None]).astype(y.dtype)
        return image + scale * (hits.T @ w)[:, None] * row[None], None

    return jax.lax.scan(view, jnp.zeros((SIZE, *y.shape[1:]), y.dtype), (index, weights, y))[0]


apply, apply_adjoint = linear_pair("test_pair", _forward, _adjoint)


@pytest.fixture
def tables():
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.integers(0, SIZE, (VIEWS, 4))), jnp.asarray(
        rng.normal(size=(VIEWS, 4)), jnp.float32
    )


@pytest.fixture
def dense(tables):
    index, weights = (np.asarray(table, np.float64) for table in tables)
    matrix = np.zeros((VIEWS, SIZE))
    for view in range(VIEWS):
        np.add.at(matrix[view], index[view].astype(int), 2.0 * weights[view])
    return matrix


def _normal(seed, *shape, dtype=np.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def _close(a, b, rtol=2e-6):
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape
    np.testing.assert_allclose(a, b, rtol=0, atol=rtol * max(1.0, np.abs(b).max()))


A = lambda tables: lambda x: apply(tables, x, scale=2.0)
AT = lambda tables: lambda y: apply_adjoint(tables, y, scale=2.0)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, jax.checkpoint], ids=["eager", "jit", "checkpoint"])
def test_values_and_reverse_mode(tables, dense, wrap):
    x, y = _normal(1, SIZE, SLICES), _normal(2, VIEWS, SLICES)
    f = wrap(A(tables))
    _close(f(x), dense @ x)
    out, pullback = jax.vjp(f, x)
    _close(out, dense @ x)
    _close(pullback(y)[0], dense.T @ y)
    _close(wrap(AT(tables))(y), dense.T @ y)


def test_forward_mode_and_hessian(tables, dense):
    x, v = _normal(1, SIZE, 1), _normal(2, SIZE, 1)
    out, tangent = jax.jvp(A(tables), (x,), (v,))
    _close(tangent, dense @ v)
    hessian = jax.hessian(lambda x: jnp.sum(A(tables)(x) ** 2))(x)[:, 0, :, 0]
    _close(hessian, 2 * dense.T @ dense)
    _close(jax.jacrev(A(tables))(x)[:, 0, :, 0], dense)
    _close(jax.jacfwd(A(tables))(x)[:, 0, :, 0], dense)


def test_linear_transpose_twice_is_the_map(tables, dense):
    x, y = _normal(1, SIZE, SLICES), _normal(2, VIEWS, SLICES)
    transpose = lambda y: jax.linear_transpose(A(tables), x)(y)[0]
    _close(transpose(y), dense.T @ y)
    _close(jax.linear_transpose(transpose, y)(x)[0], dense @ x)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_vmap_folds_into_slices(tables, dense, axis):
    x = _normal(1, 4, SIZE, SLICES)
    expected = np.einsum("vi,bis->bvs", dense, x)
    batched = jax.vmap(A(tables), in_axes=axis, out_axes=axis)
    moved = jnp.moveaxis(x, 0, axis)
    _close(batched(moved), np.moveaxis(expected, 0, axis))
    # One call with more slices: no loop over the batch appears.
    text = str(jax.make_jaxpr(batched)(moved))
    assert text.count("test_pair") == 1 and "scan" not in text and "while" not in text


def test_nested_vmap_and_vmap_of_grad(tables, dense):
    x = _normal(1, 2, 4, SIZE, SLICES)
    _close(jax.vmap(jax.vmap(A(tables)))(x), np.einsum("vi,abis->abvs", dense, x))
    _close(
        jax.vmap(jax.vmap(A(tables), in_axes=2), in_axes=1)(jnp.moveaxis(x, (0, 1), (1, 3))),
        np.einsum("vi,abis->abvs", dense, x),
    )
    gradient = jax.vmap(jax.vmap(jax.grad(lambda x: jnp.sum(A(tables)(x) ** 2) / 2)))(x)
    _close(gradient, np.einsum("ij,abjs->abis", dense.T @ dense, x))


def test_vmap_over_tables(tables, dense):
    index, weights = tables
    scales = np.arange(1.0, 4.0, dtype=np.float32)
    x = _normal(1, 3, SIZE, SLICES)
    many = jax.vmap(lambda w, x: apply((index, w), x, scale=2.0))
    _close(
        many(scales[:, None, None] * weights[None], x),
        scales[:, None, None] * np.einsum("vi,bis->bvs", dense, x),
    )
    shared = jax.vmap(lambda w: apply((index, w), x[0], scale=2.0))
    _close(shared(scales[:, None, None] * weights[None]), scales[:, None, None] * (dense @ x[0])[None])


def test_grad_through_scan(tables, dense):
    gram = dense.T @ dense / 50

    def loss(x):
        body = lambda x, _: (x - AT(tables)(A(tables)(x)) / 50, None)
        return jnp.sum(jax.lax.scan(body, x, length=5)[0] ** 2) / 2

    x = _normal(1, SIZE, SLICES)
    step = np.linalg.matrix_power(np.eye(SIZE) - gram, 5)
    for wrapped in (loss, jax.checkpoint(loss), jax.jit(loss)):
        _close(jax.grad(wrapped)(x), step.T @ step @ x)


def test_tables_are_held_fixed_and_operands_may_be_leaves(tables):
    index, weights = tables
    x = _normal(1, SIZE, SLICES)
    loss = lambda weights, x: jnp.sum(apply((index, weights), x, scale=2.0) ** 2)
    gradient, in_x = jax.grad(loss, argnums=(0, 1))(weights, x)
    assert not np.any(gradient) and np.any(in_x)


def test_complex_integer_and_bfloat16(tables, dense):
    x = _normal(1, SIZE, SLICES) + 1j * _normal(2, SIZE, SLICES)
    y = _normal(3, VIEWS, SLICES) + 1j * _normal(4, VIEWS, SLICES)
    _close(A(tables)(x), dense @ x)
    _close(AT(tables)(y), dense.T @ y)
    _close(A(tables)(jnp.ones((SIZE, 1), jnp.int32)), dense @ np.ones((SIZE, 1)))
    narrow = A(tables)(jnp.ones((SIZE, 1), jnp.bfloat16))
    assert narrow.dtype == jnp.float32
    _close(narrow, dense @ np.ones((SIZE, 1)))


def test_float64(tables, dense, x64):
    x, y = _normal(1, SIZE, SLICES, dtype=np.float64), _normal(2, VIEWS, SLICES, dtype=np.float64)
    assert A(tables)(x).dtype == jnp.float64
    _close(A(tables)(x), dense @ x, 1e-14)
    _close(jax.vjp(A(tables), x)[1](y)[0], dense.T @ y, 1e-14)


def test_a_map_that_changes_the_dtype_is_refused():
    narrow, _ = linear_pair("test_narrow", lambda t, x: x.astype(jnp.bfloat16), lambda t, y: y)
    with pytest.raises(TypeError, match="keep the dtype"):
        narrow((), jnp.ones((2, 1)))


@pytest.fixture
def mesh():
    return jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("check", [False, True], ids=["unchecked", "vma"])
def test_shard_map_over_slices(tables, dense, mesh, jit, check):
    x = _normal(1, SIZE, 16)
    wrap = jax.jit if jit else lambda f: f
    sharded = wrap(
        jax.shard_map(
            lambda t, x: apply(t, x, scale=2.0),
            mesh=mesh,
            in_specs=(P(), P(None, "x")),
            out_specs=P(None, "x"),
            check_vma=check,
        )
    )
    _close(sharded(tables, x), dense @ x)
    _close(jax.grad(lambda x: jnp.sum(sharded(tables, x) ** 2) / 2)(x), dense.T @ dense @ x)
    text = jax.jit(sharded).lower(tables, x).compile().as_text()
    assert not any(word in text for word in ("all-reduce", "all-gather", "all-to-all", "collective-permute"))


def test_shard_map_over_views_sums_the_adjoint(tables, dense, mesh):
    """Tables sharded, image replicated: each device makes its views, and the gradient is a sum over devices."""
    x, y = _normal(1, SIZE, SLICES), _normal(2, VIEWS, SLICES)
    sharded = jax.shard_map(
        lambda t, x: apply(t, x, scale=2.0), mesh=mesh, in_specs=(P("x"), P()), out_specs=P("x")
    )
    _close(sharded(tables, x), dense @ x)
    _close(jax.vjp(lambda x: sharded(tables, x), x)[1](y)[0], dense.T @ y)
    inside = jax.shard_map(
        lambda t, x, y: jax.grad(lambda x: jnp.sum((apply(t, x, scale=2.0) - y) ** 2) / 2)(x),
        mesh=mesh,
        in_specs=(P("x"), P(), P("x")),
        out_specs=P(),
    )
    _close(jax.jit(inside)(tables, x, y), dense.T @ (dense @ x - y))


def test_sharded_arguments_under_jit_and_pmap(tables, dense, mesh):
    x = _normal(1, SIZE, 16)
    place = NamedSharding(mesh, P(None, "x"))
    out = jax.jit(A(tables))(jax.device_put(x, place))
    _close(out, dense @ x)
    assert out.sharding.is_equivalent_to(place, 2)
    batch = _normal(1, 8, SIZE, SLICES)
    _close(jax.pmap(A(tables))(batch), np.einsum("vi,bis->bvs", dense, batch))

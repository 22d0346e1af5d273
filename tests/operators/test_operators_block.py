"""Matrices of operators, and row and column sums, against dense matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax import operators as op
from pgm_jax.operators.block import block


def _values(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.result_type(float))


def _block():
    sense = op.Sense.single(2, 3, np.ones(3))
    return block(
        (
            (op.Matrix(_values(0, 4, 6), (2, 3, 1)), op.Matrix(_values(1, 4, 5))),
            (None, op.Matrix(_values(2, 3, 5))),
            (sense, None),
        )
    )


def _dense(a):
    m = [[None if e is None else np.asarray(e.matrix()) for e in row] for row in a.rows]
    m[1][0], m[2][1] = np.zeros((3, 6)), np.zeros((6, 5))
    return np.block(m)


def test_a_block_is_the_matrix_of_its_matrices(x64):
    a = _block()
    dense = _dense(a)
    np.testing.assert_allclose(a.matrix(), dense, atol=1e-12)
    np.testing.assert_allclose(a.H.matrix(), dense.conj().T, atol=1e-12)
    np.testing.assert_allclose((2j * a).H.matrix(), -2j * dense.conj().T, atol=1e-12)
    np.testing.assert_allclose((a + a / 2).H.matrix(), 1.5 * dense.conj().T, atol=1e-12)
    np.testing.assert_allclose(a.norm(steps=300), np.linalg.norm(dense, 2), rtol=1e-6)
    assert max(float(op.adjoint_gap(a, jax.random.key(seed))) for seed in range(5)) < 1e-12


def test_a_block_passes_the_transforms(x64):
    a = block(((op.Matrix(_values(0, 4, 6)), op.Matrix(_values(1, 4, 5))),))
    x = (_values(3, 6), _values(4, 5))
    y = jax.jit(lambda a, x: a(x))(a, x)
    back = jax.linear_transpose(a, x)(y)[0]
    jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, rtol=1e-12), back, a.adjoint(y))
    xs = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), x)
    np.testing.assert_allclose(jax.vmap(a)(xs)[0][1], 2 * y[0], rtol=1e-12)


def test_the_rows_of_a_block_are_its_subsets(x64):
    a = _block()
    x = (_values(3, 2, 3, 1), _values(4, 5))
    y = a(x)
    parts = [a.subset(i).adjoint(a.restrict(y, i)) for i in (0,)]
    np.testing.assert_allclose(a.subset(0)(x)[0], y[0])
    np.testing.assert_allclose(parts[0][1], a.rows[0][1].adjoint(y[0]))


SUMS = {
    "matrix": lambda: op.Matrix(_values(0, 4, 6), (2, 3, 1), (2, 2)),
    "diagonal": lambda: op.Diagonal(_values(1, 2, 3, 1)),
    "identity": lambda: op.Identity((2, 3, 1)),
    "scaled": lambda: -2.5 * op.Matrix(_values(0, 4, 6)),
    "adjoint": lambda: op.Matrix(_values(0, 4, 6)).H,
    "stacked": lambda: op.stack(op.Matrix(_values(0, 4, 6)), op.Diagonal(_values(1, 6))),
    "block": lambda: block(((op.Matrix(_values(0, 4, 6)), None), (op.Matrix(_values(1, 3, 6)), op.Identity((3,))))),
    "composed": lambda: op.Matrix(jnp.abs(_values(0, 4, 6))) @ op.Diagonal(jnp.abs(_values(1, 6))),
    "sum": lambda: op.Matrix(jnp.abs(_values(0, 4, 6))) + op.Matrix(jnp.abs(_values(1, 4, 6))),
    "difference": lambda: op.FiniteDifference((3, 4, 1), spacing=(1.0, 0.5)),
    "difference_periodic": lambda: op.FiniteDifference((3, 4, 1), boundary="periodic"),
    "difference_zero": lambda: op.FiniteDifference((3, 4, 1), boundary="zero"),
}  # fmt: skip


@pytest.mark.parametrize("name", SUMS)
def test_row_and_column_sums_are_those_of_the_magnitudes(name, x64):
    a = SUMS[name]()
    magnitudes = np.abs(a.matrix())
    flat = lambda tree: np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
    np.testing.assert_allclose(flat(a.row_sums()), magnitudes.sum(1), atol=1e-12)
    np.testing.assert_allclose(flat(a.column_sums()), magnitudes.sum(0), atol=1e-12)
    shapes = lambda tree: jax.tree.map(jnp.shape, tree)
    assert shapes(a.column_sums()) == jax.tree.map(lambda leaf: leaf.shape, a.domain)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: op.Fourier((2, 2, 1)).row_sums(), "row_sums of Fourier"),
        (lambda: op.Sense.single(2, 2, np.ones(2)).column_sums(), "column_sums of Sense"),
        (
            lambda: (op.FiniteDifference((2, 1)) @ op.Identity((2, 1))).row_sums(),
            "row_sums of Composed.*negative",
        ),
        (lambda: block(()), "one length"),
        (lambda: block(((op.Identity((2,)),), (op.Identity((2,)), None))), r"one length, got \[1, 2\]"),
        (lambda: block(((op.Identity((2,)), None),)), "column 1 of block is all None"),
        (lambda: block(((op.Identity((2,)), op.Identity((3,))),)), r"row 0 of block have ranges"),
        (lambda: block(((op.Identity((2,)),), (op.Identity((3,)),))), r"column 0 of block have domains"),
        (lambda: block(((op.Identity((2,)),),))(jnp.ones(2)), "tuple of 1 images, got"),
        (lambda: block(((op.Identity((2,)),),)).adjoint((1, 2)), "tuple of 1 measurements, got 2"),
    ],
)
def test_wrong_blocks_say_what_is_needed(call, words):
    with pytest.raises(ValueError, match=words):
        call()

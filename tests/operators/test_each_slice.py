"""`EachSlice` is the block-diagonal operator, with its sums, norm and subsets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax.operators import EachSlice, Fourier, ImageGrid, Parallel, ParallelBeam, adjoint_gap, stack


def _beam(subsets=1):
    geometry = Parallel(np.linspace(0, np.pi, 6, endpoint=False), bins=9)
    return ParallelBeam(ImageGrid((6, 5), 1.0), geometry, subsets=subsets)


def test_dense_matrix_is_block_diagonal():
    beam = _beam()
    whole, block = EachSlice(beam, 3).matrix(), beam.matrix()
    np.testing.assert_allclose(whole, jnp.kron(jnp.eye(3), block), atol=1e-6, equal_nan=False)


@pytest.mark.parametrize("operator", [_beam(), Fourier((6, 5, 1))], ids=["beam", "fourier"])
def test_adjoint_gram_and_norm(operator):
    each = EachSlice(operator, 4)
    assert adjoint_gap(each, jax.random.key(0)) < 1e-6
    x = jax.random.normal(jax.random.key(1), each.domain.shape)
    np.testing.assert_allclose(each.gram(x), each.adjoint(each(x)), atol=2e-4, equal_nan=False)
    np.testing.assert_allclose(each.norm(), np.linalg.norm(each.matrix(), 2), rtol=2e-3, equal_nan=False)


def test_sums_and_subsets():
    each = EachSlice(_beam(subsets=3), 2)
    matrix = np.abs(np.asarray(each.matrix()))
    np.testing.assert_allclose(each.row_sums().ravel(), matrix.sum(1), rtol=1e-5, atol=1e-5, equal_nan=False)
    np.testing.assert_allclose(
        each.column_sums().ravel(), matrix.sum(0), rtol=1e-5, atol=1e-5, equal_nan=False
    )
    x = jax.random.normal(jax.random.key(2), each.domain.shape)
    assert each.subsets == 3
    np.testing.assert_allclose(
        each.subset(1)(x), each.restrict(each(x), 1), rtol=1e-4, atol=1e-5, equal_nan=False
    )


def test_refusals():
    with pytest.raises(ValueError, match="at least 1 slice"):
        EachSlice(_beam(), 0)
    with pytest.raises(ValueError, match="from one array to one array"):
        EachSlice(stack(_beam(), _beam()), 2)
    with pytest.raises(ValueError, match="needs one volume"):
        EachSlice(_beam(), 2)(jnp.ones((3, 6, 5, 1)))

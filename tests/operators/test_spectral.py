"""Singular value decompositions of operators: they reproduce the operator, with orthonormal coordinates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax.operators import Diagonal, Matrix, RealImage, Sense, birdcage_maps, spectral


def _operators():
    rng = np.random.default_rng(0)
    wide, mask = rng.normal(size=(3, 6)), jnp.asarray([1.0, 0.0, 1.0, 0.5])
    phase = jnp.exp(1j * jnp.asarray(rng.normal(size=(1, 4, 4))))
    return {
        "diagonal": Diagonal(jnp.asarray([0.0, -2.0, 1.5 + 1j, 0.3])),
        "coil with a phase": Sense(phase, mask),
        "two coils": Sense(birdcage_maps(2, 4, 4).astype(complex), mask),
        "real image": RealImage(Sense(phase, mask)),
        "wide": Matrix(jnp.asarray(wide), image_shape=(2, 3), data_shape=(3, 1)),
        "deficient": Matrix(jnp.asarray(np.vstack([wide, wide[:1] + wide[1:2]]).T)),
        "complex": Matrix(jnp.asarray(wide + 1j * rng.normal(size=(3, 6)))),
    }


@pytest.mark.parametrize("name", _operators())
def test_the_decomposition_is_the_operator(x64, name):
    operator = _operators()[name]
    decomposition, rng = spectral(operator), np.random.default_rng(1)
    is_complex = jnp.issubdtype(operator.domain.dtype, jnp.complexfloating)
    draw = lambda shape, kind: jnp.asarray(
        rng.normal(size=shape) + (1j * rng.normal(size=shape) if kind else 0)
    )
    x = draw(operator.domain.shape, is_complex)
    np.testing.assert_allclose(decomposition.apply(x), operator(x), atol=1e-12)
    # Orthonormal coordinates, V^H V = I, and y from its coordinates where y is in the range.
    v = draw(decomposition.values.shape, is_complex)
    np.testing.assert_allclose(decomposition.basis(decomposition.basis.adjoint(v)), v, atol=1e-12)
    seen = jnp.where(decomposition.values > 0, decomposition.basis(x), 0)
    np.testing.assert_allclose(decomposition.pseudo_inverse(operator(x)), seen, atol=1e-11)


def test_rank_is_counted():
    values = spectral(_operators()["deficient"]).values
    assert int(jnp.sum(values > 0)) == 3 and values.shape == (4,)


def test_a_single_coil_needs_no_dense_decomposition_and_crosses_jit():
    operator = Sense.single(128, 128, jnp.ones(128))
    decomposition = spectral(operator)
    x = jax.random.normal(jax.random.key(0), (128, 128, 1)).astype(jnp.complex64)
    found = jax.jit(lambda d, x: d.apply(x))(decomposition, x)
    np.testing.assert_allclose(found, operator(x), atol=1e-5)
    with pytest.raises(ValueError, match="too large"):
        spectral(Sense(jnp.ones((2, 128, 128), complex), jnp.ones(128)))

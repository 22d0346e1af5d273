"""The null space of known operators: Fourier masks in closed form, dense matrices, and the variance of draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax import operators as op
from pgm_jax.reconstruction import null_space, null_space_energy


def test_unmeasured_frequencies_are_what_a_mask_does_not_see():
    mask = np.tile([1.0, 0.0, 1.0, 1.0], 4)
    A = op.Sense(jnp.ones((1, 16, 16), jnp.complex64), mask)
    x = jax.random.normal(jax.random.key(0), (16, 16, 1)).astype(jnp.complex64)
    spectrum = op.Sense(jnp.ones((1, 16, 16), jnp.complex64), 1 - mask)
    np.testing.assert_allclose(null_space(A, x, 5), spectrum.adjoint(spectrum(x)), atol=1e-5)
    np.testing.assert_allclose(A(null_space(A, x, 5)), 0, atol=1e-5)


def test_a_dense_matrix_by_its_pseudo_inverse():
    with jax.enable_x64(True):
        matrix = np.random.default_rng(0).normal(size=(5, 9))
        x = np.random.default_rng(1).normal(size=9)
        found = null_space(op.Matrix(jnp.asarray(matrix)), jnp.asarray(x), 5)
        np.testing.assert_allclose(found, x - np.linalg.pinv(matrix) @ matrix @ x, atol=1e-9)


def test_energy_of_draws_is_their_covariance_in_the_null_space():
    matrix = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
    draws = np.random.default_rng(1).normal(size=(7, 6)).astype(np.float32)
    energy, share = jax.jit(lambda d: null_space_energy(op.Matrix(jnp.asarray(matrix)), d, 6))(draws)
    projector = np.eye(6) - np.linalg.pinv(matrix) @ matrix
    cov = np.cov(draws.T)
    np.testing.assert_allclose(energy, np.diag(projector @ cov @ projector), rtol=1e-3)
    np.testing.assert_allclose(share, np.trace(projector @ cov) / np.trace(cov), rtol=1e-3)


def test_a_matrix_that_sees_all_has_none_and_one_draw_is_refused():
    A = op.Identity((4,))
    assert null_space_energy(A, jnp.ones((3, 4)))[1] == 0
    with pytest.raises(ValueError, match="at least 2 draws"):
        null_space_energy(A, jnp.ones((1, 4)))

"""Conjugate gradients against dense solves: convergence, degenerate systems, implicit derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax import operators as op
from pgm_jax.operators import conjugate_gradient, solve_positive_definite


def _system(n, seed=0, complex_values=False, condition=10.0):
    rng = np.random.default_rng(seed)
    basis = rng.normal(size=(n, n)) + (1j * rng.normal(size=(n, n)) if complex_values else 0)
    q, _ = np.linalg.qr(basis)
    matrix = (q * np.geomspace(1, condition, n)) @ q.conj().T
    b = rng.normal(size=n) + (1j * rng.normal(size=n) if complex_values else 0)
    return jnp.asarray(matrix), jnp.asarray(b)


@pytest.mark.parametrize("complex_values", [False, True])
def test_fixed_steps_reach_the_dense_solution_in_n_steps(complex_values, x64):
    matrix, b = _system(10, 1, complex_values)
    x, norms = conjugate_gradient(lambda v: matrix @ v, b, steps=10)
    np.testing.assert_allclose(x, np.linalg.solve(matrix, b), rtol=1e-6, atol=1e-9)
    # With the bilinear product the relative residual is 180 after these ten steps.
    assert norms.shape == (10,) and norms[-1] < 1e-7 * jnp.linalg.norm(b)
    short, _ = conjugate_gradient(lambda v: matrix @ v, b, steps=4)
    np.testing.assert_allclose(norms[3], jnp.linalg.norm(b - matrix @ short), rtol=1e-9)


def test_single_precision_solution_and_more_steps_than_needed():
    matrix, b = (jnp.asarray(v, jnp.complex64) for v in _system(12, 2, True))
    x, norms = conjugate_gradient(lambda v: matrix @ v, b, steps=60)
    np.testing.assert_allclose(x, np.linalg.solve(matrix, b), rtol=1e-5, atol=1e-6)
    assert np.isfinite(norms).all()


def test_a_start_at_the_solution_stays_there_and_zero_gives_zero(x64):
    matrix, b = _system(6)
    exact = jnp.linalg.solve(matrix, b)
    x, _ = conjugate_gradient(lambda v: matrix @ v, matrix @ exact, exact, steps=3)
    np.testing.assert_allclose(x, exact, rtol=1e-12)
    for solved in (
        conjugate_gradient(lambda v: matrix @ v, 0 * b, steps=3)[0],
        solve_positive_definite(lambda v: matrix @ v, 0 * b),
    ):
        np.testing.assert_array_equal(solved, 0)
    gradient = jax.grad(lambda b: jnp.sum(conjugate_gradient(lambda v: matrix @ v, b, steps=3)[0]))(0 * b)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("complex_values", [False, True])
def test_tolerance_solve_meets_its_tolerance(complex_values, x64):
    matrix, b = _system(40, 3, complex_values, 100.0)
    for rtol in (1e-2, 1e-8):
        x = jax.jit(lambda b, rtol=rtol: solve_positive_definite(lambda v: matrix @ v, b, rtol=rtol))(b)
        assert jnp.linalg.norm(b - matrix @ x) <= 1.01 * rtol * jnp.linalg.norm(b)
    np.testing.assert_allclose(x, np.linalg.solve(matrix, b), rtol=1e-6, atol=1e-7)


def test_tolerance_solve_stops_at_its_step_limit(x64):
    matrix, b = _system(20, 4, condition=1e4)
    x = solve_positive_definite(lambda v: matrix @ v, b, rtol=1e-12, max_steps=3)
    np.testing.assert_allclose(x, conjugate_gradient(lambda v: matrix @ v, b, steps=3)[0], rtol=1e-12)


def test_a_batch_solves_each_system_as_if_alone(x64):
    matrix, _ = _system(12, 5, condition=50.0)
    b = jnp.asarray(np.random.default_rng(6).normal(size=(3, 12))) * jnp.asarray([[1.0], [1e-6], [0.0]])

    def solve(b):
        return solve_positive_definite(lambda v: matrix @ v, b, rtol=1e-4)

    np.testing.assert_allclose(jax.vmap(solve)(b), jnp.stack([solve(row) for row in b]), rtol=1e-7)


@pytest.mark.parametrize("complex_values", [False, True])
def test_implicit_derivative_equals_that_of_the_dense_solve(complex_values, x64):
    matrix, b = _system(9, 7, complex_values)
    target = b[::-1]

    def loss(solve):
        def value(shift, b):
            x = solve(matrix + shift * jnp.eye(9), b)
            return jnp.sum(jnp.abs(x - target) ** 2)

        return value

    def by_cg(m, b):
        return solve_positive_definite(lambda v: m @ v, b, rtol=1e-12)

    ours = jax.jit(jax.grad(loss(by_cg), argnums=(0, 1)))(0.3, b)
    dense = jax.grad(loss(jnp.linalg.solve), argnums=(0, 1))(0.3, b)
    jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, rtol=1e-8, atol=1e-10), ours, dense)
    difference = (loss(by_cg)(0.3 + 1e-5, b) - loss(by_cg)(0.3 - 1e-5, b)) / 2e-5
    np.testing.assert_allclose(ours[0], difference, rtol=1e-6)
    forward = jax.jvp(lambda s: loss(by_cg)(s, b), (0.3,), (1.0,))[1]
    np.testing.assert_allclose(forward, ours[0], rtol=1e-8)


def test_pytrees_are_one_system(x64):
    matrix, b = _system(7, 8, True)
    tree = (b[:3], b[3:])

    def matvec(v):
        joined = matrix @ jnp.concatenate(v)
        return joined[:3], joined[3:]

    exact = np.linalg.solve(matrix, b)
    np.testing.assert_allclose(
        jnp.concatenate(solve_positive_definite(matvec, tree, rtol=1e-12)), exact, rtol=1e-9
    )
    x, _ = conjugate_gradient(matvec, tree, steps=7)
    np.testing.assert_allclose(jnp.concatenate(x), exact, rtol=1e-7)


@pytest.mark.parametrize("dtype, tolerance", [(jnp.float32, 1e-5), (jnp.float64, 1e-11)])
def test_a_singular_consistent_system_is_not_driven_along_its_null_space(dtype, tolerance, x64):
    factor = np.random.default_rng(9).normal(size=(4, 9))
    matrix, b = jnp.asarray(factor.T @ factor, dtype), jnp.asarray(factor.T @ np.ones(4), dtype)
    x, _ = conjugate_gradient(lambda v: matrix @ v, b, steps=100)
    np.testing.assert_allclose(x, np.linalg.pinv(factor) @ np.ones(4), atol=tolerance)
    x = solve_positive_definite(lambda v: matrix @ v, b, rtol=0.0, max_steps=100)
    np.testing.assert_allclose(x, np.linalg.pinv(factor) @ np.ones(4), atol=tolerance)


def test_reverse_mode_past_convergence_is_finite_and_right():
    """A small variance makes small residuals, whose squares underflow in float32: no NaN in the gradient."""
    rng = np.random.default_rng(0)
    matrix, y, x = rng.normal(size=(4, 8)), rng.normal(size=4), rng.normal(size=8)

    def value(v, m, data, steps):
        likelihood = op.GaussianLikelihood.create(op.Matrix(m), data, 0.3)
        return jnp.sum(jnp.sin(likelihood.prox(v, 4e-6, steps)))

    def slope(dtype, steps):
        return jax.grad(value)(*(jnp.asarray(a, dtype) for a in (x, matrix, y)), steps)

    with jax.enable_x64(True):
        right = np.asarray(slope(jnp.float64, 4))
    for steps in (4, 5, 12, 40):
        np.testing.assert_allclose(slope(jnp.float32, steps), right, atol=2e-4, equal_nan=False)

"""CGLS and LSQR against dense least squares, each other and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax import operators as op
from pgm_jax.reconstruction.cg_sense import cg_sense
from pgm_jax.reconstruction.cgls import cgls
from pgm_jax.reconstruction.lsqr import lsqr

SOLVERS = {"cgls": cgls, "lsqr": lsqr}


def _problem(rows=40, columns=25, complex_values=False, condition=30.0, seed=0):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: rng.normal(size=shape) + (1j * rng.normal(size=shape) if complex_values else 0)
    left, _, right = np.linalg.svd(draw(rows, columns), full_matrices=False)
    matrix = (left * np.geomspace(1, 1 / condition, len(right))) @ right
    return jnp.asarray(matrix), jnp.asarray(draw(rows))


def _dense(matrix, y, weight):
    columns = matrix.shape[1]
    return np.linalg.solve(matrix.conj().T @ matrix + weight * np.eye(columns), matrix.conj().T @ y)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("complex_values", [False, True])
@pytest.mark.parametrize("weight", [0.0, 0.05])
def test_the_dense_solution(name, complex_values, weight, x64):
    matrix, y = _problem(complex_values=complex_values)
    image, trace = SOLVERS[name](op.Matrix(matrix), y, 60, weight)
    exact = _dense(matrix, y, weight)
    np.testing.assert_allclose(image, exact, rtol=1e-6, atol=1e-9)
    cost = 0.5 * np.sum(np.abs(matrix @ exact - y) ** 2) + 0.5 * weight * np.sum(np.abs(exact) ** 2)
    np.testing.assert_allclose(trace.objective[-1], cost, rtol=1e-10)
    assert trace.residual[-1] < 1e-10 and (np.diff(trace.objective) < 1e-12).all()


@pytest.mark.parametrize("name", SOLVERS)
def test_each_step_is_that_of_the_normal_equations(name, x64):
    matrix, y = _problem(30, 30, True, 10.0)
    for steps in (1, 4, 9):
        image, trace = SOLVERS[name](op.Matrix(matrix), y, steps, 0.02)
        expected, reference = cg_sense(op.Matrix(matrix), y, steps, 0.02)
        np.testing.assert_allclose(image, expected, rtol=1e-8)
        np.testing.assert_allclose(trace.residual, reference.residual, rtol=1e-7)
        np.testing.assert_allclose(trace.objective, reference.objective, rtol=1e-9)
        gradient = matrix.conj().T @ (y - matrix @ image) - 0.02 * image
        relative = np.linalg.norm(gradient) / np.linalg.norm(matrix.conj().T @ y)
        np.testing.assert_allclose(trace.residual[-1], relative, rtol=1e-8)


@pytest.mark.parametrize("name", SOLVERS)
def test_too_few_equations_give_the_shortest_solution_and_stay_there(name, x64):
    matrix, y = _problem(12, 30)
    image, trace = SOLVERS[name](op.Matrix(matrix), y, 80)
    np.testing.assert_allclose(image, np.linalg.lstsq(matrix, y, rcond=None)[0], rtol=1e-7, atol=1e-9)
    assert np.isfinite(trace.residual).all() and trace.objective[-1] < 1e-18
    zero, trace = SOLVERS[name](op.Matrix(matrix), 0 * y, 5)
    np.testing.assert_array_equal(zero, 0)
    assert np.isfinite(trace.residual).all()


@pytest.mark.parametrize("name", SOLVERS)
def test_it_stops_by_the_rule_and_under_vmap_alone(name, x64):
    # Well conditioned: rounding, which differs between the two programs, is not magnified.
    matrix, y = _problem(condition=3.0)
    solve = lambda y: SOLVERS[name](op.Matrix(matrix), y, 60, 0.01, rtol=1e-4)
    other = matrix @ jnp.ones(25)
    images, trace = jax.jit(jax.vmap(solve))(jnp.stack([y, other]))
    for image, taken, right in zip(images, trace.taken, (y, other), strict=True):
        alone, one = solve(right)
        assert taken == one.taken < 60 and one.residual[-1] <= 1e-4
        np.testing.assert_allclose(image, alone, rtol=1e-9)


@pytest.mark.parametrize("name", SOLVERS)
def test_reverse_mode_gives_the_derivative_of_the_solution(name, x64):
    matrix, y = _problem(12, 6, condition=3.0)
    jacobian = jax.jacrev(lambda y: SOLVERS[name](op.Matrix(matrix), y, 7, 0.1)[0])(y)
    np.testing.assert_allclose(jacobian, _dense(matrix, np.eye(12), 0.1), atol=1e-6)
    assert np.isfinite(jax.grad(lambda y: jnp.sum(SOLVERS[name](op.Matrix(matrix), y, 3)[0]))(0 * y)).all()


@pytest.mark.parametrize("name", SOLVERS)
def test_tuples_of_measurements_and_real_images(name, x64):
    matrix, y = _problem(12, 8, True)
    real = op.stack(op.RealImage(op.Matrix(matrix)), op.Diagonal(jnp.full(8, 0.5)))
    image, _ = SOLVERS[name](real, (y, jnp.ones(8)), 40)
    tall = np.concatenate([matrix.real, matrix.imag, 0.5 * np.eye(8)])
    data = np.concatenate([y.real, y.imag, np.ones(8)])
    assert image.dtype == jnp.float64
    np.testing.assert_allclose(image, np.linalg.lstsq(tall, data, rcond=None)[0], rtol=1e-7)


def test_lsqr_is_that_of_scipy(x64):
    linalg = pytest.importorskip("scipy.sparse.linalg")
    matrix, y = _problem(30, 20, condition=10.0)
    image, trace = lsqr(op.Matrix(matrix), y, 12, 0.01)
    reference = linalg.lsqr(
        np.asarray(matrix), np.asarray(y), damp=0.1, iter_lim=12, atol=0, btol=0, conlim=0
    )
    # Twelve Lanczos steps magnify the rounding in which the two differ, a hundredfold at this condition.
    np.testing.assert_allclose(image, reference[0], rtol=1e-10)
    np.testing.assert_allclose(np.sqrt(2 * trace.objective[-1]), reference[4], rtol=1e-10)


def test_cgls_starts_where_it_is_told_and_weighs_its_data(x64):
    matrix, y = _problem()
    root = jnp.linspace(0.5, 2.0, 40)
    weighted, start = op.Diagonal(root) @ op.Matrix(matrix), jnp.ones(25)
    image, _ = cgls(weighted, root * y, 60, 0.01, start)
    exact = _dense(np.asarray(root)[:, None] * matrix, root * y, 0.01)
    np.testing.assert_allclose(image, exact, rtol=1e-7)
    still, _ = cgls(weighted, root * y, 3, 0.01, jnp.asarray(exact))
    np.testing.assert_allclose(still, exact, rtol=1e-9)

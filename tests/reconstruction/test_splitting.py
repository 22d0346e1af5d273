"""PDHG, FISTA and ADMM: one minimum by three roads, its optimality conditions, gaps and rates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax import operators as op
from pgm_jax.operators.block import block
from pgm_jax.reconstruction import functionals as fn
from pgm_jax.reconstruction.admm import admm, admm_iteration
from pgm_jax.reconstruction.fista import fista
from pgm_jax.reconstruction.iteration import run
from pgm_jax.reconstruction.primal_dual import diagonal_steps, pdhg, pdhg_iteration


def _draw(seed, *shape, complex_values=False):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=shape) + (1j * rng.normal(size=shape) if complex_values else 0))


def _lasso(complex_values=False):
    matrix = op.Matrix(_draw(0, 20, 12, complex_values=complex_values) / 4)
    return matrix, _draw(1, 20, complex_values=complex_values), 1.0 if complex_values else 0.4


def _lasso_violation(matrix, y, weight, x):
    """Distance from the condition `A^H (y - A x) = weight x / |x|`, at most weight long where x is 0."""
    slope = np.asarray(matrix.adjoint(y - matrix(x)))
    active = np.abs(x) > 1e-6
    sign = np.where(active, x / np.where(active, np.abs(x), 1), 0)
    assert 0 < active.sum() < x.size
    return max(np.abs(slope - weight * sign)[active].max(), (np.abs(slope) - weight)[~active].max())


@pytest.mark.parametrize("complex_values", [False, True])
def test_three_methods_meet_the_optimality_conditions(complex_values, x64):
    matrix, y, weight = _lasso(complex_values)
    identity, term = op.Identity((12,)), fn.absolute(weight)
    images = {
        "pdhg": pdhg(matrix, fn.squared_distance(y), term, steps=3000),
        "pdhg_two_terms": pdhg(op.stack(matrix, identity), (fn.squared_distance(y), term), steps=3000),
        "fista": fista(matrix, y, term, 400),
        "admm": admm(matrix, y, identity, term, 0.5, 400, 12),
    }
    for name, (image, trace) in images.items():
        assert _lasso_violation(matrix, y, weight, image) < 1e-8, name
        np.testing.assert_allclose(trace.objective[-1], images["fista"][1].objective[-1], rtol=1e-10)
        assert trace.residual[-1] < 1e-8


def test_one_step_of_fista_is_one_of_proximal_gradient(x64):
    matrix, y, weight = _lasso()
    norm = np.linalg.norm(matrix.values, 2)
    image, trace = fista(matrix, y, fn.absolute(weight), 1, jnp.ones(12), norm)
    gradient = matrix.adjoint(matrix(jnp.ones(12)) - y)
    expected = fn.absolute(weight).prox(jnp.ones(12) - gradient / norm**2, 1 / norm**2)
    np.testing.assert_allclose(image, expected, rtol=1e-12)
    np.testing.assert_allclose(trace.residual[0], norm**2 * np.linalg.norm(expected - 1), rtol=1e-12)


def test_fista_never_rises_and_converges_linearly(x64):
    matrix = op.Matrix(_draw(0, 30, 20) * jnp.geomspace(0.05, 1, 20)[None])
    image, trace = fista(matrix, _draw(1, 30), fn.absolute(0.1), 1500)
    assert (np.diff(trace.objective) <= 0).all()
    gap = trace.objective - trace.objective[-1]
    assert gap[300] < 1e-3 * gap[100] and trace.residual[-1] < 1e-9


def test_non_negative_least_squares_is_that_of_scipy(x64):
    optimize = pytest.importorskip("scipy.optimize")
    matrix, y = _draw(2, 15, 8), _draw(3, 15)
    exact, _ = optimize.nnls(np.asarray(matrix), np.asarray(y))
    assert 0 < (exact == 0).sum() < 8
    a = op.Matrix(matrix)
    for image, _ in (
        fista(a, y, fn.non_negative(), 600),
        pdhg(a, fn.squared_distance(y), fn.non_negative(), steps=4000),
        admm(a, y, op.Identity((8,)), fn.non_negative(), 5.0, 400, 10),
    ):
        np.testing.assert_allclose(image, exact, atol=1e-7)


def _denoising(size=24, weight=0.5, seed=4):
    """`|x - y|^2 / 2 + weight sum |D x|`, whose duality gap is finite everywhere."""
    y = _draw(seed, size, 1)
    return op.FiniteDifference((size, 1)), fn.length(weight), fn.squared_distance(y)


def test_the_duality_gap_bounds_the_error_and_vanishes(x64):
    difference, term, fit = _denoising()
    image, trace = pdhg(difference, term, fit, steps=3000)
    least = trace.objective[-1]
    assert (trace.residual >= trace.objective - least - 1e-10).all() and (trace.residual > -1e-10).all()
    assert trace.residual[-1] < 1e-8 < 1e-2 < trace.residual[0]
    # For one 1-strongly convex term the gap also bounds the distance, |x - x*|^2 / 2 <= gap.
    early, seen = pdhg(difference, term, fit, steps=30)
    assert 0.5 * jnp.sum((early - image) ** 2) <= seen.residual[-1]
    stopped, rule = pdhg(difference, term, fit, steps=3000, rtol=1e-6)
    assert rule.taken < 3000 and rule.residual[-1] <= 1e-6 * trace.residual[0] * 10


def test_the_gap_of_a_box_constraint(x64):
    matrix, y, weight = _lasso()
    image, trace = pdhg(matrix, fn.squared_distance(y), fn.box(0.0, 0.3), steps=2000)
    assert abs(trace.residual[-1]) < 1e-9 and 0 <= image.min() and image.max() <= 0.3
    reference, _ = fista(matrix, y, fn.box(0.0, 0.3), 500)
    np.testing.assert_allclose(image, reference, atol=1e-7)


@pytest.mark.parametrize("balance", [1.0, 4.0])
def test_diagonal_steps_are_short_enough_and_find_the_minimum(balance, x64):
    # Columns of very unlike size, as where few rays see a voxel.
    a = op.Matrix(jnp.abs(_draw(0, 20, 12)) * jnp.geomspace(0.1, 1, 12)[None])
    whole = op.stack(a, op.FiniteDifference((12,), axes=(0,)))
    tau, sigma = diagonal_steps(whole, balance)
    scaled = np.sqrt(np.concatenate([np.ravel(s) for s in sigma]))[:, None] * np.asarray(whole.matrix())
    assert np.linalg.norm(scaled * np.sqrt(np.asarray(tau)), 2) <= 1 + 1e-12
    terms = (fn.squared_distance(_draw(1, 20)), fn.absolute(0.05))
    image, trace = pdhg(whole, terms, steps=6000, step_sizes=(tau, sigma))
    plain, reference = pdhg(whole, terms, steps=20000)
    np.testing.assert_allclose(image, plain, atol=1e-5)
    np.testing.assert_allclose(trace.objective[-1], reference.objective[-1], rtol=1e-9)
    assert trace.residual[-1] < 1e-6


def test_diagonal_steps_leave_empty_rows_and_columns_alone(x64):
    a = op.Matrix(jnp.asarray([[1.0, 0.0], [0.0, 0.0]]))
    tau, sigma = diagonal_steps(a)
    image, _ = pdhg(a, fn.squared_distance(jnp.asarray([2.0, 5.0])), steps=200, step_sizes=(tau, sigma))
    np.testing.assert_allclose(image, [2.0, 0.0], atol=1e-6)


def test_two_images_and_a_term_each(x64):
    """`min |x + u - y|^2 / 2 + a |x|_1 + b |u|^2 / 2`: u = (y - x) / (1 + b), so x is a soft threshold of y."""
    y, a, b = _draw(5, 9), 0.3, 2.0
    identity = op.Identity((9,))
    images, trace = pdhg(
        block(((identity, identity),)), (fn.squared_distance(y),),
        (fn.absolute(a), fn.squared_distance(jnp.zeros(9))._replace(
            value=lambda v: 0.5 * b * jnp.sum(v**2), prox=lambda v, step: v / (1 + b * step),
            conjugate=lambda z: jnp.sum(z**2) / (2 * b),
        )), steps=3000,
    )  # fmt: skip
    threshold = a * (1 + b) / b
    x = np.sign(y) * np.maximum(np.abs(y) - threshold, 0)
    np.testing.assert_allclose(images[0], x, atol=1e-8)
    np.testing.assert_allclose(images[1], (y - x) / (1 + b), atol=1e-8)
    assert trace.residual[-1] < 1e-8


def test_admm_ends_at_the_optimality_conditions_of_z_tv(x64):
    """With s = rho w / lambda: `||A^H (A x - y) + lambda D^H s||_inf < 1e-8` and `|s| <= 1`."""
    shape, weight, rho = (6, 3, 2, 1), 0.3, 0.8
    a, difference = op.Matrix(_draw(0, 40, 36), shape), op.FiniteDifference(shape, (0,))
    y = _draw(1, 40)
    iteration = admm_iteration(a, y, difference, fn.absolute(weight), rho, 40)
    state = jax.lax.fori_loop(0, 600, lambda _, s: iteration.step(s), iteration.init())
    scaled = rho * state.dual[0] / weight
    violation = a.adjoint(a(state.x) - y) + weight * difference.adjoint(scaled)
    assert jnp.abs(violation).max() < 1e-8 and jnp.abs(scaled).max() <= 1 + 1e-9
    assert run(iteration, 600)[1].residual[-1] < 1e-8


def test_admm_with_several_terms_keeps_an_image_positive(x64):
    a, y = op.Matrix(_draw(2, 15, 8)), _draw(3, 15)
    difference = op.FiniteDifference((8,), axes=(0,))
    terms = (fn.absolute(0.5), fn.non_negative())
    image, _ = admm(a, y, op.stack(difference, op.Identity((8,))), terms, 3.0, 800, 10)
    whole = op.stack(a, difference)
    reference, _ = pdhg(whole, (fn.squared_distance(y), fn.absolute(0.5)), fn.non_negative(), steps=8000)
    np.testing.assert_allclose(image, reference, atol=1e-6)
    assert image.min() > -1e-8 and (image < 1e-6).any()


def test_they_pass_jit_vmap_and_grad():
    matrix, y, weight = _lasso()
    matrix, y = op.Matrix(matrix.values.astype(jnp.float32)), y.astype(jnp.float32)
    solvers = {
        "pdhg": lambda y, w: pdhg(matrix, fn.squared_distance(y), fn.absolute(w), steps=60)[0],
        "fista": lambda y, w: fista(matrix, y, fn.absolute(w), 60)[0],
        "admm": lambda y, w: admm(matrix, y, op.Identity((12,)), fn.absolute(w), 0.5, 60, 5)[0],
    }
    for name, solve in solvers.items():
        ys = jnp.stack([y, 2 * y])
        images = jax.jit(jax.vmap(solve, in_axes=(0, None)))(ys, weight)
        assert images.dtype == jnp.float32
        np.testing.assert_allclose(images[1], solve(ys[1], weight), atol=1e-4, err_msg=name)
        total = lambda w, solve=solve: jnp.sum(jnp.abs(solve(y, w)))
        slope = jax.grad(total)(weight)
        np.testing.assert_allclose(slope, (total(weight + 0.01) - total(weight - 0.01)) / 0.02, rtol=0.02)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda a: pdhg(a, (fn.zero(), fn.zero())), "2 terms for the 1 parts of the measurement"),
        (lambda a: pdhg(a, fn.zero(), (fn.zero(), fn.zero())), "2 terms for the 1 parts of the image"),
        (
            lambda a: admm(a, jnp.ones(2), a, (fn.zero(), fn.zero()), 1.0),
            "2 terms for the 1 parts of the transformed image",
        ),
    ],
)
def test_wrong_terms_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call(op.Identity((2,)))


def test_pdhg_iteration_hands_out_its_products(x64):
    matrix, y, weight = _lasso()
    iteration = pdhg_iteration(matrix, fn.squared_distance(y), fn.absolute(weight), optimality=False)
    state = iteration.step(iteration.step(iteration.init()))
    np.testing.assert_allclose(state.products[0], matrix(iteration.image(state)), rtol=1e-12)

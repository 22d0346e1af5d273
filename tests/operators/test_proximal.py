"""Proximal maps against brute force, Moreau's identity and the subgradient condition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax.operators import proximal
from pgm_jax.reconstruction import functionals as fn


def _draw(seed, *shape, complex_values=False):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=shape) + (1j * rng.normal(size=shape) if complex_values else 0))


CASES = {
    "zero": lambda: fn.zero(),
    "non_negative": lambda: fn.non_negative(),
    "box": lambda: fn.box(-0.3, jnp.asarray([[0.2], [0.5], [0.9]])),
    "squared_distance": lambda: fn.squared_distance(_draw(9, 3, 4)),
    "absolute": lambda: fn.absolute(jnp.asarray([[0.0], [0.5], [2.0]])),
    "length": lambda: fn.length(0.7),
    "length_of_columns": lambda: fn.length(jnp.asarray([0.1, 0.5, 1.0]), axis=1),
}
COMPLEX = ("zero", "squared_distance", "absolute", "length")


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("step", [0.3, 1.0, 4.0])
def test_moreau_s_identity(name, step, x64):
    """`v = prox_{step f}(v) + step prox_{f* / step}(v / step)`, the two maps being written apart."""
    f = CASES[name]()
    for kind in (False, True) if name in COMPLEX else (False,):
        v = 2 * _draw(0, 3, 4, complex_values=kind)
        np.testing.assert_allclose(f.prox(v, step) + step * f.dual_prox(v / step, 1 / step), v, atol=1e-13)


@pytest.mark.parametrize("name", CASES)
def test_a_proximal_map_minimises(name, x64):
    """No nearby point is lower, and `f(p) + f*(g) = <p, g>` (Fenchel, Young) at `g = (v - p) / step`."""
    f, v, step = CASES[name](), 2 * _draw(1, 3, 4), 0.6
    p = f.prox(v, step)
    slope = (v - p) / step
    np.testing.assert_allclose(f.value(p) + f.conjugate(slope), jnp.sum(p * slope), atol=1e-12)
    cost = lambda u: f.value(u) + jnp.sum((u - v) ** 2) / (2 * step)
    for seed in range(20):
        # A constraint counts no cost, so other points are moved into it first.
        other = f.prox(p + 1e-2 * _draw(seed, 3, 4), 1e-9)
        assert cost(other) >= cost(p) - 1e-9


@pytest.mark.parametrize("name", CASES)
def test_conjugates_are_finite_where_they_must_be(name, x64):
    f = CASES[name]()
    z = 3 * _draw(2, 3, 4)
    assert np.isfinite(f.conjugate(f.dual_prox(z, 0.7)))
    assert np.isfinite(f.conjugate(z)) == f.is_coercive


def test_shrinkage_keeps_the_phase_and_takes_off_the_threshold(x64):
    v = _draw(3, 5, complex_values=True)
    shrunk = proximal.soft_threshold(v, 0.4)
    np.testing.assert_allclose(jnp.abs(shrunk), np.maximum(np.abs(v) - 0.4, 0), atol=1e-14)
    np.testing.assert_allclose(proximal.soft_threshold(1j * v, 0.4), 1j * shrunk, atol=1e-14)
    vectors = proximal.group_shrink(jnp.asarray([[3.0, 0.1], [4.0, 0.0]]), 1.0)
    np.testing.assert_allclose(vectors, [[3 * 0.8, 0], [4 * 0.8, 0]], atol=1e-14)
    np.testing.assert_allclose(proximal.project_balls(jnp.asarray([3.0, 4.0]), 1.0), [0.6, 0.8], atol=1e-14)
    np.testing.assert_array_equal(proximal.project_balls(jnp.ones((2, 3)), 0.0), 0)


def test_shrinkage_has_a_finite_derivative_at_zero():
    for shrink in (
        proximal.soft_threshold,
        proximal.group_shrink,
        proximal.project_discs,
        proximal.project_balls,
    ):
        slope = jax.grad(lambda v, shrink=shrink: jnp.sum(shrink(v, 0.5)))(jnp.zeros((2, 3)))
        assert np.isfinite(slope).all()


def test_singular_values_shrink(x64):
    matrix = _draw(4, 5, 3, complex_values=True)
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    exact = (left * np.maximum(values - 1.0, 0)) @ right
    np.testing.assert_allclose(proximal.shrink_singular_values(matrix, 1.0), exact, atol=1e-12)
    stack = jnp.stack([matrix, 2 * matrix])
    np.testing.assert_allclose(proximal.shrink_singular_values(stack, 1.0)[0], exact, atol=1e-12)

"""SIRT, SART and ART: limits of the relaxation, fixed points, Kaczmarz row by row, orders of subsets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from pgm_jax import operators as op
from pgm_jax.operators.subset_order import subset_order
from pgm_jax.reconstruction.art import art
from pgm_jax.reconstruction.sart import sart
from pgm_jax.reconstruction.sirt import sirt


class Views(op.LinearOperator):
    """Dense matrices of equal size, one a view: the subsets may be traced."""

    values: jax.Array
    subsets: int = struct.field(pytree_node=False, default=1)

    def __call__(self, x):
        return jnp.einsum("vij,j->vi", self.values, x, precision="highest")

    def adjoint(self, y):
        return jnp.einsum("vij,vi->j", self.values, y, precision="highest")

    def subset(self, i):
        return Views(jnp.take(self.values, i, axis=0)[None])

    def restrict(self, y, i):
        return jnp.take(y, i, axis=0)[None]

    @property
    def domain(self):
        return jax.ShapeDtypeStruct(self.values.shape[2:], self.values.dtype)

    @property
    def range(self):
        return jax.ShapeDtypeStruct(self.values.shape[:2], self.values.dtype)


def _scan(views=6, rays=4, size=8, seed=0):
    """A sparse non-negative scan with a ray that misses the image and a voxel that no ray meets."""
    rng = np.random.default_rng(seed)
    values = rng.uniform(size=(views, rays, size)) * (rng.uniform(size=(views, rays, size)) < 0.5)
    values[2, 1], values[..., 3] = 0, 0
    return Views(jnp.asarray(values), views), jnp.asarray(rng.uniform(size=size))


def _dense(scan):
    return np.asarray(scan.values).reshape(-1, scan.domain.shape[0])


@pytest.mark.parametrize("relax, converges", [(0.5, True), (1.0, True), (1.9, True), (2.1, False)])
def test_sirt_converges_below_a_relaxation_of_two_and_diverges_above(relax, converges, x64):
    scan, x = _scan()
    _, trace = sirt(scan, scan(x), 4000 if converges else 400, relax)
    assert (trace.residual[-1] < 1e-6) == converges
    assert converges or trace.residual[-1] > 1e3 * trace.residual[0]
    assert (np.diff(trace.objective) <= 1e-15).all() == converges


def test_sirt_is_its_formula_and_solves_the_weighted_problem(x64):
    scan, _ = _scan()
    y = jnp.asarray(np.random.default_rng(1).normal(size=(6, 4)))
    matrix = _dense(scan)
    rows, columns = matrix.sum(1), matrix.sum(0)
    inverse = lambda s: np.where(s > 0, 1 / np.where(s > 0, s, 1), 0)
    start = np.linspace(0, 1, 8)
    expected = start + 0.7 * inverse(columns) * (matrix.T @ (inverse(rows) * (np.ravel(y) - matrix @ start)))
    image, trace = sirt(scan, y, 1, 0.7, jnp.asarray(start))
    np.testing.assert_allclose(image, expected, rtol=1e-12)
    assert image[3] == start[3]
    misfit = np.ravel(y) - matrix @ expected
    np.testing.assert_allclose(trace.residual[0], np.linalg.norm(misfit), rtol=1e-12)
    np.testing.assert_allclose(trace.objective[0], 0.5 * np.sum(inverse(rows) * misfit**2), rtol=1e-12)
    limit, _ = sirt(scan, y, 6000, 1.9)
    gradient = matrix.T @ (inverse(rows) * (np.ravel(y) - matrix @ limit))
    assert np.abs(gradient).max() < 1e-8


def test_sart_with_one_subset_is_sirt(x64):
    scan, x = _scan()
    y = scan(x)
    whole = scan.replace(subsets=1)
    image, trace = sart(whole, y, 5, 0.8)
    expected, reference = sirt(whole, y, 5, 0.8)
    np.testing.assert_allclose(image, expected, rtol=1e-12)
    # SART measures before the update, SIRT after it.
    np.testing.assert_allclose(trace.residual[1:], reference.residual[:-1], rtol=1e-12)


@pytest.mark.parametrize("order", ["golden", "herman_meyer", "sequential"])
def test_a_pass_of_sart_is_its_formula(order, x64):
    scan, x = _scan()
    y, image = np.asarray(scan(x)), np.zeros(8)
    inverse = lambda s: np.where(s > 0, 1 / np.where(s > 0, s, 1), 0)
    square = 0.0
    for v in subset_order(6, order):
        part = np.asarray(scan.values[v])
        residual = y[v] - part @ image
        square += np.sum(residual**2)
        image += 0.6 * inverse(part.sum(0)) * (part.T @ (inverse(part.sum(1)) * residual))
    result, trace = sart(scan, jnp.asarray(y), 1, 0.6, order=order)
    np.testing.assert_allclose(result, image, rtol=1e-11)
    np.testing.assert_allclose(trace.residual[0], np.sqrt(square), rtol=1e-12)


@pytest.mark.parametrize("method", [sart, art])
def test_consistent_data_are_fitted_sooner_than_by_sirt(method, x64):
    scan, x = _scan()
    y = scan(x)
    image, trace = method(scan, y, 60, 1.0)
    assert trace.residual[-1] < 1e-3 * sirt(scan, y, 60, 1.0)[1].residual[-1]
    np.testing.assert_allclose(scan(image), y, atol=1e-4)
    stopped, rule = method(scan, y, 60, 1.0, rtol=1e-3)
    assert rule.taken < 60 and rule.residual[-1] <= 1e-3 * trace.residual[0]


def test_art_with_disjoint_rays_is_kaczmarz_row_by_row(x64):
    rng = np.random.default_rng(2)
    values = np.zeros((5, 3, 9))
    for v in range(5):
        # The three rays of a view share no voxel.
        for ray, voxels in enumerate(np.split(rng.permutation(9), 3)):
            values[v, ray, voxels] = rng.uniform(0.5, 1, size=3)
    scan, y, image = Views(jnp.asarray(values), 5), rng.normal(size=(5, 3)), np.zeros(9)
    for _ in range(2):
        for v in subset_order(5, "golden"):
            for row, value in zip(values[v], y[v], strict=True):
                image += 0.9 * row * (value - row @ image) / (row @ row)
    result, _ = art(scan, jnp.asarray(y), 2, 0.9)
    np.testing.assert_allclose(result, image, rtol=1e-11)


def test_art_ends_at_the_shortest_solution(x64):
    rng = np.random.default_rng(3)
    scan = Views(jnp.asarray(rng.uniform(size=(4, 2, 20))), 4)
    y = scan(jnp.asarray(rng.normal(size=20)))
    image, _ = art(scan, y, 3000, 1.5)
    np.testing.assert_allclose(image, np.linalg.lstsq(_dense(scan), np.ravel(y), rcond=None)[0], atol=1e-6)


@pytest.mark.parametrize("method", [sirt, sart, art])
def test_positive_images_and_stacks_of_unlike_parts(method, x64):
    rng = np.random.default_rng(4)
    parts = [op.Matrix(jnp.asarray(rng.uniform(size=(rays, 6)))) for rays in (2, 4, 3)]
    stack = op.stack(*parts)
    x = jnp.asarray([0.0, 1.0, 0.0, 2.0, 0.5, 0.0])
    image, trace = method(stack, stack(x), 800, 1.0, keep_positive=True)
    assert image.min() >= 0 and trace.residual[-1] < 1e-3 and np.isfinite(trace.objective).all()
    free, _ = method(stack, tuple(-part for part in stack(x)), 800, 1.0)
    assert free.min() < -1
    clipped, _ = method(stack, tuple(-part for part in stack(x)), 50, 1.0, keep_positive=True)
    np.testing.assert_array_equal(clipped, 0)


@pytest.mark.parametrize("method", [sirt, sart, art])
def test_jit_vmap_and_grad(method):
    scan, x = _scan()
    scan = Views(scan.values.astype(jnp.float32), 6)
    ys = jnp.stack([scan(x.astype(jnp.float32)), jnp.ones((6, 4), jnp.float32)])
    images, _ = jax.jit(jax.vmap(lambda y: method(scan, y, 3, 0.5)))(ys)
    np.testing.assert_allclose(images[1], method(scan, ys[1], 3, 0.5)[0], rtol=1e-4, atol=1e-6)
    total = lambda relax: jnp.sum(method(scan, ys[0], 3, relax)[0] ** 2)
    slope = jax.grad(total)(0.5)
    np.testing.assert_allclose(slope, (total(0.52) - total(0.48)) / 0.04, rtol=1e-2)


@pytest.mark.parametrize("order", ["golden", "herman_meyer", "sequential"])
@pytest.mark.parametrize("count", [1, 7, 12, 60])
def test_an_order_visits_every_subset_once_from_the_first(order, count):
    result = subset_order(count, order)
    np.testing.assert_array_equal(np.sort(result), np.arange(count))
    assert result[0] == 0 and result.dtype == np.int32


def test_orders_of_the_papers():
    # Herman and Meyer: 8 = 2 * 2 * 2 is the bit reversal; 12 = 2 * 2 * 3.
    np.testing.assert_array_equal(subset_order(8, "herman_meyer"), [0, 4, 2, 6, 1, 5, 3, 7])
    np.testing.assert_array_equal(subset_order(12, "herman_meyer"), [0, 6, 3, 9, 1, 7, 4, 10, 2, 8, 5, 11])
    # Golden section: neighbours in time are about 0.38 of the scan apart, on its circle.
    steps = np.mod(np.diff(subset_order(89, "golden")), 89)
    assert np.abs(np.minimum(steps, 89 - steps) / 89 - 0.382).max() < 0.02
    with pytest.raises(ValueError, match="golden"):
        subset_order(4, "random")
    with pytest.raises(ValueError, match="at least 1"):
        subset_order(0)


def test_an_operator_with_signs_is_refused():
    difference = op.FiniteDifference((4, 1)) @ op.Identity((4, 1))
    with pytest.raises(ValueError, match="negative entries"):
        sirt(difference, jnp.ones((1, 4, 1)))

"""CG-SENSE and total variation against dense solves and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax import operators as op
from pgm_jax.reconstruction import cg_sense, tv, zero_filled


def _scan(height=6, width=5, coils=3, dtype=np.complex128):
    sense = op.Sense(
        jnp.asarray(op.birdcage_maps(coils, height, width, dtype=dtype)), op.random_mask(0, width, 2, 0.2)
    )
    x = np.random.default_rng(0).normal(size=(2, height, width, 1))
    return sense, sense(jnp.asarray(x[0] + 1j * x[1], dtype))


def test_cg_sense_is_the_dense_least_squares_solution(x64):
    sense, y = _scan()
    image, trace = cg_sense(sense, y, steps=30, weight=0.01)
    matrix = np.asarray(sense.matrix())
    exact = np.linalg.solve(matrix.conj().T @ matrix + 0.01 * np.eye(30), matrix.conj().T @ np.ravel(y))
    np.testing.assert_allclose(image.ravel(), exact, atol=1e-6)
    assert trace.residual.shape == (30,) and trace.residual[-1] < 1e-6
    cost = 0.5 * jnp.sum(jnp.abs(sense(image) - y) ** 2) + 0.005 * jnp.sum(jnp.abs(image) ** 2)
    np.testing.assert_allclose(trace.objective[-1], cost, rtol=1e-10)
    assert (np.diff(trace.objective) < 1e-12).all()
    stopped, short = cg_sense(sense, y, steps=30, weight=0.01, rtol=1e-3)
    assert short.taken < 30 and short.residual[-1] <= 1e-3 < short.residual[short.taken - 2]
    np.testing.assert_allclose(short.residual[: short.taken], trace.residual[: short.taken], rtol=1e-6)
    np.testing.assert_allclose(zero_filled(sense, y).ravel(), matrix.conj().T @ np.ravel(y), atol=1e-12)


def test_cg_sense_without_weight_fits_consistent_data(x64):
    sense, y = _scan()
    image, _ = cg_sense(sense, y, steps=60)
    matrix = np.asarray(sense.matrix())
    shortest = np.linalg.lstsq(matrix, np.ravel(y), rcond=None)[0]
    np.testing.assert_allclose(image.ravel(), shortest, atol=1e-6)


def test_tv_of_a_constant_image_changes_nothing(x64):
    constant = jnp.full((6, 5, 1), 2.0 - 1.0j)
    image, trace = tv(op.Identity((6, 5, 1)), constant, 0.7, steps=50)
    np.testing.assert_allclose(image, constant, atol=1e-12)
    np.testing.assert_allclose(trace.objective, 0, atol=1e-20)


def test_tv_of_a_step_moves_its_levels_by_weight_over_length(x64):
    # min sum (u - y)^2 / 2 + w |b - a| on a step of n and m samples: a + w / n and b - w / m.
    phase = np.exp(0.8j)
    step = jnp.asarray(np.repeat([1.0, 3.0], [4, 6])[:, None, None] * phase)
    image, trace = tv(op.Identity((10, 1, 1)), step, 0.6, steps=600)
    expected = np.repeat([1.0 + 0.6 / 4, 3.0 - 0.6 / 6], [4, 6]) * phase
    np.testing.assert_allclose(image.ravel(), expected, atol=1e-6)
    np.testing.assert_allclose(trace.objective[-1], 0.6**2 / 8 + 0.6**2 / 12 + 0.6 * 1.75, rtol=1e-8)


def test_tv_with_a_large_weight_is_the_mean_and_with_none_the_data(x64):
    y = jnp.asarray(np.random.default_rng(1).normal(size=(4, 5, 1)))
    flat, _ = tv(op.Identity((4, 5, 1)), y, 50.0, steps=1500)
    np.testing.assert_allclose(flat, np.full((4, 5, 1), y.mean()), atol=1e-5)
    same, _ = tv(op.Identity((4, 5, 1)), y, 0.0, steps=300)
    np.testing.assert_allclose(same, y, atol=1e-6)


def test_tv_reaches_a_minimum_of_its_objective(x64):
    sense, y = _scan()
    weight = 0.05
    image, trace = tv(sense, y, weight, steps=3000)
    gradient = op.FiniteDifference(sense.domain.shape)

    def objective(x):
        fit = 0.5 * jnp.sum(jnp.abs(sense(x) - y) ** 2)
        return fit + weight * jnp.sum(jnp.sqrt(jnp.sum(jnp.abs(gradient(x)) ** 2, axis=0)))

    least = objective(image)
    np.testing.assert_allclose(trace.objective[-1], least, rtol=1e-12)
    np.testing.assert_allclose(trace.residual[-1], jnp.linalg.norm((sense(image) - y).ravel()), rtol=1e-10)
    assert trace.objective[-1] <= trace.objective.min() + 1e-8 and trace.objective[0] > least + 0.01
    rng = np.random.default_rng(2)
    for size in (1e-3, 1e-1):
        for _ in range(5):
            away = image + size * (rng.normal(size=image.shape) + 1j * rng.normal(size=image.shape))
            assert objective(away) > least - 1e-9


def test_tv_gradient_magnitude_has_a_finite_derivative_at_zero():
    y = jnp.zeros((4, 4, 1))
    slope = jax.grad(lambda y: tv(op.Identity((4, 4, 1)), y, 0.1, steps=5)[1].objective[-1])(y)
    assert np.isfinite(slope).all()


def test_slices_are_vmapped_in_single_precision():
    sense, y = _scan(7, 9, 2, np.complex64)
    ys = jnp.stack([y, 2 * y])
    norm = sense.norm()
    batched = jax.jit(jax.vmap(lambda y: tv(sense, y, 0.01, steps=30, norm=norm)))
    images, trace = batched(ys)
    assert images.dtype == jnp.complex64 and trace.objective.shape == (2, 30)
    for image, y in zip(images, ys, strict=True):
        np.testing.assert_allclose(image, tv(sense, y, 0.01, steps=30)[0], atol=1e-5)
    cg_images, _ = jax.vmap(lambda y: cg_sense(sense, y, steps=8, weight=1e-3))(ys)
    np.testing.assert_allclose(cg_images[1], cg_sense(sense, ys[1], steps=8, weight=1e-3)[0], atol=1e-5)


def test_a_real_image_stays_real():
    sense, y = _scan(7, 6, 2, np.complex64)
    image, _ = tv(op.RealImage(sense), y, 0.01, steps=10)
    assert image.dtype == jnp.float32


def test_tv_reaches_the_same_minimum_at_any_balance_and_sooner_at_a_good_one(x64):
    sense, y = _scan(12, 10)
    final = [tv(sense, y, 0.01, steps=4000, balance=b)[1].objective[-1] for b in (1.0, 10.0, 0.2)]
    np.testing.assert_allclose(final, final[0], rtol=1e-4)
    slow, quick = (tv(sense, y, 0.01, steps=60, balance=b)[1].objective[-1] for b in (1.0, 10.0))
    assert final[0] * (1 - 1e-4) < quick < slow

"""TV, TGV, fractional and anisotropic TV and wavelets: closed forms, limits and minima."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax import operators as op
from pgm_jax.data import shepp_logan
from pgm_jax.operators.wavelet import Wavelet
from pgm_jax.reconstruction import functionals as fn
from pgm_jax.reconstruction.admm import admm
from pgm_jax.reconstruction.anisotropic_tv import anisotropic_tv, coverage_weights
from pgm_jax.reconstruction.fractional_tv import fractional_tv
from pgm_jax.reconstruction.primal_dual import pdhg
from pgm_jax.reconstruction.tgv import tgv
from pgm_jax.reconstruction.tv import tv
from pgm_jax.reconstruction.wavelet_cs import sparse_in, wavelet_cs


def _draw(seed, *shape, complex_values=False):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=shape) + (1j * rng.normal(size=shape) if complex_values else 0))


def _affine(height=8, width=7):
    y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    return jnp.asarray((0.3 * y - 0.2 * x + 1.0)[..., None])


def _scan(height=8, width=8, coils=3):
    maps = jnp.asarray(op.birdcage_maps(coils, height, width, dtype=np.complex128))
    sense = op.Sense(maps, op.random_mask(0, width, 2, 0.25))
    return sense, sense(_draw(0, height, width, 1, complex_values=True))


@pytest.mark.parametrize("boundary, exact", [("neumann", True), ("periodic", False)])
def test_tgv_of_an_affine_image_is_zero(boundary, exact, x64):
    """Denoising returns the ramp and ends at objective 0, where TV leaves a flatter one."""
    ramp = _affine()
    gradient = op.FiniteDifference(ramp.shape, boundary=boundary)
    image, trace = tgv(op.Identity(ramp.shape), ramp, 0.5, 3000, gradient=gradient, balance=3.0)
    assert (np.abs(image - ramp).max() < 1e-6) == exact
    assert (trace.objective[-1] < 1e-6) == exact
    flatter, above = tv(op.Identity(ramp.shape), ramp, 0.5, 3000, balance=3.0)
    assert np.ptp(flatter) < 0.9 * np.ptp(ramp) and above.objective[-1] > 1


def test_tgv_keeps_a_noisy_ramp_straighter_than_tv(x64):
    ramp = _affine(16, 16)
    y = ramp + 0.1 * _draw(1, *ramp.shape)
    identity = op.Identity(ramp.shape)
    errors = [float(jnp.linalg.norm(f(identity, y, 0.25, 600)[0] - ramp)) for f in (tgv, tv)]
    assert errors[0] < 0.6 * errors[1]


@pytest.mark.slow
def test_tgv_with_a_large_ratio_forbids_bends(x64):
    """As `ratio -> inf`, p is affine by components (E p = 0), and a large weight fits an affine image to y."""
    y = _draw(2, 5, 6, 1)
    rows, columns = np.meshgrid(np.arange(5.0), np.arange(6.0), indexing="ij")
    design = np.stack([np.ones(30), rows.ravel(), columns.ravel()], axis=1)
    fitted = design @ np.linalg.lstsq(design, np.ravel(y), rcond=None)[0]
    image, _ = tgv(op.Identity(y.shape), y, 10.0, 20000, ratio=10.0)
    np.testing.assert_allclose(image.ravel(), fitted, atol=1e-4)


@pytest.mark.slow
def test_tgv_reaches_a_minimum_of_its_objective(x64):
    sense, y = _scan()
    image, trace = tgv(sense, y, 0.05, 4000)
    np.testing.assert_allclose(trace.residual[-1], jnp.linalg.norm((sense(image) - y).ravel()), rtol=1e-9)
    assert image.dtype == jnp.complex128 and np.ptp(trace.objective[-500:]) < 1e-7 * trace.objective[-1]
    other, again = tgv(sense, y, 0.05, 4000, jnp.zeros_like(image), balance=5.0)
    np.testing.assert_allclose(again.objective[-1], trace.objective[-1], rtol=1e-7)


def test_fractional_tv_at_order_one_is_tv(x64):
    sense, y = _scan()
    image, trace = fractional_tv(sense, y, 0.05, 1, 100)
    expected, reference = tv(sense, y, 0.05, 100)
    np.testing.assert_allclose(image, expected, rtol=1e-10)
    np.testing.assert_allclose(trace.objective, reference.objective, rtol=1e-12)
    smooth, _ = fractional_tv(sense, y, 0.05, 1.5, 100)
    assert np.abs(smooth - image).max() > 1e-2


@pytest.mark.slow
def test_fractional_tv_makes_fewer_stairs_of_a_ramp(x64):
    ramp = jnp.linspace(0, 2, 24)[:, None]
    y = ramp + 0.1 * _draw(3, 24, 1)
    stairs = [
        (np.abs(np.diff(image[:, 0])) < 1e-3).sum()
        for image in (
            fractional_tv(op.Identity((24, 1)), y, 0.2, q, 5000, balance=3.0)[0] for q in (1.0, 1.6)
        )
    ]
    assert stairs[1] < stairs[0] / 2


def test_anisotropic_tv_with_one_direction_treats_every_row_alone(x64):
    y = _draw(4, 3, 10, 1)
    image, trace = anisotropic_tv(op.Identity(y.shape), y, (0.0, 0.4), steps=3000)
    for row, expected in zip(image, y, strict=True):
        alone, _ = tv(op.Identity((10, 1)), expected, 0.4, 3000)
        np.testing.assert_allclose(row, alone, atol=1e-6)
    np.testing.assert_allclose(
        trace.objective[-1], 0.5 * jnp.sum((image - y) ** 2) + 0.4 * jnp.sum(jnp.abs(jnp.diff(image, axis=1)))
    )


def test_anisotropic_tv_of_a_step_moves_by_each_direction_s_weight(x64):
    """A corner of a x a in n x n: its edge is 2 a long, so the corner falls by (w_y a + w_x a) / a^2."""
    y = jnp.zeros((6, 6, 1)).at[:3, :3].set(5.0)
    weights = np.array([0.3, 0.9])
    image, _ = anisotropic_tv(op.Identity(y.shape), y, weights, steps=4000)
    np.testing.assert_allclose(image[:3, :3], 5.0 - weights.sum() * 3 / 9, atol=1e-6)
    turned, _ = anisotropic_tv(op.Identity(y.shape), y, weights, [np.pi / 2, 0.0], steps=4000)
    np.testing.assert_allclose(turned, image, atol=1e-6)
    same, _ = anisotropic_tv(op.Identity(y.shape), y, 0.3, steps=500)
    both, _ = anisotropic_tv(op.Identity(y.shape), y, (0.3, 0.3), steps=500)
    np.testing.assert_allclose(same, both, rtol=1e-12)
    with pytest.raises(ValueError, match="2 directions"):
        anisotropic_tv(op.Identity(y.shape), y, (0.1, 0.2, 0.3))


def test_weights_follow_the_coverage_of_a_scan():
    directions = np.arange(4) * np.pi / 4
    full = coverage_weights(np.arange(180) * np.pi / 180, directions)
    np.testing.assert_allclose(full, 1, atol=0.03)
    half = coverage_weights(np.deg2rad(np.arange(-22, 68)), directions, 0.2)
    np.testing.assert_allclose(half, [1, 1, 0.2, 0.2], atol=0.03)


@pytest.mark.parametrize(
    "method", [tv, tgv, *(pytest.param(m, marks=pytest.mark.slow) for m in (fractional_tv, anisotropic_tv))]
)
def test_positive_images(method, x64):
    a = op.Matrix(_draw(5, 20, 16), (4, 4, 1))
    truth = jnp.maximum(_draw(6, 4, 4, 1), 0)
    image, trace = method(a, a(truth), 1e-3, steps=4000, keep_positive=True, balance=5.0)
    assert image.min() >= 0 and (image == 0).any()
    np.testing.assert_allclose(image, truth, atol=0.02)
    stopped, rule = method(a, a(truth), 1e-3, steps=4000, keep_positive=True, balance=5.0, rtol=1e-4)
    assert rule.taken < 4000


def test_wavelet_denoising_is_the_shrinkage_of_the_details(x64):
    y, wavelet = _draw(7, 8, 8, 1, complex_values=True), Wavelet((8, 8, 1), "db2", 2)
    image, trace = wavelet_cs(op.Identity(y.shape), y, 0.5, 1, 0 * y, 1.0, wavelet)
    coefficients = np.asarray(wavelet(y))
    sizes = np.abs(coefficients)
    expected = coefficients * np.maximum(1 - 0.5 / sizes, 0)
    expected[:2, :2] = coefficients[:2, :2]
    np.testing.assert_allclose(wavelet(image), expected, atol=1e-12)
    again, trace = wavelet_cs(op.Identity(y.shape), y, 0.5, 30, 0 * y, 1.0, wavelet)
    np.testing.assert_allclose(again, image, atol=1e-12)
    assert trace.residual[-1] < 1e-12


def test_three_methods_solve_wavelet_compressed_sensing(x64):
    sense, y = _scan()
    wavelet, weight = Wavelet((8, 8, 1), "haar", 2), 0.1
    image, trace = wavelet_cs(sense, y, weight, 800, wavelet=wavelet)
    term = fn.absolute(weight * wavelet.details())
    others = {
        "pdhg": pdhg(op.stack(sense, wavelet), (fn.squared_distance(y), term), steps=4000, balance=3.0),
        "admm": admm(sense, y, wavelet, term, 0.1, 800, 10),
    }
    for name, (other, seen) in others.items():
        np.testing.assert_allclose(seen.objective[-1], trace.objective[-1], rtol=1e-9, err_msg=name)
        np.testing.assert_allclose(other, image, atol=1e-5, err_msg=name)
    # Optimality: W A^H (A x - y) lies in -weight times the subdifferential, and is 0 in the coarse band.
    slope = np.asarray(wavelet(sense.adjoint(sense(image) - y)))
    active = np.abs(wavelet(image)) > 1e-6
    assert np.abs(slope[:2, :2]).max() < 1e-6 and np.abs(slope).max() < weight + 1e-6
    details = active & (np.asarray(wavelet.details()) > 0)
    assert 0 < details.sum() < 60
    np.testing.assert_allclose(np.abs(slope[details]), weight, atol=1e-6)


def test_random_shifts_remove_the_grid_of_the_wavelet(x64):
    """A disc denoised with Haar: shifts lower the error, a shifted disc has the same, one key gives one image."""
    rows, columns = np.meshgrid(np.arange(32), np.arange(32), indexing="ij")
    disc = jnp.asarray(((rows - 15.2) ** 2 + (columns - 14.1) ** 2 < 90)[..., None].astype(float))
    y, haar = disc + 0.2 * _draw(8, 32, 32, 1), Wavelet((32, 32, 1), "haar", 3)
    solve = lambda key: wavelet_cs(op.Identity(y.shape), y, 0.35, 60, norm=1.0, wavelet=haar, key=key)
    plain, shifted = solve(None)[0], solve(jax.random.key(0))[0]
    error = lambda image: float(jnp.linalg.norm(image - disc))

    # Each iterate is the whole answer at one shift, and the image their average: cycle spinning.
    def one(k):
        shift = jax.random.randint(jax.random.fold_in(jax.random.key(0), k), (2,), 0, 32)
        shrunk = sparse_in(haar, 0.35).prox(jnp.roll(y, shift, (0, 1)), 1.0)
        return (k + 1) * jnp.roll(shrunk, -shift, (0, 1)) / (60 * 61 / 2)

    mean = jax.jit(lambda: jnp.sum(jax.vmap(one)(jnp.arange(60)), axis=0))()
    np.testing.assert_allclose(shifted, mean, atol=1e-12)
    assert error(shifted) < 0.85 * error(plain)
    np.testing.assert_array_equal(shifted, solve(jax.random.key(0))[0])
    assert np.abs(shifted - solve(jax.random.key(1))[0]).max() > 1e-6


def test_they_pass_jit_vmap_and_grad_in_single_precision():
    height = width = 8
    maps = jnp.asarray(op.birdcage_maps(2, height, width), jnp.complex64)
    sense = op.Sense(maps, op.random_mask(0, width, 2, 0.25))
    y = sense(jnp.asarray(_draw(0, height, width, 1, complex_values=True), jnp.complex64))
    solvers = {
        "tgv": lambda y, w: tgv(sense, y, w, 15, norm=1.0, balance=3.0)[0],
        "wavelet": lambda y, w: wavelet_cs(
            sense, y, w, 15, norm=1.0, wavelet=Wavelet((8, 8, 1), "haar", 2), key=jax.random.key(0)
        )[0],
    }
    for name, solve in solvers.items():
        images = jax.jit(jax.vmap(solve, in_axes=(0, None)))(jnp.stack([y, 2 * y]), 0.05)
        assert images.dtype == jnp.complex64
        np.testing.assert_allclose(images[1], jax.jit(solve)(2 * y, 0.05), atol=1e-4, err_msg=name)
        total = jax.jit(lambda w, solve=solve: jnp.sum(jnp.abs(solve(y, w)) ** 2))
        slope = jax.jit(jax.grad(total))(0.05)
        np.testing.assert_allclose(slope, (total(0.052) - total(0.048)) / 0.004, rtol=0.05, err_msg=name)


@pytest.mark.parametrize("method", [tv, tgv])
def test_the_unit_of_the_operator_changes_nothing(method, x64):
    """A in other units, y with it and the weight by their square: the same images, step by step."""
    a, y = _scan()
    image, trace = method(a, y, 0.3, 40)
    scaled, other = method(100.0 * a, 100.0 * y, 0.3 * 100.0**2, 40)
    np.testing.assert_allclose(scaled, image, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(other.objective, 1e4 * trace.objective, rtol=1e-6)


def test_tv_of_ct_in_mm_is_near_its_minimum_after_a_hundred_steps():
    """60 views of a phantom, ||A|| about 70: with one step size for A and the gradient it was 60 % above."""
    truth = shepp_logan((64, 64)).array[0]
    a = op.ParallelBeam(op.ImageGrid((64, 64)), op.Parallel(np.arange(60) * np.pi / 60, 95))
    y, norm = a(truth), a.norm()
    for weight in (1.0, 10.0):
        objective = tv(a, y, weight, 1200, norm=norm)[1].objective
        assert objective[-1] <= objective[99] < 1.03 * objective[-1], (weight, objective[99] / objective[-1])

"""Metrics against scikit-image, scipy and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from pgm_jax.metrics import coverage, energy_distance, nrmse, psnr, ssim


def _pair(shape=(24, 19), seed=0):
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    reference = 0.5 + 0.4 * np.sin(rows / 3) * np.cos(columns / 4)
    return reference + 0.05 * rng.normal(size=shape), reference


def test_psnr_and_nrmse_by_hand():
    reference = jnp.asarray([[1.0, 2.0], [2.0, 4.0]])
    x = reference + jnp.asarray([[0.1, 0.0], [0.0, 0.3]])
    np.testing.assert_allclose(psnr(x, reference, 4.0), 10 * np.log10(16 / 0.025), rtol=1e-5)
    np.testing.assert_allclose(nrmse(x, reference), np.sqrt(0.1 / 25), rtol=1e-5)
    mask = np.array([[True, False]])
    np.testing.assert_allclose(psnr(x, reference, 4.0, mask), 10 * np.log10(16 / 0.005), rtol=1e-5)
    np.testing.assert_allclose(nrmse(x, reference, mask), np.sqrt(0.01 / 5), rtol=1e-5)
    np.testing.assert_allclose(nrmse(1j * reference, 2j * reference), 0.5, rtol=1e-6)
    assert psnr(x, x, 1.0) == np.inf


def test_image_metrics_match_scikit_image():
    measures = pytest.importorskip("skimage.metrics")
    x, reference = _pair()
    expected = measures.structural_similarity(
        reference, x, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    single = [jnp.asarray(v, jnp.float32) for v in (x, reference)]
    np.testing.assert_allclose(ssim(*single, 1.0), expected, atol=1e-4)
    np.testing.assert_allclose(
        psnr(*single, 1.0), measures.peak_signal_noise_ratio(reference, x, data_range=1.0), atol=1e-4
    )
    np.testing.assert_allclose(nrmse(*single), measures.normalized_root_mse(reference, x), atol=1e-6)


def test_ssim_golden_value():
    # scikit-image 0.26.0: structural_similarity(reference, x, data_range=1, gaussian_weights=True, sigma=1.5,
    # use_sample_covariance=False) for the pair of seed 0.
    x, reference = _pair()
    np.testing.assert_allclose(ssim(x, reference, 1.0), 0.894486, atol=1e-4)


def test_ssim_of_equal_images_and_of_channels():
    x, reference = (jnp.asarray(v) for v in _pair())
    np.testing.assert_allclose(ssim(reference, reference, 1.0), 1.0, atol=1e-6)
    both = ssim(jnp.stack([x, reference], -1), jnp.stack([reference, reference], -1), 1.0)
    np.testing.assert_allclose(both, (ssim(x, reference, 1.0) + 1) / 2, rtol=1e-5)
    batched = jax.vmap(lambda a: ssim(a, reference, 1.0))(jnp.stack([x, reference]))
    np.testing.assert_allclose(batched, [ssim(x, reference, 1.0), 1.0], rtol=1e-5)
    assert np.isfinite(jax.jit(jax.grad(lambda a: ssim(a, reference, 1.0)))(x)).all()


def test_energy_distance_is_the_square_of_scipys():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=40), 0.5 + 2 * rng.normal(size=30)
    expected = stats.energy_distance(a, b) ** 2
    np.testing.assert_allclose(energy_distance(a[:, None], b[:, None]), expected, rtol=1e-4)
    np.testing.assert_allclose(
        energy_distance(1j * a[:, None, None], 1j * b[:, None, None]), expected, rtol=1e-4
    )
    np.testing.assert_allclose(energy_distance(a[:, None], a[::-1, None]), 0, atol=1e-6)
    assert np.isfinite(jax.grad(lambda v: energy_distance(v, v + 1.0))(jnp.asarray(a[:, None]))).all()


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_coverage_of_the_right_law_is_its_level(level):
    samples = jax.random.normal(jax.random.key(0), (99, 50, 80))
    truth = jax.random.normal(jax.random.key(1), (50, 80))
    # 4000 entries: four standard errors are below 0.032.
    np.testing.assert_allclose(coverage(samples, truth, level), level * 98 / 100, atol=0.032)
    assert coverage(samples, truth + 10, level) == 0
    assert coverage(0.5 * samples, truth, 0.9) < 0.7


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: psnr(jnp.ones((2, 3)), jnp.ones((3, 2)), 1.0), "cannot be compared"),
        (lambda: ssim(jnp.ones((8, 30)), jnp.ones((8, 30)), 1.0), "at least 11"),
        (lambda: ssim(1j * jnp.ones((12, 12)), jnp.ones((12, 12)), 1.0), "magnitudes"),
        (lambda: energy_distance(jnp.ones((2, 3)), jnp.ones((2, 4))), "cannot be compared"),
        (lambda: coverage(jnp.ones((5, 3)), jnp.ones(4), 0.5), "need a truth"),
    ],
)
def test_wrong_shapes_say_what_is_needed(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_nan_is_not_taken_for_nearness():
    broken = jnp.zeros((4, 2)).at[1, 0].set(jnp.nan)
    assert jnp.isnan(energy_distance(broken, jnp.ones((5, 2))))

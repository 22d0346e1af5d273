"""The PET recipe: the scan against closed forms, each method in its place, and comparison at matched bias."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax import load_prior
from pgm_jax.data import DataError
from pgm_jax.recipes import pet

TASK = pet.Task(trues=1e5, views=36)


@pytest.fixture(scope="module")
def slices():
    """A disc of 4 in a ring of 1, on pixels of 1 mm, with a hot spot and a cold one, in a head of water."""
    y, x = np.indices((96, 96)) - 47.5
    radius, hot, cold = np.hypot(y, x), np.hypot(y, x - 28) < 6, np.hypot(y, x + 10) < 6
    activity = np.where(radius < 20, 4.0, np.where(radius < 36, 1.0, 0.0))
    activity = np.where(hot, 6.0, np.where(cold, 1.0, activity))
    stack = lambda a: np.asarray(a, np.float32)[None, ..., None]
    regions = {"grey": stack((radius < 20) & ~cold), "hot": stack(hot), "cold": stack(cold)}
    return pet.BrainSlices(stack(activity), stack(0.0096 * (radius < 44)), regions, np.zeros(1, int))


@pytest.fixture(scope="module")
def scan(slices):
    return pet.brain_scan(jax.random.key(0), slices, 0, TASK)


def test_the_scan_has_its_counts_and_the_model_its_unit(slices, scan):
    trues = float(scan.operator(scan.truth).sum())
    # Pixels of 2 mm and line integrals against 1 mm and areas.
    assert trues == pytest.approx(1e5, rel=5e-3)
    assert float(scan.background.sum()) == pytest.approx(0.8e5, rel=1e-3)
    assert abs(float(scan.y.sum()) - 1.8e5) < 5 * math.sqrt(1.8e5)
    # Through the middle a pair crosses 88 mm of water.
    share = scan.operator.factors.max(axis=1) / scan.operator.factors.min(axis=1)
    assert float(share.mean()) > math.exp(0.0096 * 80)
    np.testing.assert_allclose(scan.truth.mean(), slices.activity.mean(), rtol=1e-6)
    assert scan.truth.shape == (48, 48, 1) and scan.operator.subsets == 12


def test_a_unit_scales_the_images_of_the_likelihood(scan):
    half = scan.likelihood(2.0).log_prob(scan.truth / 2)
    np.testing.assert_allclose(half, scan.likelihood().log_prob(scan.truth), rtol=1e-5)


def test_the_typical_activity_is_the_mean_where_there_is_any(scan):
    inside = np.asarray(scan.truth) > 0.9
    expected = np.asarray(scan.truth)[inside].mean()
    assert float(pet.typical_activity(scan.truth)) == pytest.approx(expected, rel=0.03)
    assert float(pet.typical_activity(3 * scan.truth)) == pytest.approx(3 * expected, rel=0.03)


def test_bias_of_the_truth_is_none_and_of_a_scaled_image_its_scale(scan):
    for factor in (1.0, 0.8):
        values = pet.bias(factor * scan.truth, scan)
        np.testing.assert_allclose([values[r] for r in ("grey", "hot", "cold")], factor - 1, atol=1e-6)


def test_each_method_is_better_than_the_one_before_it(scan):
    chosen = pet.Settings(
        osem_passes=3, osem_fwhm=3.0, bsrem_weight=0.3, bsrem_passes=10, steps=4, draws=2, em=8
    )
    psnr = lambda image: float(pet.scores(image, scan.truth)["psnr"])
    noisy = pet.baseline("osem", scan, chosen._replace(osem_passes=12, osem_fwhm=0.0))
    images = {method: pet.baseline(method, scan, chosen) for method in pet.BASELINES}
    assert min(map(psnr, images.values())) > psnr(noisy) + 2
    found = pet.draws(jax.random.key(1), load_prior("brain-pet-pfgmpp"), scan, chosen._replace(sigma_max=0.3))
    assert psnr(found.mean) > psnr(noisy) + 2
    assert found.draws.shape == (2, 48, 48, 1) and float(found.draws.min()) >= 0
    np.testing.assert_allclose(found.mean, found.draws.mean(axis=0), rtol=1e-5, atol=1e-6)


def test_published_steps_are_of_normal_noise_alone(scan):
    chosen = pet.Settings(osem_passes=3, steps=3, draws=1, em=4, sigma_max=0.3)
    normal, finite = load_prior("brain-pet-edm"), load_prior("brain-pet-pfgmpp")
    fresh, published = (
        pet.draws(jax.random.key(1), normal, scan, chosen, v).mean for v in ("fresh", "published")
    )
    assert float(jnp.abs(fresh - published).max()) > 1e-3
    with pytest.raises(ValueError, match="[Nn]oise"):
        pet.draws(jax.random.key(1), finite, scan, chosen, "published")


def test_quality_at_matched_bias_is_read_off_the_best_settings():
    biases, psnr = (-0.3, -0.1, 0.2, 0.05, -0.02), (20.0, 18.0, 17.0, 14.0, 15.0)
    # The curve joins (.02, 15), (.1, 18), (.3, 20): .05 and .2 lie below it.
    assert pet.at_matched_bias(biases, psnr, -0.06) == pytest.approx(16.5)
    assert pet.at_matched_bias(biases, psnr, 0.2) == pytest.approx(19.0)
    assert pet.at_matched_bias(biases, psnr, 0.5) == 20.0
    assert math.isnan(pet.at_matched_bias(biases, psnr, 0.01))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda s, c: pet.baseline("mlem", c, pet.Settings()), ValueError, "choose one of osem, bsrem"),
        (lambda s, c: pet.draws(None, None, c, pet.Settings(), "old"), ValueError, "kept, fresh, published"),
        (
            lambda s, c: pet.draws(None, None, c, pet.Settings(start="mlem")),
            ValueError,
            "choose one of osem, bsrem",
        ),
        (lambda s, c: pet.brain_scan(jax.random.key(0), s, 0, pet.Task(1e4, 30)), ValueError, "multiple of"),
        (lambda s, c: pet.settings("trues_7"), ValueError, "Tuned for trues_1000000"),
        (lambda s, c: pet.brain_slices("no-such-brain", 1), DataError, "unknown data set"),
        (lambda s, c: pet.at_matched_bias([], [], 0.1), ValueError, "0 settings"),
        (lambda s, c: pet.at_matched_bias([math.nan], [1.0], 0.1), ValueError, "finite"),
    ],
)
def test_wrong_requests_are_refused(slices, scan, call, error, message):
    with pytest.raises(error, match=message):
        call(slices, scan)


def test_settings_are_stored_for_every_task():
    for task in pet.TASKS:
        chosen = pet.settings(task)
        assert chosen.trust > 0 and chosen.osem_passes > 0 and chosen.bsrem_weight > 0

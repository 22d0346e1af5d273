"""Intervals by their definition, the conformal factor by its definition, its guarantee on new images."""

import numpy as np
import pytest

from pgm_jax.metrics import conformal_factor, miscoverage


def _images(count, seed=0, scale=1.0, shape=(6, 5)):
    """Errors whose size differs from image to image; the standard deviation that is claimed is 1."""
    rng = np.random.default_rng(seed)
    spread = scale * rng.lognormal(0, 0.4, (count, 1, 1))
    return np.zeros((count, *shape)), np.ones((count, *shape)), spread * rng.normal(size=(count, *shape))


def test_miscoverage_counts_pixels_of_the_mask():
    mean, std = np.zeros((2, 4)), np.ones((2, 4))
    truth = np.array([[0.5, 1.5, -2.5, 0.0], [3.0, 0.1, 0.1, 0.1]])
    np.testing.assert_allclose(miscoverage(mean, std, truth), [0.5, 0.25])
    np.testing.assert_allclose(miscoverage(mean, std, truth, 2.0), [0.25, 0.25])
    mask = np.array([[1, 1, 0, 0], [0, 1, 1, 1]])
    np.testing.assert_allclose(miscoverage(mean, std, truth, mask=mask), [0.5, 0.0])


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9])
@pytest.mark.parametrize("masked", [False, True])
def test_the_factor_is_the_smallest_of_its_definition(level, masked):
    mean, std, truth = _images(19)
    mask = np.random.default_rng(1).random(truth.shape) < 0.6 if masked else None
    factor = conformal_factor(mean, std, truth, level, mask)
    bound = lambda q: (miscoverage(mean, std, truth, q, mask).sum() + 1) / 20
    assert bound(factor) <= 1 - level + 1e-9
    assert bound(factor * (1 - 1e-9)) > 1 - level + 1e-9


def test_new_images_are_covered_however_wrong_the_claimed_spread():
    """Means over 400 calibrations of 30 images, at a spread claimed three times too small: five standard errors."""
    covered = []
    for seed in range(400):
        mean, std, truth = _images(31, seed, scale=3.0)
        factor = conformal_factor(mean[:30], std[:30], truth[:30], 0.9)
        covered.append(1 - miscoverage(mean[30:], std[30:], truth[30:], factor)[0])
    error = np.std(covered) / np.sqrt(len(covered))
    assert 0.9 - 5 * error < np.mean(covered) < 0.94 + 5 * error


def test_pixels_without_spread():
    mean, std, truth = _images(20)
    std[:, 0, 0], truth[:, 0, 0] = 0, 0
    assert conformal_factor(mean, std, truth, 0.8) > 0
    truth[:, :2] = 1
    std[:, :2] = 0
    with pytest.raises(ValueError, match="standard deviation of 0"):
        conformal_factor(mean, std, truth, 0.9)
    assert conformal_factor(mean, np.ones_like(std), mean, 0.9) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((np.zeros((5, 4)), np.zeros((5, 4)), np.zeros((5, 3))), "same"),
        ((np.zeros((5, 4)), -np.ones((5, 4)), np.zeros((5, 4))), "at least 0"),
        ((np.zeros((5, 4)), np.ones((5, 4)), np.full((5, 4), np.nan)), "finite"),
        ((np.zeros((5, 4)), np.ones((5, 4)), np.zeros((5, 4)), 1.2), "between 0 and 1"),
        ((np.zeros((5, 4)), np.ones((5, 4)), np.zeros((5, 4)), 0.9), "at least 9"),
        ((np.zeros((9, 4)), np.ones((9, 4)), np.zeros((9, 4)), 0.9, np.zeros(4)), "leaves no pixel"),
    ],
)
def test_wrong_input_is_refused_in_one_line(arguments, words):
    with pytest.raises(ValueError, match=words) as error:
        conformal_factor(*arguments)
    assert "\n" not in str(error.value)

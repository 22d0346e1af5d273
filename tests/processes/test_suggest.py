"""Suggested hyper-parameters: the published ones on CIFAR-like data, scaling, reasons, refusals."""

import math

import numpy as np
import pytest

from pgm_jax.processes import suggest


def _images(n=64, shape=(32, 32, 3), scale=0.5, seed=0):
    return scale * np.random.default_rng(seed).normal(size=(n, *shape))


def test_cifar_like_data_give_edms_values():
    got = suggest(_images())
    assert got.sigma_data == pytest.approx(0.5, rel=0.01)
    assert got.sigma_min == pytest.approx(0.002, rel=0.01)
    assert got.P_mean == pytest.approx(-1.2, abs=0.02) and got.P_std == 1.2
    # White images lie sqrt(2 N) sigma_data apart.
    assert got.sigma_max == pytest.approx(math.sqrt(2 * 3072) * 0.5, rel=0.08)
    assert got.size == 3072 and math.isinf(got.D)
    assert got.levels[0] == pytest.approx(got.sigma_max) and got.levels[-1] == pytest.approx(got.sigma_min)


def test_units_and_offset():
    data = _images(shape=(16, 16, 1))
    a, b = suggest(data), suggest(1000.0 * data + 40.0)
    for name in ("sigma_data", "sigma_min", "sigma_max"):
        assert getattr(b, name) == pytest.approx(1000 * getattr(a, name), rel=1e-6)
    assert b.P_mean - a.P_mean == pytest.approx(math.log(1000), rel=1e-6)
    assert len(a.levels) == len(b.levels)


def test_large_images_shift_the_training_law():
    small, large = suggest(_images(4, (32, 32, 3))), suggest(_images(4, (128, 128, 3)))
    assert large.P_mean - small.P_mean == pytest.approx(math.log(4), abs=0.01)


def test_complex_images_count_two_components():
    data = _images(shape=(8, 8, 1)) + 1j * _images(shape=(8, 8, 1), seed=1)
    got = suggest(data)
    assert got.size == 128 and got.sigma_data == pytest.approx(0.5, rel=0.02)


def test_reasons_hold_the_figures():
    got = suggest(_images(8, (8, 8, 1)))
    for name in ("sigma_data", "sigma_min", "sigma_max", "P_mean", "P_std", "D", "levels"):
        assert any(reason.startswith(name) for reason in got.reasons), name
    assert f"{got.sigma_max:.4g}" in " ".join(got.reasons)
    assert not any(reason.startswith("Warning") for reason in got.reasons)


def test_an_outlier_image_leaves_levels_untrained_and_is_reported():
    data = np.zeros((500, 3072))
    data[0] = 1.0
    got = suggest(data)
    assert got.sigma_max == pytest.approx(math.sqrt(3072))
    assert got.reasons[-1].startswith("Warning") and "decade" in got.reasons[-1]


@pytest.mark.parametrize(
    "data, match",
    [
        (np.full((4, 8), np.nan), "NaN"),
        (np.ones((1, 8)), "two or more"),
        (np.ones(8), "two or more"),
        (np.ones((4, 0)), "two or more"),
        (np.ones((4, 8)), "differ"),
    ],
)
def test_refusals(data, match):
    with pytest.raises(ValueError, match=match):
        suggest(data)

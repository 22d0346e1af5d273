"""Tissue maps of a head whose tissues are known."""

import numpy as np
import pytest

from pgm_jax.data import DataError, Volume, tissue_maps

SPACING = (2.0, 2.5, 2.0)
# Outer radius in mm and intensity: ventricle, white, grey, fluid, skull, scalp.
LAYERS = ((17, 20.0), (50, 100.0), (60, 65.0), (64, 20.0), (72, 5.0), (78, 90.0))


@pytest.fixture(scope="module")
def head():
    """Spherical shells with a bias field of 40 % from end to end and noise, and their radius."""
    axes = [(np.arange(n) - (n - 1) / 2) * h for n, h in zip((84, 68, 84), SPACING, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    radius = np.sqrt(x**2 + y**2 + z**2)
    image = np.zeros_like(radius)
    for outer, level in reversed(LAYERS):
        image[radius < outer] = level
    noise = np.random.default_rng(0).normal(0, 2, image.shape)
    image = image * np.exp(0.0025 * x + 0.001 * z) + np.abs(noise)
    return Volume(image[..., None].astype(np.float32), SPACING, np.eye(4), "a.u.", "shells"), radius


def _dice(a, b):
    return 2 * np.sum(a & b) / (a.sum() + b.sum())


def test_tissues_of_shells_are_found_under_a_bias_field(head):
    volume, radius = head
    grey, white = (v.array[..., 0] for v in tissue_maps(volume, height=200.0))
    assert grey.min() >= 0 and (grey + white).max() <= 1 + 1e-6
    # Borders of 2 mm voxels are mixed: shells of 33 and 10 mm keep their insides.
    assert _dice(white > 0.5, (radius > 17) & (radius < 50)) > 0.96
    assert _dice(grey > 0.5, (radius >= 50) & (radius < 60)) > 0.9
    np.testing.assert_allclose(white[(radius > 22) & (radius < 46)], 1, atol=1e-6)
    assert np.mean(grey[(radius > 53) & (radius < 57)]) > 0.97
    assert np.all((grey + white)[(radius > 66) | (radius < 13)] == 0)


def test_a_brain_without_its_skull_has_the_same_tissues(head):
    volume, radius = head
    bare = volume._replace(array=volume.array * (radius < 64)[..., None])
    # Less height, since the top of the head is now that of the brain.
    with_skull, without = tissue_maps(volume, height=200.0), tissue_maps(bare, height=200.0)
    for a, b in zip(with_skull, without, strict=True):
        assert np.mean(np.abs(a.array - b.array)) < 0.005
    assert without[0].units == "probability" and without[1].name == "shells-white"


def test_less_height_leaves_out_what_lies_below(head):
    volume, _ = head
    grey, white = tissue_maps(volume, height=100.0)
    filled = np.flatnonzero((grey.array + white.array).sum(axis=(1, 2, 3)))
    top = 78 / SPACING[0] + (volume.array.shape[0] - 1) / 2
    assert top - 100 / SPACING[0] - 3 <= filled[0] and filled[-1] > top - 12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v._replace(spacing=None), "one channel with its spacing"),
        (lambda v: v._replace(array=np.concatenate([v.array, v.array], -1)), "one channel with its spacing"),
        (lambda v: v._replace(array=0 * v.array), "holds no head"),
        (lambda v: v._replace(array=v.array[::12, ::12, ::12]), "no brain in shells"),
    ],
)
def test_what_is_no_head_is_refused(head, change, message):
    with pytest.raises(DataError, match=message):
        tissue_maps(change(head[0]))

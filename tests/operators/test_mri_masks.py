"""Two-dimensional Cartesian masks: exact counts, full centres, distances and densities."""

import numpy as np
import pytest

from pgm_jax.operators.mri import poisson_disk_mask, radial_grid_mask, random_mask_2d


def _radial(seed, *arguments):
    return radial_grid_mask(*arguments)


@pytest.mark.parametrize("make", [random_mask_2d, poisson_disk_mask, _radial])
@pytest.mark.parametrize(
    "shape, acceleration, centre", [((32, 40), 4, 6), ((31, 17), 7.3, 5), ((12, 12), 1, 4), ((9, 8), 9, 0)]
)
def test_masks_hold_the_exact_number_of_points_and_the_centre(make, shape, acceleration, centre):
    mask = make(3, shape, acceleration, centre)
    assert mask.shape == shape and mask.dtype == np.float32 and set(mask.ravel()) <= {0.0, 1.0}
    assert mask.sum() == round(np.prod(shape) / acceleration)
    top, left = (n // 2 - centre // 2 for n in shape)
    assert mask[top : top + centre, left : left + centre].all()
    np.testing.assert_array_equal(mask, make(3, shape, acceleration, centre))


def test_seeds_differ():
    for make in (random_mask_2d, poisson_disk_mask):
        assert (make(0, (16, 16), 4, 4) != make(1, (16, 16), 4, 4)).any()


def test_random_points_are_uniform_outside_the_centre():
    masks = np.stack([random_mask_2d(seed, (6, 6), 3, 2) for seed in range(2000)])
    rate = masks.mean(axis=0)
    outside = np.ones((6, 6), bool)
    outside[2:4, 2:4] = False
    # 8 of 32 points; five standard errors of a rate of 1/4 over 2000 draws are 0.048.
    np.testing.assert_allclose(rate[outside], 8 / 32, atol=0.049)


def test_poisson_disk_keeps_a_distance_and_random_does_not():
    def nearest(mask):
        points = np.argwhere(mask)
        distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
        return np.min(distance + 1e9 * np.eye(len(points)))

    assert nearest(poisson_disk_mask(0, (48, 48), 9, 0, density=0.0)) >= 2
    assert nearest(random_mask_2d(0, (48, 48), 9, 0)) == 1


def test_poisson_disk_thins_out_towards_the_edge():
    mask = poisson_disk_mask(0, (64, 64), 8, 0, density=3.0)
    rows, columns = np.indices(mask.shape) - 32
    radius = np.hypot(rows, columns)
    inner, outer = mask[radius < 12].mean(), mask[(radius > 24) & (radius < 31)].mean()
    # Distances grow from 1.6 s at radius 6 to 3.6 s at radius 28, rates fall as their squares.
    assert inner > 2.5 * outer


def test_radial_points_lie_on_spokes():
    mask = radial_grid_mask((33, 33), 6, 0)
    # The first spoke runs along the columns, whole, and the rate falls as 1 / radius.
    assert mask[16].all()
    rows, columns = np.indices(mask.shape) - 16
    radius = np.hypot(rows, columns)
    rates = [mask[(radius >= r - 1) & (radius < r + 1)].mean() for r in (5, 14)]
    np.testing.assert_allclose(rates[0] / rates[1], 14 / 5, rtol=0.35)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (((8, 8), 8, 6), "exceeds the 8"),
        (((8, 8), 0.5, 2), "acceleration"),
        (((8, 8), 100, 0), "acceleration"),
        (((8, 9), 2, 9), "centre"),
    ],
)
def test_impossible_masks_are_refused(arguments, words):
    for make in (random_mask_2d, poisson_disk_mask, _radial):
        with pytest.raises(ValueError, match=words):
            make(0, *arguments)


def test_negative_density_is_refused():
    with pytest.raises(ValueError, match="density"):
        poisson_disk_mask(0, (8, 8), 2, 2, density=-1)

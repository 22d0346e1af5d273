"""Random uptake and lesions: what they change, how far, and what they leave alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax.data import lesions, regional_uptake

KEYS = jax.random.split(jax.random.key(3), 64)


def test_uptake_varies_smoothly_within_its_strength():
    ones = jnp.ones((32, 24, 1)).at[:4].set(0)
    drawn = np.asarray(jax.vmap(lambda key: regional_uptake(0.2)(key, ones))(KEYS))
    assert np.all(drawn[:, :4] == 0)
    logarithm = np.log(drawn[:, 4:, :, 0])
    # Shares are uniform in [0, .2] and f has variance 1: the variance is .2^2 / 3.
    assert np.sqrt(np.mean(logarithm**2)) == pytest.approx(0.2 / 3**0.5, rel=0.25)
    # 1.5 periods over 32 rows: no step above 2 pi 1.5 / 32 of an amplitude, four of them at most.
    assert np.abs(np.diff(logarithm, axis=1)).max() < 0.2 * 4 * 2 * np.pi * 1.5 / 31


def test_uptake_of_a_volume_and_of_no_strength():
    volume = jax.random.uniform(jax.random.key(0), (6, 5, 4, 1))
    changed = regional_uptake(0.3)(jax.random.key(1), volume)
    assert changed.shape == volume.shape and float(jnp.abs(changed - volume).max()) > 1e-3
    np.testing.assert_array_equal(regional_uptake(0.0)(jax.random.key(1), volume), volume)


def test_a_lesion_is_an_ellipse_of_one_activity_among_activity():
    disc = (np.hypot(*np.indices((48, 48)) - 23.5) < 18).astype(np.float32)[..., None]
    make = lesions(count=1, chance=1.0, radius=(3.0, 4.0), hot=(1.5, 2.0), cold=(0.1, 0.5))
    drawn = np.asarray(jax.vmap(lambda key: make(key, jnp.asarray(disc)))(KEYS))
    hot = 0
    for image in drawn:
        level = image.max() if image.max() > 1.01 else image[disc > 0].min()
        inside = np.abs(image - level) < 1e-5
        assert 1.5 <= level <= 2 or 0.1 <= level <= 0.5
        # Whole pixels of half axes of 3 to 4, less a border of a pixel.
        assert np.pi * 2.2**2 < inside.sum() < np.pi * 4.3**2
        rows, columns = np.nonzero(inside[..., 0])
        assert disc[int(rows.mean().round()), int(columns.mean().round())] == 1
        hot += level > 1
    assert 16 < hot < 48


def test_lesions_leave_the_rest_and_the_empty_image_alone():
    image = jax.random.uniform(jax.random.key(0), (16, 16, 1))
    np.testing.assert_array_equal(lesions(chance=0.0)(KEYS[0], image), image)
    empty = jnp.zeros((16, 16, 1))
    np.testing.assert_array_equal(lesions(chance=1.0)(KEYS[0], empty), empty)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: regional_uptake(-0.1), "strength -0.1"),
        (lambda: regional_uptake(waves=0), "waves 0"),
        (lambda: lesions(chance=1.5), "not in"),
        (lambda: lesions(hot=(2.0, 1.0)), "lesions: hot"),
        (lambda: lesions()(jax.random.key(0), jnp.ones((4, 4, 4, 1))), "use slices"),
    ],
)
def test_impossible_ranges_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()

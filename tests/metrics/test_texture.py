"""Texture features: invariances, orders of degraded images, and an image told from noise of its spectrum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from pgm_jax.metrics import kernel_distance, standardised, texture_features


def _images(count=16, side=32):
    """Random ellipses on grey, with fine stripes."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:side, :side] / side
    images = np.zeros((count, side, side, 1))
    for image in images[..., 0]:
        for _ in range(6):
            row, column, height, width = *rng.uniform(0.1, 0.9, 2), *rng.uniform(0.08, 0.3, 2)
            inside = ((rows - row) / height) ** 2 + ((columns - column) / width) ** 2 < 1
            image[inside] = rng.uniform(0.3, 1.0)
        image += rng.uniform(0.0, 0.3) + 0.05 * np.sin(2 * np.pi * 9 * (rows + rng.uniform(-1, 1) * columns))
    return images.astype(np.float32)


IMAGES = _images(48)
REAL, OTHERS = IMAGES[:32], IMAGES[32:]


FEATURES, ALL = jax.jit(texture_features), jax.jit(jax.vmap(texture_features))


def _all(images):
    return np.asarray(ALL(jnp.asarray(images, jnp.float32)), np.float64)


def _distance(images):
    real = _all(REAL)
    return kernel_distance(standardised(_all(images), real), standardised(real, real))


def test_other_images_of_the_same_kind_are_at_no_distance():
    found = _distance(OTHERS)
    assert found.low < 0 < found.high


@pytest.mark.parametrize(
    ("degrade", "strengths"),
    [
        (lambda x, blur: ndimage.gaussian_filter(x, (0, blur, blur, 0)), (0.4, 0.7, 1.2, 2.0)),
        (lambda x, std: x + std * np.random.default_rng(1).normal(size=x.shape), (0.03, 0.06, 0.12, 0.3)),
        (lambda x, gain: gain * x, (1.2, 1.5, 2.0)),
    ],
    ids=["blur", "noise", "contrast"],
)
def test_the_more_an_image_is_degraded_the_farther_it_is(degrade, strengths):
    distances = [_distance(OTHERS).value, *(_distance(degrade(OTHERS, s)).value for s in strengths)]
    assert np.all(np.diff(distances) > 0)
    assert _distance(degrade(OTHERS, strengths[-1])).low > 0


def test_an_image_is_told_from_noise_of_its_spectrum():
    spectrum = np.fft.fft2(OTHERS[..., 0])
    phase = np.fft.fft2(np.random.default_rng(2).normal(size=OTHERS.shape[:3]))
    noise = np.fft.ifft2(np.abs(spectrum) * phase / np.abs(phase)).real[..., None]
    assert _distance(noise).low > 0


def test_the_number_of_features_and_their_unit():
    image = jnp.asarray(REAL[0])
    features = FEATURES(image)
    # 6 first, 1 spread an octave; 6 angles for each of 6 pairs of octaves; 6 grey values.
    assert features.shape == (4 * 7 + 6 * 6 + 6,)
    assert texture_features(image, scales=1).shape == (7 + 6,)
    scaled = FEATURES(4.0 * image)
    np.testing.assert_allclose(scaled[:-6], 2.0 * features[:-6], rtol=2e-4)
    np.testing.assert_allclose(scaled[-6:], 4.0 * features[-6:], rtol=1e-5, atol=1e-6)


def test_a_turned_image_has_its_features_at_turned_filters():
    features, turned = (np.asarray(FEATURES(jnp.asarray(x))) for x in (REAL[0], np.rot90(REAL[0])))
    first = lambda values: values[:24].reshape(4, 6)
    # Of the frequencies +1/2 and -1/2 an even side has one, which only the finest filters reach.
    np.testing.assert_allclose(first(turned), np.roll(first(features), 3, axis=1), rtol=1e-2)
    np.testing.assert_allclose(first(turned)[1:], np.roll(first(features), 3, axis=1)[1:], rtol=1e-4)
    np.testing.assert_allclose(turned[24:], features[24:], rtol=2e-2)


def test_a_wave_is_seen_by_the_filter_at_its_frequency_and_angle():
    rows, columns = np.mgrid[:64, :64]
    # Frequency 0.175 along the rows: the second octave, at 0 degrees of (row, column).
    wave = np.cos(2 * np.pi * 0.175 * columns)[..., None]
    first = np.asarray(FEATURES(jnp.asarray(wave, jnp.float32)))[:24].reshape(4, 6)
    found = [np.unravel_index(np.argmax(first), first.shape)]
    first = np.asarray(FEATURES(jnp.asarray(np.swapaxes(wave, 0, 1), jnp.float32)))[:24].reshape(4, 6)
    found.append(np.unravel_index(np.argmax(first), first.shape))
    assert {place[0] for place in found} == {1} and abs(found[0][1] - found[1][1]) == 3


def test_of_complex_images_the_magnitude_counts():
    image = jnp.asarray(REAL[0])
    phase = jnp.exp(1j * jnp.linspace(0, 3, 32))[:, None, None]
    np.testing.assert_allclose(FEATURES(jnp.abs(image) * phase), FEATURES(jnp.abs(image)), atol=1e-5)


def test_channels_follow_one_another_and_gradients_are_finite():
    image = jnp.asarray(REAL[0])
    both = FEATURES(jnp.concatenate([image, 2 * image], axis=-1))
    np.testing.assert_allclose(both[:70], FEATURES(image), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(both[70:], FEATURES(2 * image), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jax.jit(texture_features)(image), FEATURES(image), rtol=1e-4, atol=1e-5)
    assert np.isfinite(jax.grad(lambda x: FEATURES(x).sum())(image)).all()


@pytest.mark.parametrize("shape", [(32, 32), (12, 32, 1)])
def test_refusals(shape):
    with pytest.raises(ValueError, match="at least 16 pixels"):
        texture_features(jnp.zeros(shape))

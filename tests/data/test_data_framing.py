"""Padding, cropping and the phantom against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax.data import load, names, pad_or_crop, shepp_logan


@pytest.mark.parametrize("size", [(217, 181), (320, 260), (64, 65)])
@pytest.mark.parametrize("target", [(320, 320), (321, 262), (400, 333)])
@pytest.mark.parametrize("xp", [np, jnp])
def test_padding_is_undone_exactly(size, target, xp):
    image = xp.asarray(np.random.default_rng(0).normal(size=(*size, 2)).astype(np.float32))
    padded = pad_or_crop(image, target, fill=-1024.0)
    assert padded.shape == (*target, 2) and isinstance(padded, type(image)) and padded.dtype == image.dtype
    assert padded[target[0] // 2, target[1] // 2, 1] == image[size[0] // 2, size[1] // 2, 1]
    np.testing.assert_array_equal(pad_or_crop(padded, size), image)
    assert int((padded == -1024.0).sum()) == padded.size - image.size


def test_mixed_pad_and_crop_of_a_batch_of_volumes():
    image = np.arange(2 * 4 * 6 * 5).reshape(2, 4, 6, 5, 1)
    framed = pad_or_crop(image, (2, 8, 5))
    np.testing.assert_array_equal(framed[:, :, 1:7], image[:, 1:3])
    assert framed.shape == (2, 2, 8, 5, 1)


def test_pad_or_crop_under_transforms():
    image = jnp.arange(30.0).reshape(5, 6, 1)
    frame = lambda x: pad_or_crop(x, (4, 9))
    np.testing.assert_array_equal(jax.jit(frame)(image), frame(image))
    np.testing.assert_array_equal(jax.vmap(frame)(image[None])[0], frame(image))
    gradient = jax.grad(lambda x: frame(x).sum())(image)  # one where kept, zero where cropped
    np.testing.assert_array_equal(gradient[..., 0], np.outer([1, 1, 1, 1, 0], np.ones(6)))


def test_pad_or_crop_refuses():
    with pytest.raises(ValueError, match=r"\(5, 6\).*last axis is the channel"):
        pad_or_crop(np.zeros((5, 6)), (4, 4))
    with pytest.raises(ValueError, match="positive"):
        pad_or_crop(np.zeros((5, 6, 1)), (4, 0))


def test_shepp_logan_mass_and_values():
    image = shepp_logan((512, 512)).array[0, :, :, 0]
    # Amplitude times pi a b over the ten ellipses, on a pixel area of (2 / n)^2.
    table = [
        (1, .69, .92), (-.8, .6624, .874), (-.2, .11, .31), (-.2, .16, .41), (.1, .21, .25),
        (.1, .046, .046), (.1, .046, .046), (.1, .046, .023), (.1, .023, .023), (.1, .023, .046),
    ]  # fmt: skip
    mass = sum(amplitude * np.pi * a * b for amplitude, a, b in table)
    np.testing.assert_allclose(image.sum() * (2 / 512) ** 2, mass, rtol=2e-3)
    np.testing.assert_allclose(np.unique(image), [0, 0.1, 0.2, 0.3, 0.4, 1.0], atol=1e-6)
    np.testing.assert_allclose(image[256 - 90, 256], 0.3, atol=1e-6)  # the large ellipse lies anterior
    assert shepp_logan((40, 64, 48)).array.shape == (40, 64, 48, 1)


def test_shepp_logan_3d_mass():
    image = shepp_logan((96, 96, 96)).array
    table = [(1, .69, .92, .81), (-.8, .6624, .874, .78), (-.2, .11, .31, .22), (-.2, .16, .41, .28),
             (.1, .21, .25, .41), (.1, .046, .046, .05), (.1, .046, .046, .05)]  # fmt: skip
    mass = sum(amplitude * 4 / 3 * np.pi * a * b * c for amplitude, a, b, c in table)
    np.testing.assert_allclose(image.sum() * (2 / 96) ** 3, mass, rtol=5e-3)


def test_phantoms_only_by_name():
    assert "shepp-logan" not in names()
    assert load("shepp-logan", shape=(32, 48)).array.shape == (1, 32, 48, 1)
    with pytest.raises(ValueError, match="height, width"):
        load("shepp-logan", shape=(3,))

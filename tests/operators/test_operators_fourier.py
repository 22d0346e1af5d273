"""Fourier, Hartley, coils and masks against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax import operators as op

SIZES = [(8, 8), (7, 6), (5, 9)]


def _image(seed, height, width, complex_values=True):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(height, width, 1)) + 1j * rng.normal(size=(height, width, 1))
    return jnp.asarray(x if complex_values else x.real)


@pytest.mark.parametrize("height, width", SIZES)
def test_fourier_is_unitary_with_dc_in_the_centre(height, width, x64):
    fourier = op.Fourier((height, width, 1))
    x = _image(0, height, width)
    np.testing.assert_allclose(jnp.linalg.norm(fourier(x).ravel()), jnp.linalg.norm(x.ravel()), rtol=1e-12)
    np.testing.assert_allclose(fourier.adjoint(fourier(x)), x, atol=1e-12)
    constant = fourier(jnp.ones((height, width, 1)))
    expected = np.zeros((height, width, 1))
    expected[height // 2, width // 2] = np.sqrt(height * width)
    np.testing.assert_allclose(constant, expected, atol=1e-12)


@pytest.mark.parametrize("height, width", SIZES)
def test_a_centred_delta_has_a_flat_spectrum_of_zero_phase(height, width, x64):
    delta = jnp.zeros((height, width, 1)).at[height // 2, width // 2].set(1.0)
    spectrum = op.Fourier((height, width, 1))(delta)
    np.testing.assert_allclose(spectrum, np.full((height, width, 1), (height * width) ** -0.5), atol=1e-13)


@pytest.mark.parametrize("height, width", SIZES)
def test_hartley_is_an_orthogonal_involution(height, width, x64):
    hartley = op.Hartley((height, width, 1))
    x = _image(1, height, width, complex_values=False)
    np.testing.assert_allclose(hartley(hartley(x)), x, atol=1e-12)
    matrix = hartley.matrix()
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(height * width), atol=1e-12)


def test_hartley_is_the_cas_sum(x64):
    n = 7
    angle = 2 * np.pi * np.outer(np.arange(n), np.arange(n)) / n
    matrix = op.Hartley((n, 1)).matrix()
    np.testing.assert_allclose(matrix, (np.cos(angle) + np.sin(angle)) / np.sqrt(n), atol=1e-12)


def test_hartley_diagonalises_a_stationary_covariance(x64):
    height, width = 6, 5
    spectrum = np.abs(np.fft.fft2(np.random.default_rng(0).normal(size=(height, width)))) ** 2
    kernel = np.fft.ifft2(spectrum).real
    rows, columns = np.divmod(np.arange(height * width), width)
    covariance = kernel[(rows[:, None] - rows) % height, (columns[:, None] - columns) % width]
    hartley = np.asarray(op.Hartley((height, width, 1)).matrix())
    np.testing.assert_allclose(hartley @ covariance @ hartley, np.diag(spectrum.ravel()), atol=1e-9)


@pytest.mark.parametrize("height, width", SIZES)
def test_sense_with_full_mask_and_normalised_maps_is_an_isometry(height, width):
    maps = op.birdcage_maps(4, height, width)
    np.testing.assert_allclose(np.sum(np.abs(maps) ** 2, axis=0), 1, atol=1e-6)
    sense = op.Sense(jnp.asarray(maps), np.ones(width))
    x = _image(2, height, width).astype(jnp.complex64)
    np.testing.assert_allclose(sense.gram(x), x, atol=2e-6)
    np.testing.assert_allclose(sense.adjoint(sense(x)), x, atol=2e-6)


def test_sense_is_the_masked_conjugate_sum_formula(x64):
    height, width = 5, 6
    maps = jnp.asarray(op.birdcage_maps(3, height, width, dtype=np.complex128))
    mask = np.random.default_rng(0).uniform(size=(height, width))
    x = _image(3, height, width)
    k = [np.arange(n) - n // 2 for n in (height, width)]
    dft = [np.exp(-2j * np.pi * np.outer(i, i) / len(i)) / np.sqrt(len(i)) for i in k]
    expected = mask * np.einsum("kh,chw,lw->ckl", dft[0], maps * x[None, :, :, 0], dft[1])
    np.testing.assert_allclose(op.Sense(maps, mask)(x), expected, atol=1e-12)


def test_sense_of_a_real_image_with_one_coil_is_conjugate_symmetric(x64):
    k_space = op.Sense.single(7, 9, np.ones(9))(_image(4, 7, 9, complex_values=False))[0]
    np.testing.assert_allclose(k_space, np.conj(k_space[::-1, ::-1]), atol=1e-12)


def test_sense_accepts_real_images_and_returns_complex_ones():
    sense = op.Sense(jnp.asarray(op.birdcage_maps(2, 4, 5)), op.equispaced_mask(0, 5, 2, 0.2))
    x = jnp.ones((4, 5, 1))
    assert sense(x).dtype == jnp.complex64
    assert sense.gram(x).dtype == jnp.complex64 and sense.gram(x).shape == (4, 5, 1)
    np.testing.assert_allclose(sense.gram(x), sense.adjoint(sense(x)), atol=1e-6)


@pytest.mark.parametrize("shape", [(), (6,), (1, 6), (7, 1), (7, 6)])
def test_gram_of_every_kind_of_mask_is_adjoint_of_forward(shape, x64):
    # Along an axis on which the mask is constant no FFT is taken.
    maps = jnp.asarray(op.birdcage_maps(3, 7, 6, dtype=np.complex128))
    sense = op.Sense(maps, np.random.default_rng(0).uniform(size=shape))
    x = _image(3, 7, 6)
    np.testing.assert_allclose(sense.gram(x), sense.adjoint(sense(x)), atol=1e-12)


def test_pmap_over_slices_equals_jit():
    sense = op.Sense(jnp.asarray(op.birdcage_maps(3, 7, 6)), op.random_mask(0, 6, 2, 0.2))
    xs = jnp.stack([_image(seed, 7, 6) for seed in range(4)])
    one = jax.jit(lambda x: sense.gram(x) + sense.adjoint(sense(x)))
    spread = jax.pmap(one, devices=jax.devices()[:4])(xs)
    np.testing.assert_allclose(spread, jnp.stack([one(x) for x in xs]), atol=1e-6)


@pytest.mark.parametrize("make", [op.random_mask, op.equispaced_mask])
@pytest.mark.parametrize("size, acceleration", [(181, 4), (181, 8), (217, 4), (64, 1), (16, 16)])
def test_masks_hold_the_exact_number_of_lines_and_the_centre(make, size, acceleration):
    fraction = 0.08 if acceleration < 16 else 0.0
    mask = make(3, size, acceleration, fraction)
    assert mask.dtype == np.float32 and mask.shape == (size,)
    assert mask.sum() == round(size / acceleration) and set(mask) <= {0.0, 1.0}
    centre = round(size * fraction)
    start = size // 2 - centre // 2
    assert mask[start : start + centre].all()
    np.testing.assert_array_equal(mask, make(3, size, acceleration, fraction))


def test_masks_differ_by_seed_and_equispaced_gaps_by_one():
    assert (op.random_mask(0, 64, 4) != op.random_mask(1, 64, 4)).any()
    lines = np.flatnonzero(op.equispaced_mask(0, 64, 5, 0.0))
    assert set(np.diff(lines)) <= {4, 5, 6} and len(set(np.diff(lines))) <= 2


def test_random_lines_are_uniform_outside_the_centre():
    masks = np.stack([op.random_mask(seed, 20, 4, 0.1) for seed in range(2000)])
    rate = masks.mean(axis=0)
    # 3 of the 18 outer lines; four standard errors of a rate of 1/6 over 2000 draws are 0.033.
    np.testing.assert_allclose(np.delete(rate, [9, 10]), 3 / 18, atol=0.034)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ((0, 16, 8, 0.5), "exceed the 2 lines"),
        ((0, 16, 0.5), "acceleration"),
        ((0, 16, 2, 1.5), "centre_fraction"),
    ],
)
def test_impossible_masks_are_refused(arguments, words):
    for make in (op.random_mask, op.equispaced_mask):
        with pytest.raises(ValueError, match=words):
            make(*arguments)


def test_differences_of_a_ramp_and_of_its_wrap(x64):
    ramp = jnp.arange(4.0)[:, None, None] * jnp.ones((1, 3, 1))
    inside = op.FiniteDifference((4, 3, 1), spacing=(0.5, 1.0))(ramp)
    np.testing.assert_array_equal(inside[0, :, 0, 0], [2, 2, 2, 0])
    np.testing.assert_array_equal(inside[1], 0)
    around = op.FiniteDifference((4, 3, 1), boundary="periodic")(1j * ramp)
    np.testing.assert_array_equal(around[0, :, 0, 0], [1j, 1j, 1j, -3j])


@pytest.mark.parametrize("boundary", ["neumann", "periodic"])
@pytest.mark.parametrize("shape", [(4, 5, 1), (1, 6, 1), (3, 3, 2)])
def test_difference_norm_is_exact(boundary, shape, x64):
    difference = op.FiniteDifference(shape, spacing=(1.0, 0.7), boundary=boundary)
    singular = np.linalg.svd(difference.matrix(), compute_uv=False)
    np.testing.assert_allclose(difference.norm(), singular[0], rtol=1e-12)

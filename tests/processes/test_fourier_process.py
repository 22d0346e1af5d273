"""Fourier diffusion: exact variances per frequency, the monotone condition, Hartley coordinates."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from pgm_jax.processes.fourier import FourierDiffusion, Heat, radial_frequency

SHAPE = (16, 12)
F = radial_frequency(SHAPE)[..., None]
TRANSFER = np.exp(-((F / 0.25) ** 2))
NOISE = 0.05 + F * np.exp(-((F / 0.4) ** 2))
SIGNAL = 1 / (0.02 + F**2)


def _hartley(x):
    transformed = jnp.fft.fftn(x, axes=(0, 1), norm="ortho")
    return transformed.real - transformed.imag


@pytest.mark.parametrize("path", ["straight", "semigroup"])
def test_ends_are_the_image_and_the_system(path):
    process = FourierDiffusion(TRANSFER, NOISE, path)
    assert np.all(process.alpha(0.0) == 1) and np.all(process.sigma(0.0) == 0)
    np.testing.assert_allclose(process.alpha(1.0), TRANSFER, rtol=1e-14)
    np.testing.assert_allclose(process.sigma(1.0) ** 2, NOISE, rtol=1e-14)
    level = np.stack([process.sigma(t) / process.alpha(t) for t in np.linspace(0, 1, 50)])
    assert np.all(np.diff(level, axis=0) >= 0)


def _restored(process, steps):
    """Variance of every frequency after ancestral sampling from t = 1, over the image's own.

    With the Wiener denoiser every step is linear in Gaussians, so variances propagate exactly.
    """
    grid = np.linspace(1.0, 0.0, steps + 1)
    variance = process.alpha(1.0) ** 2 * SIGNAL + process.sigma(1.0) ** 2
    for t, s in itertools.pairwise(grid):
        a, sd = process.alpha(t), process.sigma(t)
        wiener = a * SIGNAL / (a**2 * SIGNAL + sd**2)
        noise = (1 - a * wiener) / sd
        r = process._markov(t, s)
        gain = process.alpha(s) * wiener + process.sigma(s) * np.sqrt(1 - r**2) * noise
        variance = gain**2 * variance + (process.sigma(s) * r) ** 2
    return variance / SIGNAL


def test_ancestral_sampling_from_the_measurement_restores_the_spectrum():
    ratio = _restored(FourierDiffusion(TRANSFER, NOISE), 200)
    assert 0.95 < ratio.min() and ratio.max() < 1.02, (ratio.min(), ratio.max())


@pytest.mark.parametrize("path", ["straight", "semigroup"])
def test_its_error_is_of_first_order(path):
    process = FourierDiffusion(TRANSFER, NOISE, path)
    coarse, fine = (1 - _restored(process, steps).min() for steps in (400, 800))
    assert 1.9 < coarse / fine < 2.1


def test_the_step_of_the_process_is_the_recursion_above(x64, key):
    process, t, s = FourierDiffusion(TRANSFER, NOISE), 0.6, 0.5
    x_t, x0 = jax.random.normal(key, (2, *F.shape))
    estimate = process.estimate(x_t, t, x0)
    np.testing.assert_allclose(process.mix(estimate, t), x_t, atol=1e-12)
    x_s = process.reverse(key, x_t, estimate, t, s, 1.0)
    fresh, r = process.law.sample(key, F.shape, x_t.dtype), process._markov(t, s)
    noise = np.sqrt(1 - r**2) * estimate.noise + r * fresh
    np.testing.assert_allclose(x_s, process.alpha(s) * x0 + process.sigma(s) * noise, atol=1e-12)


def test_posterior_step_is_the_gaussian_conditional_per_frequency():
    # reconstruction.md 2.4: x_s | x_t, x0 in closed form, g^2 = p_t - (h_t / h_s)^2 p_s.
    process, t, s = FourierDiffusion(TRANSFER, NOISE, "semigroup"), 0.6, 0.35
    p_t, p_s = process.sigma(t) ** 2, process.sigma(s) ** 2
    step = process.alpha(t) / process.alpha(s)
    conditional = p_s * (p_t - step**2 * p_s) / p_t
    np.testing.assert_allclose(p_s * process._markov(t, s) ** 2, conditional, rtol=1e-12)


def test_renoise_reaches_the_forward_marginal(key):
    process = FourierDiffusion(TRANSFER, NOISE)
    many = jax.vmap(lambda k: process.renoise(k, jnp.zeros(F.shape), 0.4, 0.9))(jax.random.split(key, 4000))
    scale = process.alpha(0.9) / process.alpha(0.4)
    expected = process.sigma(0.9) ** 2 - (scale * process.sigma(0.4)) ** 2
    np.testing.assert_allclose(many.var(0), expected, rtol=0.15)


def test_hartley_coordinates_diagonalise_an_even_blur(x64, key):
    image = jax.random.normal(key, (*SHAPE, 1))
    process = Heat(SHAPE, width=1.5, noise_std=0.0)
    blurred = process.alpha(0.5) * _hartley(image)
    direct = ndimage.gaussian_filter(np.asarray(image[..., 0]), 1.5 * np.sqrt(0.5), mode="wrap", truncate=8)
    # scipy samples the kernel in space, so the two agree to the kernel's aliasing.
    np.testing.assert_allclose(_hartley(blurred)[..., 0], direct, atol=0.01)
    np.testing.assert_allclose(_hartley(_hartley(image)), image, atol=1e-12)


def test_heat_is_a_semigroup():
    process = Heat(SHAPE, 2.0, 0.1, spacing=(0.5, 1.0))
    np.testing.assert_allclose(process.alpha(0.3) * process.alpha(0.45), process.alpha(0.75), rtol=1e-12)


def test_table_reproduces_a_path_at_its_knots():
    reference = FourierDiffusion(TRANSFER, NOISE, "semigroup")
    times = np.linspace(0, 1, 21)
    tables = (
        np.stack([reference.alpha(t) for t in times]),
        np.stack([reference.sigma(t) ** 2 for t in times]),
    )
    process = FourierDiffusion(*tables, path="table")
    np.testing.assert_allclose(process.alpha(times[7]), tables[0][7], rtol=1e-12)
    np.testing.assert_allclose(process.sigma(0.33), reference.sigma(0.33), rtol=1e-6)
    traced = jax.jit(lambda process, t: process.sigma(t))(process, 0.33)
    np.testing.assert_allclose(traced, process.sigma(0.33), rtol=1e-5)


def test_log_prior_sums_over_frequencies(x64, key):
    process, x = FourierDiffusion(TRANSFER, NOISE), jax.random.normal(key, F.shape)
    expected = np.sum(-0.5 * np.asarray(x) ** 2 / NOISE - 0.5 * np.log(2 * np.pi * NOISE))
    np.testing.assert_allclose(process.log_prior(x, 1.0), expected, rtol=1e-12)


def test_noise_free_zero_frequency_stays_finite(key):
    ramp = FourierDiffusion(TRANSFER, F)
    x = jax.random.normal(key, F.shape)
    x_s = ramp.reverse(key, x, ramp.estimate(x, 0.5, x), 0.5, 0.2, 1.0)
    assert jnp.all(jnp.isfinite(x_s)) and x_s[0, 0, 0] == x[0, 0, 0]
    assert np.all(FourierDiffusion(TRANSFER, F, floor=0.01).sigma(1.0) ** 2 >= 0.01)


def test_radial_frequency():
    np.testing.assert_allclose(radial_frequency((4,), 0.5), [0, 0.5, 1.0, 0.5])
    f = radial_frequency((5, 6), (1.0, 2.0))
    np.testing.assert_allclose(f[1:, 1:], f[1:, 1:][::-1, ::-1])


def test_refusals():
    with pytest.raises(ValueError, match="must not fall"):
        FourierDiffusion(np.where(F > 0.4, -0.1, 1.0), NOISE)
    with pytest.raises(ValueError, match="must not fall"):
        FourierDiffusion(np.exp(3 * F), NOISE, "semigroup")
    with pytest.raises(ValueError, match="must be even"):
        FourierDiffusion(np.roll(TRANSFER, 1, 0), NOISE)
    with pytest.raises(ValueError, match="noise_power >= 0"):
        FourierDiffusion(TRANSFER, -NOISE)
    with pytest.raises(ValueError, match="starts at transfer 1"):
        FourierDiffusion(np.stack([TRANSFER, TRANSFER]), np.stack([NOISE, NOISE]), "table")
    with pytest.raises(ValueError, match="path"):
        FourierDiffusion(TRANSFER, NOISE, "cubic")
    with pytest.raises(ValueError, match="one noise level a frequency"):
        FourierDiffusion(TRANSFER, NOISE).time(1.0)
    with pytest.raises(ValueError, match="positive spacings"):
        radial_frequency((4, 4), 0.0)

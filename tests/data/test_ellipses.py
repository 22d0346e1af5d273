"""Ellipse phantoms: Bessel function, projections, rasters and k-space prove each other."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import j1

from pgm_jax.data import shepp_logan
from pgm_jax.data.ellipses import Ellipses, bessel_j1, shepp_logan_ellipses

ONE = Ellipses(
    amplitude=np.array([1.5]),
    half_axes=np.array([[9.0, 4.0]]),
    centre=np.array([[3.0, -2.0]]),
    angle=np.array([0.7]),
)


def _grid(n, width):
    return SimpleNamespace(shape=(n, n), spacing=(width / n, width / n))


def _lines(angle, t):
    angle, t = np.broadcast_arrays(angle, t)
    return SimpleNamespace(x=np.cos(angle), y=np.sin(angle), t=t)


def test_bessel_function_equals_scipy():
    x = np.concatenate([np.linspace(-60, 60, 2401), [0.0, 1e-12, 24.999999, 25.0, 1e4]])
    np.testing.assert_allclose(bessel_j1(x), j1(x), atol=1e-13)


def test_raster_at_pixel_centres_is_the_phantom_of_the_catalogue():
    for n in (64, 65):
        ours = shepp_logan_ellipses(200.0).raster(_grid(n, 200.0), samples=1)
        np.testing.assert_allclose(ours[:, :, 0], shepp_logan((n, n)).array[0, :, :, 0], atol=1e-6)


def test_projections_are_sums_of_the_raster():
    raster = ONE.raster(_grid(400, 40.0), samples=4)[:, :, 0]
    t = (np.arange(400) - 199.5) * 0.1
    for axis, angle in ((0, 0.0), (1, np.pi / 2)):
        shadow = ONE.line_integrals(_lines(angle, t))
        # A column sum is a mean over the column, which at the rim of the ellipse is not the value in its middle.
        inside = shadow > 4
        np.testing.assert_allclose((raster.sum(axis) * 0.1)[inside], shadow[inside], rtol=0.01)
    # Every view has the mass pi a b A, and the projected centre of mass.
    t = np.linspace(-20, 20, 40001)
    for angle in (0.3, 1.0, 2.6):
        p = ONE.line_integrals(_lines(angle, t)) * 1e-3
        np.testing.assert_allclose(p.sum(), np.pi * 36 * 1.5, rtol=1e-5)
        np.testing.assert_allclose(p @ t / p.sum(), 3 * np.cos(angle) - 2 * np.sin(angle), atol=1e-4)


def test_fourier_slice():
    """The 1-D transform of a projection is the 2-D transform on the radial line."""
    t = np.linspace(-20, 20, 80001)
    for angle in (0.0, 0.9, 2.2):
        p = ONE.line_integrals(_lines(angle, t)) * (t[1] - t[0])
        for k in (0.0, 0.02, 0.11, 0.4):
            along = np.sum(p * np.exp(-2j * np.pi * k * t))
            np.testing.assert_allclose(along, ONE.k_space(k * np.cos(angle), k * np.sin(angle)), atol=2e-4)


def test_k_space_is_the_transform_of_the_raster_at_low_frequencies():
    ellipses, n, width = shepp_logan_ellipses(100.0), 256, 100.0
    raster = ellipses.raster(_grid(n, width))[:, :, 0]
    x = (np.arange(n) - (n - 1) / 2) * width / n
    k = np.arange(-4, 5) / width
    waves = np.exp(-2j * np.pi * np.outer(k, x))
    transform = waves @ raster @ waves.T * (width / n) ** 2
    exact = ellipses.k_space(k[None, :], k[:, None])
    assert np.linalg.norm(transform - exact) <= 1e-3 * np.linalg.norm(exact)


def test_bins_are_averaged():
    geometry = SimpleNamespace(bins=20, lines=lambda k: _lines(0.4, ((np.asarray(k) - 9.5) * 2.0)[None]))
    fine = SimpleNamespace(bins=80, lines=lambda k: _lines(0.4, ((np.asarray(k) - 39.5) * 0.5)[None]))
    coarse = ONE.sinogram(geometry, samples=4)
    assert coarse.shape == (1, 20, 1)
    np.testing.assert_allclose(
        coarse[0, :, 0], ONE.sinogram(fine)[0, :, 0].reshape(20, 4).mean(1), rtol=1e-12
    )


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="half_axes must have shape"):
        Ellipses(np.ones(2), np.ones((1, 2)), np.zeros((2, 2)), np.zeros(2))
    with pytest.raises(ValueError, match="> 0 mm"):
        Ellipses(np.ones(1), np.array([[1.0, 0.0]]), np.zeros((1, 2)), np.zeros(1))

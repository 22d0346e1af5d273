"""Ellipsoids: exact chords against quadrature and spheres, rasters against volumes and the Shepp-Logan phantom."""

import numpy as np
import pytest

from pgm_jax.data import shepp_logan
from pgm_jax.data.ellipsoids import ellipsoids, line_integrals, raster, shepp_logan_ellipsoids


def _rotations(seed, n):
    """Random proper rotations (n, 3, 3)."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, 3, 3)))
    return q * np.linalg.det(q)[:, None, None]


def test_a_chord_of_a_sphere():
    ball = ellipsoids([2.0], [[5.0, 5.0, 5.0]], [[1.0, -2.0, 3.0]])
    rng = np.random.default_rng(0)
    sources, points = rng.normal(size=(2, 50, 3)) * np.array([40.0, 4.0])[:, None, None]
    direction = (points - sources) / np.linalg.norm(points - sources, axis=-1, keepdims=True)
    distance = np.linalg.norm(np.cross(sources - (1, -2, 3), direction), axis=-1)
    chord = 4 * np.sqrt(np.maximum(25 - distance**2, 0))
    assert 5 < np.count_nonzero(chord) < 45
    np.testing.assert_allclose(line_integrals(ball, sources, points), chord, atol=1e-9)


def test_chords_of_turned_ellipsoids_against_quadrature():
    phantom = ellipsoids(
        [1.0, -0.3], [[9.0, 4.0, 6.0], [3.0, 2.0, 5.0]], [[1, 2, 0], [-1, 0, 3]], _rotations(0, 2)
    )
    sources, points = np.array([[60.0, 5, -10]]), np.random.default_rng(1).uniform(-6, 6, (20, 3))
    t = np.linspace(0, 3, 60001)[:, None, None]
    line = sources + t * (points - sources)
    inside = [
        a * (np.sum(((line - c) @ q.T) ** 2, -1) <= 1) for a, c, q in zip(*phantom, strict=True)
    ]  # fmt: skip
    step = np.linalg.norm(points - sources, axis=-1) * 3 / 60000
    np.testing.assert_allclose(line_integrals(phantom, sources, points), sum(inside).sum(0) * step, atol=0.02)


def test_chords_stay_exact_from_a_distant_source():
    ball = ellipsoids([1.0], [[0.05, 0.05, 0.05]], [[0.0, 0.01, 0.0]])
    np.testing.assert_allclose(
        line_integrals(ball, [1e5, 0.0, 0.0], [-1e5, 0.0, 0.0]), 0.02 * np.sqrt(24), rtol=1e-9
    )


def test_a_raster_holds_the_volume_and_the_centre_of_mass():
    phantom = ellipsoids([3.0], [[6.0, 4.0, 5.0]], [[1.5, -2.0, 0.7]], _rotations(2, 1))
    shape, spacing = (15, 18, 20), (1.2, 1.0, 0.9)
    volume = raster(phantom, shape, spacing, 6)[..., 0].astype(np.float64)
    z, y, x = ((np.arange(n) - (n - 1) / 2) * d for n, d in zip(shape, spacing, strict=True))
    mass = volume.sum()
    np.testing.assert_allclose(mass * np.prod(spacing), 3 * 4 / 3 * np.pi * 6 * 4 * 5, rtol=2e-3)
    centre = [(volume.sum((0, 1)) @ x), (volume.sum((0, 2)) @ y), (volume.sum((1, 2)) @ z)] / mass
    np.testing.assert_allclose(centre, [1.5, -2.0, 0.7], atol=5e-3)


def test_samples_of_the_ellipsoids_are_the_shepp_logan_volume():
    shape = (20, 24, 28)
    volume = raster(shepp_logan_ellipsoids((14.0, 12.0, 10.0)), shape, (1.0, 1.0, 1.0), 1)
    np.testing.assert_allclose(volume, shepp_logan(shape).array, atol=1e-6)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: ellipsoids([1.0], [[1.0, 1.0]], [[0, 0, 0]]), r"shapes \(n, 3\)"),
        (lambda: ellipsoids([1.0], [[1.0, 0.0, 1.0]], [[0, 0, 0]]), "positive lengths in mm"),
    ],
)
def test_wrong_ellipsoids_say_what_is_needed(call, words):
    with pytest.raises(ValueError, match=words):
        call()

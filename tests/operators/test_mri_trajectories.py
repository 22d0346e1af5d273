"""Trajectories, their densities and gridding against closed forms, without the NUFFT on both sides."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tables import rest_slow

from pgm_jax import operators as op
from pgm_jax.data.ellipses import shepp_logan_ellipses
from pgm_jax.operators.mri import NUFFT, NonCartesian, kooshball, pipe_menon, radial, radial_angles, spiral
from pgm_jax.reconstruction import cg_sense
from pgm_jax.reconstruction.sense import gridding


def _blob(points, shape, width=2.5, centre=1.5):
    """A Gaussian blob at its voxels, and the closed form of its orthonormal Fourier transform at points."""
    c = np.asarray(shape) // 2
    distance = np.stack(np.indices(shape), axis=-1) - c - centre
    image = np.exp(-np.sum(distance**2, axis=-1) / (2 * width**2))
    k = 2 * np.pi * points / np.asarray(shape)
    spectrum = np.exp(-(width**2) * np.sum(k**2, axis=-1) / 2 - 1j * centre * np.sum(k, axis=-1))
    scale = (width * np.sqrt(2 * np.pi)) ** len(shape) / np.sqrt(np.prod(shape))
    return image[..., None].astype(np.complex64), (scale * spectrum).astype(np.complex64)


def _gap(a, b):
    return np.linalg.norm(np.ravel(a) - np.ravel(b)) / np.linalg.norm(np.ravel(b))


def test_radial_spokes_pass_the_centre_at_their_angles():
    scan = radial(4, 8, (16, 16))
    assert scan.points.shape == (4, 8, 2)
    np.testing.assert_allclose(scan.points[:, 4], 0, atol=0)
    # Angle 0 along the columns, pi / 2 along the rows, from -N / 2 in steps of N / readout.
    np.testing.assert_allclose(scan.points[0], np.stack([np.zeros(8), np.arange(-8, 8, 2)], -1), atol=1e-12)
    np.testing.assert_allclose(scan.points[2], np.stack([np.arange(-8, 8, 2), np.zeros(8)], -1), atol=1e-12)
    stretched = radial(4, 8, (16, 24)).points
    np.testing.assert_allclose(stretched, scan.points * [1, 1.5], atol=1e-12)


def test_golden_angles_are_nearly_even_in_every_run():
    step = np.diff(radial_angles(3, golden=True))[0]
    np.testing.assert_allclose(np.degrees(step), 111.246, atol=1e-3)
    for first, count in [(0, 8), (5, 13), (20, 21)]:
        angles = np.sort(radial_angles(60, golden=True)[first : first + count])
        gaps = np.diff(angles, append=angles[0] + np.pi)
        # Three-gap theorem for the golden ratio: neighbouring gaps differ by powers of it.
        assert gaps.max() / gaps.min() < 2.7


@pytest.mark.parametrize(
    "scan, shape, fraction",
    [
        (radial(30, 32, (20, 16)), (20, 16), np.pi / 4),
        (radial(30, 33, (20, 16), golden=True), (20, 16), np.pi / 4),
        (spiral(5, 100, (12, 18), turns=4), (12, 18), np.pi / 4),
        (spiral(5, 100, (12, 18), turns=4, power=2.0), (12, 18), np.pi / 4),
        (kooshball(50, 32, (8, 10, 12)), (8, 10, 12), np.pi / 6),
    ],
)
def test_densities_add_up_to_the_covered_part_of_the_band(scan, shape, fraction):
    assert scan.density.shape == scan.points.shape[:-1] and scan.density.min() > 0
    assert np.all(np.abs(scan.points) <= np.asarray(shape) / 2)
    # A readout of n samples ends half a step before or after the edge.
    np.testing.assert_allclose(scan.density.sum() / np.prod(shape), fraction, rtol=0.07)


def test_spiral_interleaves_are_turned_copies():
    points = spiral(3, 50, (10, 10), turns=2).points
    z = points[..., 1] + 1j * points[..., 0]
    np.testing.assert_allclose(z[1], z[0] * np.exp(2j * np.pi / 3), atol=1e-12)
    radius = np.abs(z[0])
    np.testing.assert_allclose(np.diff(radius), 5 / 50, atol=1e-12)
    np.testing.assert_allclose(np.unwrap(np.angle(z[0]))[-1] - np.angle(z[0])[0], 4 * np.pi * 49 / 50)


def test_kooshball_spokes_are_spread_over_the_sphere():
    ends = kooshball(400, 16, (2, 2, 2)).points[:, 0]
    # Second moments of an even cover of the sphere of radius 1: a third each, without correlation.
    np.testing.assert_allclose(ends.T @ ends / 400, np.eye(3) / 3, atol=5e-3)


# The analytic radial densities take a ring for the cell at the centre, which costs 1 to 5 %; the spiral's do not.
GRIDDING = [
    ((32, 32), radial(80, 64, (32, 32)), 2.5, 0.02),
    ((32, 24), radial(80, 64, (32, 24), golden=True), 2.0, 0.02),
    ((32, 32), spiral(8, 400, (32, 32), turns=3), 2.5, 2e-3),
    ((20, 20, 20), kooshball(700, 40, (20, 20, 20)), 1.7, 0.06),
]


@pytest.mark.parametrize("case", rest_slow(GRIDDING, keep=1, ids=["radial", "golden", "spiral", "kooshball"]))
def test_gridding_recovers_a_blob_from_its_closed_form(case):
    shape, scan, width, bound = case
    image, spectrum = _blob(scan.points, shape, width, centre=0.5)
    operator = NonCartesian.single(shape, scan.points)
    # The blob is wide enough for its voxels, and ends before the edge: the sum equals the integral.
    assert _gap(operator(image)[0], spectrum) < 1e-4
    assert _gap(gridding(operator, spectrum[None], scan.density), image) < bound
    # The density grows as |k|^(d - 1), so the plain normal equations need more steps in a volume.
    assert _gap(cg_sense(operator, spectrum[None], steps=30)[0], image) < 2e-3


def test_pipe_menon_comes_nearer_with_every_step():
    # It starts from equal areas; the error falls at least as fast as 1 / steps.
    shape, scan = (32, 32), spiral(8, 200, (32, 32), turns=3)
    image, spectrum = _blob(scan.points, shape)
    operator = NonCartesian.single(shape, scan.points)
    errors = []
    for steps in (10, 30, 100):
        density = jax.jit(lambda t, steps=steps: pipe_menon(t, steps))(operator.transform)
        errors.append(_gap(gridding(operator, spectrum[None], density), image))
    assert errors[0] > 2 * errors[1] and errors[1] > 2 * errors[2] and errors[2] < 2e-3


def test_pipe_menon_of_the_full_grid_is_one():
    index = np.stack(np.meshgrid(*[np.arange(12) - 6] * 2, indexing="ij"), axis=-1)
    density = pipe_menon(NUFFT.create(index, (12, 12)), steps=10)
    np.testing.assert_allclose(density, np.ones((12, 12)), atol=2e-2)
    # Doubled samples share their area.
    twice = np.concatenate([index, index[:, :4]], axis=1)
    shared = pipe_menon(NUFFT.create(twice, (12, 12)), steps=10)
    np.testing.assert_allclose(shared[:, :4], shared[:, 12:], rtol=1e-5)
    np.testing.assert_allclose(shared[:, 0] / density[:, 0], 0.5, atol=2e-2)


def test_gridding_divides_by_the_coils_and_leaves_unseen_voxels_zero():
    shape, scan = (16, 16), radial(40, 32, (16, 16))
    image, _ = _blob(scan.points, shape, width=1.5, centre=0.0)
    maps = 2 * op.birdcage_maps(3, *shape)
    maps[:, 3, 4] = 0
    operator = NonCartesian.create(maps, scan.points)
    found = gridding(operator, operator(image), scan.density)
    assert found[3, 4, 0] == 0 and _gap(found, image) < 0.05
    with pytest.raises(ValueError, match="weighted"):
        gridding(operator.replace(weights=jnp.asarray(scan.density)), operator(image), scan.density)


def test_impossible_trajectories_are_refused():
    with pytest.raises(ValueError, match="spokes"):
        radial(0, 8, (4, 4))
    with pytest.raises(ValueError, match="dimensions"):
        radial(3, 8, (4, 4, 4))
    with pytest.raises(ValueError, match="readout"):
        spiral(2, 0, (4, 4), turns=1)


@pytest.mark.parametrize("size", [32, 33])
def test_low_frequencies_of_a_head_phantom_are_its_closed_form(size):
    # Pixel means multiply the spectrum by sinc(k / N); what is left, the aliases, falls as |k - N|^-3/2 sinc.
    width, scan = 240.0, radial(16, 64, (size, size))
    phantom, step = shepp_logan_ellipses(width), width / size
    image = phantom.raster(SimpleNamespace(shape=(size, size), spacing=(step, step)), 16)
    points = scan.points[:, 28:37]
    # Voxels are centred at (n - (N - 1) / 2) mm, the transform at n = N // 2: half a voxel apart for even N.
    shift = (size // 2 - (size - 1) / 2) * step
    ky, kx = (points / width).transpose(2, 0, 1)
    box = np.prod(np.sinc(points / size), axis=-1)
    expected = phantom.k_space(kx, ky) * np.exp(2j * np.pi * shift * (kx + ky)) * box / step**2 / size
    assert _gap(NUFFT.create(points, (size, size))(image), expected) < 2e-3

"""Projections against closed forms: ellipses, blobs, boxes, moments, symmetries."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf
from tables import rest_slow

from pgm_jax.data.ellipses import shepp_logan_ellipses
from pgm_jax.operators.ct import Fan, FanBeam, ImageGrid, Parallel, ParallelBeam

BEAMS = ["parallel", "flat", "arc"]
# Size, and the largest relative error of Joseph and of strip (against the mean over each bin), Shepp-Logan.
SIZES = [(128, 0.03, 0.0165), (256, 0.015, 0.009)]


def _beam(name, grid, bins, width, views=24, footprint="joseph"):
    """An operator whose detector is `width` mm wide at the centre of rotation."""
    turn = 0.1 + np.arange(views) * 2 * np.pi / views
    if name == "parallel":
        return ParallelBeam(grid, Parallel(turn / 2, bins, width / bins), footprint)
    radius = 3 * grid.radius()
    return FanBeam(grid, Fan(turn, radius, 2 * radius, bins, 2 * width / bins, 0.0, name), footprint)


def _relative(a, b):
    return np.linalg.norm(np.asarray(a, np.float64) - b) / np.linalg.norm(b)


@pytest.mark.parametrize("size", rest_slow(SIZES, ids=["128", "256"]))
@pytest.mark.parametrize("beam", BEAMS)
def test_shepp_logan_against_its_exact_sinogram(beam, size):
    n, joseph, strip = size
    grid, width = ImageGrid((n, n), 200 / n), 290.0
    ellipses = shepp_logan_ellipses(200.0)
    image = jnp.asarray(ellipses.raster(grid), jnp.float32)
    for footprint, samples, bound in (("joseph", 1, joseph), ("strip", 16, strip)):
        A = _beam(beam, grid, round(1.45 * n), width, footprint=footprint)
        assert _relative(A(image), ellipses.sinogram(A.geometry, samples)) <= bound


def _blob(grid, centre, size):
    """A Gaussian `exp(-|r - centre|^2 / (2 size^2))`, averaged over pixels exactly."""
    parts = []
    for x, h, c in zip(grid.centres(), grid.spacing[::-1], centre, strict=True):
        edges = [erf((x + side * h / 2 - c) / (size * np.sqrt(2))) for side in (-1, 1)]
        parts.append((edges[1] - edges[0]) * size * np.sqrt(np.pi / 2) / h)
    return jnp.asarray(np.outer(parts[1], parts[0])[:, :, None])


@pytest.mark.parametrize("footprint", ["joseph", "strip"])
@pytest.mark.parametrize("beam", rest_slow(BEAMS, 2))
def test_a_blob_converges_at_second_order(beam, footprint, x64):
    """Off centre, on pixels that are not square; line integral `s sqrt(2 pi) exp(-t^2 / (2 s^2))`."""
    errors = []
    for n in (16, 32, 64):
        grid = ImageGrid((n, n + n // 4), (32 / n, 30 / n))
        A = _beam(beam, grid, 2 * n, 60.0, views=5, footprint=footprint)
        # The mean over a bin differs from its middle at second order too.
        lines = A.geometry.lines(np.arange(2 * n))
        t = lines.t - 3.0 * lines.x + 2.0 * lines.y
        exact = 3.0 * np.sqrt(2 * np.pi) * np.exp(-(t**2) / 18.0)
        errors.append(_relative(A(_blob(grid, (3.0, -2.0), 3.0))[:, :, 0], exact))
    assert 3.4 < errors[0] / errors[1] < 4.6 and 3.7 < errors[1] / errors[2] < 4.3


def test_a_box_has_trapezoid_projections():
    """An off-centre rectangle catches exchanged axes and angle signs; strips are exact on it."""
    grid, angles = ImageGrid((12, 16), (2.0, 1.0)), np.array([0.0, 0.4, np.pi / 2, 2.5])
    image = np.zeros((12, 16, 1), np.float32)
    image[2:5, 9:14] = 1.0  # x in [1, 6], y in [-8, -2]
    A = ParallelBeam(grid, Parallel(angles, 60, 0.5), "strip")
    edges = (np.arange(61) - 30) * 0.5
    for view, angle in zip(np.asarray(A(jnp.asarray(image)))[:, :, 0], angles, strict=True):
        c, s = np.cos(angle), np.sin(angle)
        u = np.linspace(1, 6, 2001)[:-1] + 0.00125
        v = np.linspace(-8, -2, 2401)[:-1] + 0.00125
        shadow = np.histogram((u[:, None] * c + v[None] * s).ravel(), edges)[0] * (0.0025**2 / 0.5)
        np.testing.assert_allclose(view, shadow, atol=0.03)
    np.testing.assert_allclose(np.asarray(A(jnp.asarray(image)))[0, :, 0].max(), 6.0, rtol=1e-6)
    np.testing.assert_allclose(np.asarray(A(jnp.asarray(image)))[2, :, 0].max(), 5.0, rtol=1e-6)


@pytest.mark.parametrize("footprint, tolerance", [("joseph", 2e-3), ("strip", 1e-6)])
def test_moments(footprint, tolerance):
    """`sum_k p dt` is the mass in every view, `sum_k t p dt` the mass times the projected centre of mass."""
    grid, angles = ImageGrid((33, 40), (0.9, 1.1)), np.linspace(0, np.pi, 25)
    A = ParallelBeam(grid, Parallel(angles, 80, 0.8, 0.3), footprint)
    image = np.asarray(_blob(grid, (4.0, -3.0), 3.0)) + 0.5 * np.asarray(_blob(grid, (-5.0, 6.0), 2.0))
    sinogram = np.asarray(A(jnp.asarray(image, jnp.float32)), np.float64)[:, :, 0] * 0.8
    x, y = grid.centres()
    mass = image.sum() * 0.99
    first = np.array([np.sum(image[:, :, 0] * x), np.sum(image[:, :, 0] * y[:, None])]) * 0.99
    np.testing.assert_allclose(sinogram.sum(1), mass, rtol=tolerance)
    t = (np.arange(80) - 39.5) * 0.8 + 0.3
    centre = np.cos(angles) * first[0] + np.sin(angles) * first[1]
    # The centre of mass to a fraction of a pixel; the rest is that bins are sampled at their middle.
    np.testing.assert_allclose(sinogram @ t, centre, atol=mass * (0.02 if footprint == "joseph" else 1e-3))


@pytest.mark.parametrize("footprint", ["joseph", "strip"])
def test_opposite_and_turned_views(footprint):
    """`p(t, b + pi) = p(-t, b)`; an image turned by 90 degrees has the views of angles turned by 90 degrees."""
    grid, angles = ImageGrid((9, 9)), np.linspace(0.1, 1.4, 5)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(9, 9, 1)), jnp.float32)
    A, B, C = (
        ParallelBeam(grid, Parallel(a, 14), footprint) for a in (angles, angles + np.pi, angles + np.pi / 2)
    )
    np.testing.assert_allclose(B(x), A(x)[:, ::-1], atol=3e-6)
    # (x, y) -> (-y, x): a new row is an old column.
    np.testing.assert_allclose(C(x.swapaxes(0, 1)[:, ::-1]), A(x), atol=3e-6)


@pytest.mark.parametrize("detector", ["flat", "arc"])
def test_conjugate_rays_of_a_fan_see_the_same(detector):
    """The ray at (b, g) runs back along the one at (b + pi - 2 g, -g)."""
    grid, bins = ImageGrid((10, 12)), 9
    x = jnp.asarray(np.random.default_rng(0).normal(size=(10, 12, 1)), jnp.float32)
    fan = Fan(np.array([0.5]), 20.0, 30.0, bins, 2.0, 0.0, detector)
    g = fan.fan_angles(np.arange(bins))
    back = Fan(0.5 + np.pi - 2 * g, 20.0, 30.0, bins, 2.0, 0.0, detector)
    rays = np.asarray(FanBeam(grid, back)(x))[np.arange(bins), bins - 1 - np.arange(bins), 0]
    np.testing.assert_allclose(rays, FanBeam(grid, fan)(x)[0, :, 0], atol=3e-6)


def test_a_fan_from_far_is_a_parallel_beam():
    grid, angles = ImageGrid((12, 10)), np.linspace(0, 3, 4)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(12, 10, 1)), jnp.float32)
    for footprint in ("joseph", "strip"):
        near = FanBeam(grid, Fan(angles, 1e5, 1e5, 15, 1.1), footprint)(x)
        far = ParallelBeam(grid, Parallel(angles + np.pi / 2, 15, 1.1), footprint)(x)
        np.testing.assert_allclose(near, far, atol=2e-3)


def test_projections_carry_millimetres():
    """On a grid twice as fine the paths are the same, in units ten times smaller ten times as long."""
    ellipses = shepp_logan_ellipses(100.0)
    values = {}
    for n, scale in ((64, 1.0), (128, 1.0), (64, 10.0)):
        grid = ImageGrid((n, n), scale * 100 / n)
        A = ParallelBeam(grid, Parallel(np.array([0.3]), 40, 3.0 * scale), "strip")
        values[n, scale] = np.asarray(
            A(jnp.asarray(ellipses.raster(ImageGrid((n, n), 100 / n)), jnp.float32))
        )
    assert _relative(values[64, 1.0], values[128, 1.0]) < 0.02
    np.testing.assert_allclose(values[64, 10.0], 10 * values[64, 1.0], rtol=1e-4, atol=1e-4)

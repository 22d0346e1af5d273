"""ASTRA's CPU projectors, element by element. Optional: `pip install astra-toolbox`."""

import jax.numpy as jnp
import numpy as np
import pytest
from ct_reference import strip_matrix

from pgm_jax.data.ellipses import shepp_logan_ellipses
from pgm_jax.operators.ct import Fan, FanBeam, ImageGrid, Parallel, ParallelBeam

astra = pytest.importorskip("astra")
pytestmark = pytest.mark.slow

# ASTRA takes the two axes as driving in turn at 45 degrees, so these angles avoid it.
ANGLES = np.linspace(0.05, 3.0, 9)


def _astra(name, n, geometry):
    volume = astra.create_vol_geom(n, n)
    return astra.OpTomo(astra.create_projector(name, geometry, volume))


def _matrix(projector, n):
    """Dense matrix (views, bins, height, width); row 0 of ASTRA lies at the largest y."""
    columns = [projector.FP(np.eye(n * n, dtype=np.float32)[p].reshape(n, n)) for p in range(n * n)]
    return np.stack(columns, -1).reshape(*columns[0].shape, n, n)[:, :, ::-1]


@pytest.mark.parametrize("footprint, name", [("joseph", "linear"), ("strip", "strip")])
@pytest.mark.parametrize("n, bins, spacing", [(12, 18, 1.0), (11, 17, 1.0), (12, 7, 1.0), (12, 14, 1.3)])
def test_parallel_elements(footprint, name, n, bins, spacing):
    A = ParallelBeam(ImageGrid((n, n)), Parallel(ANGLES, bins, spacing), footprint)
    theirs = _matrix(_astra(name, n, astra.create_proj_geom("parallel", spacing, bins, ANGLES)), n)
    ours = np.asarray(A.matrix()).reshape(theirs.shape)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("footprint, name", [("joseph", "linear"), ("strip", "strip")])
def test_parallel_sinogram_and_adjoint_of_a_phantom(footprint, name):
    """256 pixels, relative in L2: ASTRA's positions are off by 1e-4 pixel in float32, ours by 1e-7."""
    n, bins = 256, 363
    grid = ImageGrid((n, n))
    A = ParallelBeam(grid, Parallel(ANGLES, bins), footprint)
    theirs = _astra(name, n, astra.create_proj_geom("parallel", 1.0, bins, ANGLES))
    image = shepp_logan_ellipses(float(n)).raster(grid).astype(np.float32)
    sinogram = theirs.FP(np.ascontiguousarray(image[::-1, :, 0]))
    ours = np.asarray(A(jnp.asarray(image)))[:, :, 0]
    assert np.linalg.norm(ours - sinogram) <= 1e-4 * np.linalg.norm(sinogram)
    back = theirs.BP(np.array(ours))[::-1]
    ours = np.asarray(A.adjoint(jnp.asarray(ours)[:, :, None]))[:, :, 0]
    assert np.linalg.norm(ours - back) <= 1e-4 * np.linalg.norm(back)


def test_flat_fan_strips():
    """The same areas; where we have the secant of the ray's fan angle, ASTRA has its square over that of the pixel.

    ASTRA loses part of a few pixels in a view near 45 degrees; ours are those of clipped polygons.
    """
    n, bins, spacing, source, detector = 12, 25, 0.9, 60.0, 40.0
    grid = ImageGrid((n, n))
    theirs = _matrix(
        _astra(
            "strip_fanflat", n, astra.create_proj_geom("fanflat", spacing, bins, ANGLES, source, detector)
        ),
        n,
    )
    A = FanBeam(grid, Fan(ANGLES - np.pi / 2, source, source + detector, bins, spacing), "strip")
    ours = np.asarray(A.matrix()).reshape(theirs.shape)
    x, y = grid.centres()
    c, s = np.cos(A.geometry.angles)[:, None, None], np.sin(A.geometry.angles)[:, None, None]
    pixel = np.arctan((y[:, None] * c - x * s) / (source - x * c - y[:, None] * s))[:, None]
    ray = A.geometry.fan_angles(np.arange(bins))[None, :, None, None]
    differs = np.abs(ours - theirs * np.cos(ray) / np.cos(pixel)) > 1e-4
    assert differs.sum() <= 0.004 * np.sum(ours > 0)
    np.testing.assert_allclose(ours, strip_matrix(grid, A.geometry), atol=2e-6)

"""The separable footprint of a cone beam against areas of polygons, closed forms, the fan and Joseph's method."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ct_reference import strip_matrix
from tables import rest_slow

from pgm_jax.data.ellipsoids import ellipsoids, line_integrals, raster
from pgm_jax.operators import adjoint_gap
from pgm_jax.operators.ct.cone import ConeBeam
from pgm_jax.operators.ct.fan import FanBeam
from pgm_jax.operators.ct.geometry import Fan, ImageGrid
from pgm_jax.operators.ct.geometry3d import Cone, Helical, VolumeGrid

CIRCLE = 0.2 + np.arange(3) * 2 * np.pi / 3


def _cone(**changes):
    scan = {"angles": CIRCLE, "source_to_axis": 20.0, "source_to_detector": 30.0, "rows": 4, "columns": 7}
    return Cone(**scan | {"spacing": (1.3, 1.4)} | changes)


CASES = {
    "odd": lambda: (VolumeGrid((5, 4, 3), (1.2, 1.0, 0.9)), _cone(columns=6, offset=(0.4, 0.9))),
    # Angles 0, 45, 90, ... degrees: edges on either side of a tie between driving axes.
    "ties": lambda: (VolumeGrid((3, 4, 4)), _cone(angles=np.arange(8) * np.pi / 4)),
    "truncated": lambda: (VolumeGrid((6, 5, 5)), _cone(rows=2, columns=3, offset=(1.0, -2.0))),
    "coarse": lambda: (VolumeGrid((4, 4, 4)), _cone(rows=2, columns=3, spacing=(4.0, 3.7))),
    "fine": lambda: (VolumeGrid((3, 3, 3)), _cone(rows=9, columns=10, spacing=(0.4, 0.5))),
    "helix": lambda: (
        VolumeGrid((6, 4, 4), (0.8, 1.0, 1.0)),
        Helical(np.arange(5) * 0.7, 20.0, 30.0, 3, 6, (1.3, 1.1), (0.4, 0.9), pitch=4.0),
    ),
}


@cache
def _operator(name, x64, subsets=1):
    with jax.enable_x64(x64):
        return ConeBeam(*CASES[name](), subsets, "strip")


def _reference(grid, scan):
    """Areas of polygons across z, overlaps of intervals along it, times the slant of the ray of each pixel."""
    fan = Fan(
        scan.angles,
        scan.source_to_axis,
        scan.source_to_detector,
        scan.columns,
        scan.spacing[1],
        scan.offset[1],
    )
    plane = ImageGrid(grid.shape[1:], grid.spacing[1:])
    areas = strip_matrix(plane, fan)
    (x, y), far = plane.centres(), scan.source_to_detector
    c, s = np.cos(scan.angles)[:, None, None], np.sin(scan.angles)[:, None, None]
    scale = far / (scan.source_to_axis - c * x - s * y[:, None])
    z = (np.arange(grid.shape[0]) - (grid.shape[0] - 1) / 2) * grid.spacing[0]
    v = (np.arange(scan.rows) - (scan.rows - 1) / 2) * scan.spacing[0] + scan.offset[0]
    # Axes: rows, z, views, y, x.
    rise = (z[:, None] - scan.heights())[:, :, None, None]
    ends = [scale * (rise + side * grid.spacing[0] / 2) for side in (-1, 1)]
    rows = [(v + side * scan.spacing[0] / 2)[:, None, None, None, None] for side in (-1, 1)]
    cover = np.maximum(np.minimum(ends[1], rows[1]) - np.maximum(ends[0], rows[0]), 0) / scan.spacing[0]
    u = (np.arange(scan.columns) - (scan.columns - 1) / 2) * scan.spacing[1] + scan.offset[1]
    slant = np.sqrt(1 + v[:, None] ** 2 / (far**2 + u**2))
    return np.einsum("lk,vkij,lzvij->vlkzij", slant, areas, cover).reshape(scan.views * slant.size, -1)


def _matrix(apply, domain):
    """Columns of a linear map through one call with the unit vectors as slices."""
    size = int(np.prod(domain.shape))
    units = jnp.eye(size, dtype=domain.dtype).reshape(size, *domain.shape)
    return np.asarray(jax.vmap(apply)(units)).reshape(size, -1).T


def _normal(seed, space):
    return jnp.asarray(np.random.default_rng(seed).normal(size=space.shape), space.dtype)


@pytest.mark.parametrize("name", rest_slow(CASES, 2, CASES))
def test_every_element_of_both_directions(name, x64):
    operator, reference = _operator(name, True), _reference(*CASES[name]())
    # The flank of a footprint is at least 1e-6 of it.
    np.testing.assert_allclose(_matrix(operator, operator.domain), reference, atol=3e-6 * reference.max())
    backward = _matrix(operator.adjoint, operator.range)
    np.testing.assert_allclose(backward.T, _matrix(operator, operator.domain), atol=1e-12 * reference.max())


@pytest.mark.parametrize("x64", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_dot_test(x64):
    with jax.enable_x64(x64):
        cone = Cone(np.arange(9) * 0.7, 100.0, 160.0, 17, 22, (2.0, 2.1), (3.0, 5.0))
        operator = ConeBeam(VolumeGrid((14, 19, 24), (1.5, 1.1, 1.0)), cone, footprint="strip")
        gap = jax.jit(adjoint_gap)
        assert max(float(gap(operator, jax.random.key(seed))) for seed in range(5)) < (1e-12 if x64 else 1e-6)


def test_a_slice_higher_than_the_detector_is_a_fan_beam(x64):
    angles = np.arange(6) * 0.9
    cone = Cone(angles, 20.0, 30.0, 1, 9, (1.0, 1.4), (0.0, 0.6))
    cone = ConeBeam(VolumeGrid((1, 7, 8), (4.0, 1.0, 1.1)), cone, footprint="strip")
    fan = FanBeam(ImageGrid((7, 8), (1.0, 1.1)), Fan(angles, 20.0, 30.0, 9, 1.4, 0.6), "strip")
    x, y = _normal(0, fan.domain), _normal(1, fan.range)
    np.testing.assert_allclose(cone(x[None])[:, 0], fan(x), atol=1e-11)
    np.testing.assert_allclose(cone.adjoint(y[:, None])[0], fan.adjoint(y), atol=1e-11)


def _over_pixels(scan, values, samples=4):
    """The mean over each pixel of a function of (sources, points on the detector)."""
    rows, columns = scan.spacing
    fine = replace(
        scan,
        rows=scan.rows * samples,
        columns=scan.columns * samples,
        spacing=(rows / samples, columns / samples),
    )
    rays = values(*fine.rays())
    return rays.reshape(scan.views, scan.rows, samples, scan.columns, samples).mean((2, 4))


SCANS = {
    "cone": Cone(np.arange(4) * 1.1, 200.0, 300.0, 20, 24, (5.0, 5.0), (4.0, -7.0)),
    "helix": Helical(np.arange(12) * 0.7, 200.0, 300.0, 12, 24, (5.0, 5.0), pitch=20.0),
}


@pytest.mark.parametrize("name", SCANS)
def test_a_gaussian_blob_converges_at_second_order(name):
    """Along a line at distance d from c, `exp(-|r - c|^2 / 2 s^2)` sums to `s sqrt(2 pi) exp(-d^2 / 2 s^2)`."""
    centre, width = np.array([4.0, -6.0, 3.0]), 7.0

    def through_the_blob(sources, pixels):
        direction = (pixels - sources) / np.linalg.norm(pixels - sources, axis=-1, keepdims=True)
        square = np.sum(np.cross(sources - centre, direction) ** 2, -1)
        return width * np.sqrt(2 * np.pi) * np.exp(-square / (2 * width**2))

    exact, errors = _over_pixels(SCANS[name], through_the_blob, 8), []
    for n in (16, 32):
        z = y = x = (np.arange(n) - (n - 1) / 2) * 64 / n
        r = (z[:, None, None] - centre[2]) ** 2 + (y[:, None] - centre[1]) ** 2 + (x - centre[0]) ** 2
        volume = jnp.asarray(np.exp(-r / (2 * width**2))[..., None], jnp.float32)
        operator = ConeBeam(VolumeGrid((n, n, n), 64 / n), SCANS[name], footprint="strip")
        errors.append(np.linalg.norm(np.asarray(operator(volume))[..., 0] - exact) / np.linalg.norm(exact))
    assert errors[1] < 0.012 and 3.5 < errors[0] / errors[1] < 4.5


@pytest.mark.parametrize("name", SCANS)
def test_projections_of_ellipsoids(name):
    turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(2, 3, 3)))
    half_axes, centres = [[16.0, 10, 13], [6, 8, 5]], [[3.0, 6, -3], [-6, 3, 5]]
    phantom = ellipsoids([1.0, 0.5], half_axes, centres, turn * np.linalg.det(turn)[:, None, None])
    exact, errors = _over_pixels(SCANS[name], lambda *rays: line_integrals(phantom, *rays)), []
    for n in (16, 32):
        volume = jnp.asarray(raster(phantom, (n, n, n), (64 / n,) * 3, 4))
        operator = ConeBeam(VolumeGrid((n, n, n), 64 / n), SCANS[name], footprint="strip")
        errors.append(np.linalg.norm(np.asarray(operator(volume))[..., 0] - exact) / np.linalg.norm(exact))
    # Edges limit the order to one.
    assert errors[1] < 0.04 and errors[1] < 0.6 * errors[0]


def test_single_precision_at_a_clinical_distance():
    cone = Cone(np.arange(3) * 1.1, 1000.0, 1500.0, 8, 128, (3.0, 1.5))
    grid = VolumeGrid((6, 128, 128))
    x = np.random.default_rng(0).normal(size=(6, 128, 128, 1))
    single = np.asarray(ConeBeam(grid, cone, footprint="strip")(jnp.asarray(x, jnp.float32)))
    with jax.enable_x64(True):
        double = np.asarray(ConeBeam(grid, cone, footprint="strip")(jnp.asarray(x)))
    assert np.linalg.norm(single - double) < 2e-5 * np.linalg.norm(double)


def test_subsets_make_up_the_whole(x64):
    operator = _operator("odd", True, 2)
    x, y = _normal(0, operator.domain), _normal(1, operator.range)
    parts = [operator.subset(i) for i in range(2)]
    for i, part in enumerate(parts):
        np.testing.assert_allclose(part(x), operator.restrict(operator(x), i), atol=1e-12)
    np.testing.assert_array_equal(parts[1](x)[1], 0)
    # The empty view of a subset sees nothing and gives nothing, whatever its data.
    total = parts[0].adjoint(operator.restrict(y, 0)) + parts[1].adjoint(
        operator.restrict(y, 1).at[1].set(1.0)
    )
    np.testing.assert_allclose(total, operator.adjoint(y), atol=1e-12)


def test_memory_is_a_few_volumes():
    """Compiled, not run: 256^3 and 360 views."""
    n, views = 256, 360
    cone = Cone(np.arange(views) * 2 * np.pi / views, 4.0 * n, 6.0 * n, n, 3 * n // 2, (1.4, 1.4))
    operator = ConeBeam(VolumeGrid((n, n, n)), cone, footprint="strip")
    volume, data = 4 * n**3, 4 * views * n * 3 * n // 2
    for apply, space in ((ConeBeam.__call__, operator.domain), (ConeBeam.adjoint, operator.range)):
        memory = jax.jit(apply).lower(operator, space).compile().memory_analysis()
        assert memory.temp_size_in_bytes < 7 * volume + 16 * data / views


@pytest.mark.parametrize(
    "scan, footprint, words",
    [
        (_cone(tilt=(0.1, 0.0, 0.0)), "strip", "columns parallel to z"),
        (_cone(columns=1, spacing=(1.3, 60.0)), "strip", "narrower columns"),
        (_cone(), "siddon", '"joseph" or "strip"'),
    ],
)
def test_what_has_no_footprint_is_refused(scan, footprint, words):
    with pytest.raises(ValueError, match=words):
        ConeBeam(VolumeGrid((4, 4, 4)), scan, footprint=footprint)

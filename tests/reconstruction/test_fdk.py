"""FDK against an independent fan-beam reconstruction, fan-beam FBP, and exact projections of phantoms."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax.data.ellipsoids import Ellipsoids, ellipsoids, line_integrals, raster, shepp_logan_ellipsoids
from pgm_jax.operators.ct.cone import ConeBeam
from pgm_jax.operators.ct.fan import FanBeam
from pgm_jax.operators.ct.geometry import Fan, ImageGrid
from pgm_jax.operators.ct.geometry3d import Cone, Helical, VolumeGrid
from pgm_jax.reconstruction.fbp import fbp
from pgm_jax.reconstruction.fdk import fdk

FULL = np.arange(120) * 2 * np.pi / 120
FAN = np.arctan(40 / 300)
SHORT = np.arange(90) * (np.pi + 2 * FAN + 0.1) / 90


def _cone(angles, columns=100, offset=0.0, rows=5):
    return Cone(angles, 200.0, 300.0, rows, columns, (1.0, 0.8), (0.0, offset))


def _phantom():
    # Longer along z than the cone is high, so that the middle plane is nearly that of a cylinder.
    return ellipsoids(
        [1.0, -0.4, 0.5], [[18.0, 14, 60], [6, 5, 60], [3, 4, 60]], [[2.0, -3, 0], [5, -4, 0], [-6, 2, 0]]
    )


def _reconstruct(geometry, grid, phantom, **options):
    operator = ConeBeam(grid, geometry)
    y = jnp.asarray(line_integrals(phantom, *geometry.rays())[..., None], jnp.result_type(float))
    return np.asarray(jax.jit(lambda a, y: fdk(a, y, **options))(operator, y))[..., 0]


def _fan_fbp(geometry, grid, sinogram):
    """Fan-beam filtered back-projection of the middle row over a full circle, view by view in numpy."""
    distance, spacing = geometry.source_to_axis, geometry.spacing[1] * 200 / 300
    p = (np.arange(geometry.columns) - (geometry.columns - 1) / 2) * spacing
    lag = np.arange(-geometry.columns + 1, geometry.columns)
    ramp = np.where(lag % 2 == 1, -1 / (np.pi * np.where(lag == 0, 1, lag) * spacing) ** 2, 0.0)
    ramp[geometry.columns - 1] = 1 / (4 * spacing**2)
    _, ny, nx = grid.shape
    y, x = np.meshgrid(np.arange(ny) - (ny - 1) / 2, np.arange(nx) - (nx - 1) / 2, indexing="ij")
    image = np.zeros((ny, nx))
    for angle, row in zip(geometry.angles, sinogram, strict=True):
        weighted = row * distance / np.hypot(distance, p)
        q = spacing * np.convolve(ramp, weighted)[geometry.columns - 1 : 2 * geometry.columns - 1]
        depth = distance - (x * np.cos(angle) + y * np.sin(angle))
        position = distance * (y * np.cos(angle) - x * np.sin(angle)) / depth
        image += (distance / depth) ** 2 * np.interp(position, p, q) / 2
    return image * 2 * np.pi / geometry.views


def test_the_middle_plane_is_fan_beam_filtered_back_projection(x64):
    geometry, grid = _cone(FULL), VolumeGrid((3, 34, 36))
    volume = _reconstruct(geometry, grid, _phantom())
    sinogram = line_integrals(_phantom(), *geometry.rays())[:, 2]
    reference = _fan_fbp(geometry, grid, sinogram)
    np.testing.assert_allclose(volume[1], reference, atol=1e-12)
    # Above and below the plane it is the same but for the cone angle, evenly.
    np.testing.assert_allclose(volume[0], volume[2], atol=1e-12)
    assert np.abs(volume[0] - volume[1]).max() < 0.03


SCANS = {
    "full": _cone(FULL),
    "quarter_shift": _cone(FULL, offset=0.2),
    "short": _cone(SHORT + 1.0),
    "short_backwards": _cone(-SHORT),
    "overscan": _cone(np.arange(120) * np.deg2rad(300) / 120),
    "half_fan": _cone(FULL, columns=64, offset=16.0),
    "half_fan_other_side": _cone(FULL, columns=64, offset=-16.0),
    "uneven": _cone(np.sort(np.random.default_rng(0).uniform(-1, 1, 120) * 0.012 + FULL)),
    "two_turns": _cone(np.arange(200) * 4 * np.pi / 200),
}


@pytest.mark.parametrize("name", SCANS)
def test_every_scan_finds_the_values_of_the_phantom(name):
    volume = _reconstruct(SCANS[name], VolumeGrid((1, 48, 48)), _phantom(), filter="hann")[0]
    truth = raster(_phantom(), (1, 48, 48), (1.0,) * 3, 4)[0, ..., 0]
    y, x = np.mgrid[:48, :48] - 23.5
    for value, *centre in ((1.0, 3.0, 6.0), (0.6, 5.0, -4.0), (0.0, -14.0, -15.0)):
        flat = np.hypot(x - centre[0], y - centre[1]) < 2.5
        np.testing.assert_allclose(truth[flat], value, atol=1e-6)
        assert abs(volume[flat].mean() - value) < 0.01
    assert np.sqrt(np.mean((volume - truth) ** 2)) < 0.07


@pytest.mark.parametrize("name", ["full", "quarter_shift", "short", "uneven", "limited", "half_fan"])
def test_the_middle_plane_is_fbp_of_the_fan(name, x64):
    cone = (SCANS | {"limited": _cone(np.arange(60) * np.pi / 60)})[name]
    flat = replace(cone, rows=1)
    fan = Fan(cone.angles, 200.0, 300.0, cone.columns, cone.spacing[1], cone.offset[1])
    sinogram = jnp.asarray(line_integrals(_phantom(), *flat.rays())[..., None], jnp.result_type(float))
    volume = fdk(ConeBeam(VolumeGrid((1, 34, 36)), flat), sinogram, "shepp-logan", 0.8)
    image = fbp(FanBeam(ImageGrid((34, 36)), fan), sinogram[:, 0], "shepp-logan", 0.8)
    np.testing.assert_allclose(volume[0], image, atol=1e-10)


def test_the_middle_plane_of_shepp_logan_reaches_the_floors():
    """Half a decibel below parallel beams of the same sampling: 180 views over pi, 128 pixels."""
    unit = shepp_logan_ellipsoids(64.0)
    phantom = Ellipsoids(unit.amplitudes, unit.centres, unit.shapes * (1, 1, 0.1))
    geometry = Cone(np.arange(360) * np.pi / 180, 600.0, 900.0, 1, 185, (1.5, 1.5))
    truth = raster(phantom, (1, 128, 128), (1.0,) * 3, 8)[0, ..., 0]
    for name, floor in (("ram-lak", 31.6), ("hann", 24.8)):
        volume = _reconstruct(geometry, VolumeGrid((1, 128, 128)), phantom, filter=name)[0]
        assert -10 * np.log10(np.mean((volume - truth) ** 2)) > floor


def test_it_is_linear_and_can_be_differentiated():
    operator = ConeBeam(VolumeGrid((2, 6, 6), 4.0), Cone(FULL[::20], 200.0, 300.0, 3, 12, (6.0, 6.0)))
    y, z = jax.random.normal(jax.random.key(0), (2, *operator.range.shape))
    gradient = jax.grad(lambda y: jnp.vdot(fdk(operator, y), jnp.ones(operator.domain.shape)))
    np.testing.assert_allclose(jnp.vdot(gradient(y), z), jnp.sum(fdk(operator, z)), rtol=1e-4)


@pytest.mark.parametrize(
    "geometry, words",
    [
        (Helical(FULL, 200.0, 300.0, 5, 20, (2.0, 2.0), pitch=10.0), "circular Cone"),
        (Cone(FULL, 200.0, 300.0, 5, 20, (2.0, 2.0), tilt=(0.1, 0.0, 0.0)), "circular Cone"),
        (Cone(FULL, 200.0, 300.0, 5, 20, (2.0, 2.0)).vector(), "circular Cone"),
        (Cone(SHORT, 200.0, 300.0, 5, 20, (2.0, 2.0), (0.0, 8.0)), "full circle"),
        (Cone(FULL, 200.0, 300.0, 5, 20, (2.0, 2.0), (0.0, 21.0)), "centre of rotation"),
    ],
)
def test_other_geometries_are_refused(geometry, words):
    operator = ConeBeam(VolumeGrid((4, 16, 16)), geometry)
    with pytest.raises(ValueError, match=words):
        fdk(operator, jnp.zeros(operator.range.shape))


def test_wrong_projections_or_windows_are_refused():
    operator = ConeBeam(VolumeGrid((4, 16, 16)), Cone(FULL, 200.0, 300.0, 5, 20, (2.0, 2.0)))
    with pytest.raises(ValueError, match="needs one measurement"):
        fdk(operator, jnp.zeros((5, 20, 120, 1)))
    with pytest.raises(ValueError, match="got a subset"):
        fdk(ConeBeam(operator.grid, operator.geometry, 2).subset(0), jnp.zeros((60, 5, 20, 1)))

"""Geometries in three dimensions: their rays against the formulas, and wrong ones refused."""

import numpy as np
import pytest

from pgm_jax.operators.ct.geometry import Fan
from pgm_jax.operators.ct.geometry3d import Cone, Helical, Vector, VolumeGrid

ANGLES = np.array([0.0, 0.3, 2.0, -1.0])
SIZES = dict(source_to_axis=500.0, source_to_detector=900.0, rows=3, columns=5, spacing=(2.0, 1.5))


def test_the_middle_row_of_a_cone_is_a_fan():
    cone = Cone(ANGLES, **SIZES, offset=(0.0, 4.0))
    fan = Fan(ANGLES, 500.0, 900.0, 5, 1.5, 4.0)
    lines = fan.lines(np.arange(5))
    for point in cone.rays():
        # Source and pixel both lie on the line of the fan.
        row = point[:, point.shape[1] // 2]
        np.testing.assert_allclose(row[..., 0] * lines.x + row[..., 1] * lines.y, lines.t, atol=1e-9)
        np.testing.assert_allclose(row[..., 2], 0, atol=1e-12)


def test_offsets_are_millimetres_on_the_detector():
    centred, shifted = (Cone(ANGLES, **SIZES, offset=o) for o in ((0.0, 0.0), (7.0, 1.5 / 4)))
    u = np.stack([-np.sin(ANGLES), np.cos(ANGLES), 0 * ANGLES], -1)
    move = shifted.rays()[1] - centred.rays()[1]
    expected = np.broadcast_to((u * 1.5 / 4 + [0, 0, 7.0])[:, None, None], move.shape)
    np.testing.assert_allclose(move, expected, atol=1e-9)


def test_a_helix_rises_by_its_pitch_a_turn():
    angles = np.arange(33) * np.pi / 8
    path = Helical(angles, **SIZES, pitch=30.0, start=-50.0)
    sources, pixels = path.rays()
    np.testing.assert_allclose(sources[::16, 0, 0, 2], [-50.0, -20.0, 10.0])
    # A turn later source and detector are the same but for the height.
    for points in (sources, pixels):
        rise = np.broadcast_to([0, 0, 30.0], points[16:].shape)
        np.testing.assert_allclose(points[16:] - points[:-16], rise, atol=1e-9)
    centred = Helical(angles, **SIZES, pitch=30.0).heights()
    np.testing.assert_allclose(centred[[0, -1]], [-30.0, 30.0])


def test_tilts_turn_the_detector_about_its_centre():
    plain = Cone(ANGLES, **SIZES).vector().vectors
    u, v = plain[:, 2] / 1.5, plain[:, 3] / 2.0
    normal = np.cross(u, v)
    c, s = np.cos(0.2), np.sin(0.2)
    # About the normal u turns towards v; about u, v towards the normal; about v, the normal towards u.
    expected = [(c * u + s * v, c * v - s * u), (u, c * v + s * normal), (c * u - s * normal, v)]
    for tilt, (new_u, new_v) in zip(np.eye(3) * 0.2, expected, strict=True):
        turned = Cone(ANGLES, **SIZES, tilt=tuple(tilt)).vector().vectors
        np.testing.assert_allclose(turned[:, :2], plain[:, :2])
        np.testing.assert_allclose(turned[:, 2], 1.5 * new_u, atol=1e-12)
        np.testing.assert_allclose(turned[:, 3], 2.0 * new_v, atol=1e-12)


def test_geometries_are_equal_by_value():
    assert Cone(ANGLES, **SIZES) == Cone(ANGLES.copy(), **SIZES)
    assert hash(Cone(ANGLES, **SIZES).vector()) == hash(Cone(ANGLES, **SIZES).vector())
    assert Cone(ANGLES, **SIZES) != Cone(ANGLES + 1e-9, **SIZES)
    assert Helical(ANGLES * 0, **SIZES) != Cone(ANGLES * 0, **SIZES)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: Cone(np.arange(360.0), **SIZES), "np.deg2rad"),
        (lambda: Helical(np.arange(720.0), **SIZES, pitch=10.0), "np.deg2rad"),
        (lambda: Cone([[0.0]], **SIZES), r"angles of shape \(views,\)"),
        (lambda: Cone([np.nan], **SIZES), "angles holds a value that is not finite"),
        (lambda: Cone([0.0], 900.0, 500.0, 3, 5, (1.0, 1.0)), "exchanged"),
        (lambda: Cone([0.0], 500.0, 900.0, 0, 5, (1.0, 1.0)), "one detector row"),
        (lambda: Cone([0.0], 500.0, 900.0, 3, -1, (1.0, 1.0)), "one detector row"),
        (lambda: Cone([0.0], 500.0, 900.0, 3, 5, (1.0, -1.0)), "spacing > 0"),
        (lambda: Cone([0.0], 500.0, 900.0, 3, 5, (1.0,)), "spacing needs 2 numbers"),
        (lambda: Helical([0.0], **SIZES, pitch=np.inf), "pitch holds a value that is not finite"),
        (lambda: Vector(np.ones((2, 3, 3)), 3, 5), r"\(views, 4, 3\)"),
        (lambda: Vector(np.full((1, 4, 3), np.nan), 3, 5), "not finite"),
        (lambda: Vector([[[9, 0, 0], [-9, 0, 0], [0, 1, 0], [0, 2, 0]]], 3, 5), "parallel or zero"),
        (lambda: Vector([[[0, 9, 0], [0, -9, 0], [0, 1, 0], [0, 0, 1]]], 3, 5), "plane of its detector"),
        (lambda: VolumeGrid((4, 4)), "depth, height, width"),
        (lambda: VolumeGrid((4, 4, 4), (1.0, 1.0, 0.0)), "dz, dy, dx"),
    ],
)
def test_wrong_geometries_say_what_is_needed(call, words):
    with pytest.raises(ValueError, match=words):
        call()

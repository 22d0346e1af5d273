"""Image grids and geometries: conventions, and refusals that say how to mend what was given."""

import numpy as np
import pytest

from pgm_jax.operators.ct import Fan, FanBeam, ImageGrid, Parallel, ParallelBeam

ANGLES = np.linspace(0, np.pi, 4)


def test_parallel_rays_at_angle_zero_are_columns():
    lines = Parallel(np.zeros(1), 4, spacing=2.0, offset=0.5).lines(np.arange(4))
    np.testing.assert_allclose(lines.t[0], [-2.5, -0.5, 1.5, 3.5])
    np.testing.assert_allclose((lines.x[0], lines.y[0]), (np.ones(4), np.zeros(4)), atol=1e-15)


@pytest.mark.parametrize("detector", ["flat", "arc"])
def test_fan_rays_pass_through_source_and_detector(detector):
    fan = Fan(ANGLES, 50.0, 80.0, 9, spacing=3.0, offset=1.0, detector=detector)
    lines = fan.lines(np.arange(9))
    e = np.stack([np.cos(ANGLES), np.sin(ANGLES)])
    u = np.stack([-e[1], e[0]])
    s = (np.arange(9) - 4) * 3.0 + 1.0
    if detector == "flat":
        points = (50 - 80) * e[:, :, None] + u[:, :, None] * s
    else:
        points = 50 * e[:, :, None] + 80 * (u[:, :, None] * np.sin(s / 80) - e[:, :, None] * np.cos(s / 80))
    for x, y in (50 * e[:, :, None], points):
        np.testing.assert_allclose(lines.x * x + lines.y * y, lines.t, atol=1e-12)
    np.testing.assert_allclose(lines.x**2 + lines.y**2, 1.0)


def test_fan_at_a_great_distance_is_parallel():
    far = Fan(ANGLES, 1e7, 1e7, 9, spacing=1.3, offset=0.2).lines(np.arange(9))
    parallel = Parallel(ANGLES + np.pi / 2, 9, 1.3, 0.2).lines(np.arange(9))
    np.testing.assert_allclose(far, parallel, atol=1e-5)


def test_geometries_compare_by_value():
    assert Parallel(ANGLES, 5) == Parallel(ANGLES.copy(), 5) != Parallel(ANGLES + 0.1, 5)
    assert hash(Parallel(ANGLES, 5)) == hash(Parallel(ANGLES.copy(), 5))
    assert ImageGrid((4, 5), 2.0) == ImageGrid((4, 5), (2.0, 2.0))


GRID, GEOMETRY = ImageGrid((8, 8)), Parallel(ANGLES, 8)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: ImageGrid((8, 0)), "shape"),
        (lambda: ImageGrid((8, 8), -1.0), "spacing"),
        (lambda: ImageGrid((8, 8), (1.0, np.nan)), "spacing"),
        (lambda: Parallel(np.arange(180.0), 8), "deg2rad"),
        (lambda: Parallel(np.array([0.0, np.nan]), 8), "finite"),
        (lambda: Parallel(np.array(0.3), 8), "shape"),
        (lambda: Parallel(np.zeros(0), 8), "shape"),
        (lambda: Parallel(ANGLES, 0), "integer"),
        (lambda: Parallel(ANGLES, 8, -1.0), "spacing"),
        (lambda: Parallel(ANGLES, 8, 1.0, np.inf), "offset"),
        (lambda: Fan(np.arange(360.0), 50.0, 80.0, 8), "deg2rad"),
        (lambda: Fan(ANGLES, 80.0, 50.0, 8), "exchanged"),
        (lambda: Fan(ANGLES, 50.0, 80.0, 8, detector="round"), "flat"),
        (lambda: Fan(ANGLES, 50.0, 80.0, 8, spacing=40.0, detector="arc"), "arc length"),
        (lambda: FanBeam(ImageGrid((100, 100)), Fan(ANGLES, 50.0, 80.0, 8)), "inside the image"),
        (lambda: FanBeam(GRID, GEOMETRY), "Fan geometry"),
        (lambda: ParallelBeam(GRID, Fan(ANGLES, 50.0, 80.0, 8)), "Parallel geometry"),
        (lambda: ParallelBeam(GRID, GEOMETRY, "line"), "footprint"),
        (lambda: ParallelBeam(GRID, GEOMETRY, subsets=5), "subsets"),
        (lambda: ParallelBeam(GRID, GEOMETRY, channels=0), "channel"),
        (lambda: ParallelBeam(GRID, Parallel(ANGLES, 8, 1e-3)), "all lengths of the geometry in mm"),
        (lambda: FanBeam(ImageGrid((8, 8), 1e-3), Fan(ANGLES, 50.0, 80.0, 8)), "geometry in mm"),
        (lambda: FanBeam(GRID, Fan(ANGLES, 6.0, 6.0, 1, spacing=40.0), "strip"), "narrower bins"),
        (lambda: ParallelBeam(GRID, GEOMETRY)(np.zeros((8, 9, 1))), "image of shape"),
        (lambda: ParallelBeam(GRID, GEOMETRY).adjoint(np.zeros((2, 4, 8, 1))), "sinogram of shape"),
    ],
)
def test_wrong_input_is_refused_in_one_line(make, words):
    with pytest.raises(ValueError, match=words) as error:
        make()
    assert "\n" not in str(error.value)

"""Cone beam against a ray-by-ray matrix, closed forms, its own special cases, and every transform."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax.data.ellipsoids import ellipsoids, line_integrals, raster
from pgm_jax.operators import adjoint_gap
from pgm_jax.operators.ct.cone import ConeBeam
from pgm_jax.operators.ct.fan import FanBeam
from pgm_jax.operators.ct.geometry import Fan, ImageGrid
from pgm_jax.operators.ct.geometry3d import Cone, Helical, Vector, VolumeGrid

CIRCLE = np.arange(5) * 2 * np.pi / 5


def _cone(**changes):
    scan = {"angles": CIRCLE, "source_to_axis": 20.0, "source_to_detector": 30.0, "rows": 4, "columns": 7}
    return Cone(**scan | {"spacing": (1.3, 1.4)} | changes)


def _flipped(cone):
    """The same detector read from the other corner."""
    vectors = cone.vector().vectors.copy()
    vectors[:, 2:] *= -1
    return Vector(vectors, cone.rows, cone.columns)


def _free_vectors(views, rows, columns):
    """Sources all around the volume, detectors askew: every axis drives some rays."""
    rng = np.random.default_rng(0)
    out = rng.normal(size=(views, 3))
    out /= np.linalg.norm(out, axis=-1, keepdims=True)
    u = np.cross(out, rng.normal(size=(views, 3)))
    u /= np.linalg.norm(u, axis=-1, keepdims=True)
    v = 1.2 * np.cross(out, u) + 0.1 * rng.normal(size=(views, 3))
    return Vector(np.stack([20 * out, -14 * out + rng.normal(size=(views, 3)), 1.3 * u, v], 1), rows, columns)


CASES = {
    # Angles 0, 45, 90, ... degrees: ties between driving axes.
    "circle_ties": lambda: (VolumeGrid((4, 5, 6)), _cone(angles=np.arange(8) * np.pi / 4)),
    "circle_odd": lambda: (
        VolumeGrid((5, 5, 3), (1.2, 1.0, 0.9)),
        _cone(source_to_detector=40.0, rows=5, columns=8, spacing=(1.3, 1.1), offset=(0.4, 0.9)),
    ),
    "truncated": lambda: (VolumeGrid((6, 6, 6)), _cone(rows=2, columns=3, offset=(1.0, -2.0))),
    "one_view": lambda: (VolumeGrid((3, 4, 5)), _cone(angles=[0.6])),
    "one_slice": lambda: (VolumeGrid((1, 5, 6)), _cone(rows=3, columns=8, spacing=(0.7, 1.4))),
    "coarse_detector": lambda: (VolumeGrid((4, 4, 4)), _cone(rows=2, columns=3, spacing=(4.0, 3.7))),
    "fine_detector": lambda: (VolumeGrid((3, 3, 3)), _cone(rows=9, columns=10, spacing=(0.4, 0.5))),
    "virtual_detector": lambda: (VolumeGrid((4, 4, 4)), _cone(source_to_detector=20.0, spacing=(1.1, 0.9))),
    "rows_down": lambda: (VolumeGrid((4, 4, 4)), _flipped(_cone())),
    "helix": lambda: (
        VolumeGrid((6, 5, 5), (0.8, 1.0, 1.0)),
        Helical(np.arange(9) * 0.7, 20.0, 30.0, 3, 8, (1.3, 0.9), (0.4, 0.9), pitch=4.0),
    ),
    "tilted": lambda: (VolumeGrid((4, 5, 6)), _cone(tilt=(0.2, 0.3, -0.1))),
    "free": lambda: (VolumeGrid((5, 4, 5), (0.8, 1.0, 1.1)), _free_vectors(7, 4, 5)),
    "free_truncated": lambda: (VolumeGrid((5, 6, 5), (0.3, 1.0, 1.0)), _free_vectors(5, 1, 4)),
}
_QUICK = {"circle_ties", "truncated", "one_view", "one_slice", "helix", "free"}
MATRICES = [name if name in _QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
SEPARABLE = set(CASES) - {"tilted", "free", "free_truncated"}


@cache
def _operator(name, x64, subsets=1):
    with jax.enable_x64(x64):
        return ConeBeam(*CASES[name](), subsets)


def _ray_weights(grid, source, pixel):
    """Joseph's weights (nz, ny, nx) of one ray, plane by plane."""
    shape, spacing = grid.shape, np.array(grid.spacing)
    s, d = source[::-1] / spacing + (np.array(shape) - 1) / 2, (pixel - source)[::-1] / spacing
    leads = np.abs(d) * (1, 1 + 2e-9, 1 + 1e-9)  # y before x before z where they tie
    axis = int(np.argmax(leads))
    weights = np.zeros(shape)
    for plane in range(shape[axis]):
        r = s + (plane - s[axis]) / d[axis] * d
        near = [np.maximum(0, 1 - np.abs(r[a] - np.arange(shape[a]))) for a in range(3)]
        near[axis] = (np.arange(shape[axis]) == plane).astype(float)
        weights += np.einsum("i,j,k->ijk", *near)
    return weights * np.linalg.norm(pixel - source) / abs(d[axis])


def _reference(grid, geometry):
    """The matrix of an operator, ray by ray in float64."""
    sources, pixels = geometry.rays()
    rays = zip(np.broadcast_to(sources, pixels.shape).reshape(-1, 3), pixels.reshape(-1, 3), strict=True)
    return np.stack([_ray_weights(grid, *ray).ravel() for ray in rays])


def _matrix(apply, domain):
    """Columns of a linear map through one call with the unit vectors as slices."""
    size = int(np.prod(domain.shape))
    units = jnp.eye(size, dtype=domain.dtype).reshape(size, *domain.shape)
    return np.asarray(jax.vmap(apply)(units)).reshape(size, -1).T


def _normal(seed, space):
    return jnp.asarray(np.random.default_rng(seed).normal(size=space.shape), space.dtype)


@pytest.mark.parametrize("name", MATRICES)
def test_every_element_of_both_directions(name, x64):
    operator, reference = _operator(name, True), _reference(*CASES[name]())
    assert operator.separable == (name in SEPARABLE)
    np.testing.assert_allclose(_matrix(operator, operator.domain), reference, atol=1e-12 * reference.max())
    np.testing.assert_allclose(
        _matrix(operator.adjoint, operator.range), reference.T, atol=1e-12 * reference.max()
    )


@pytest.mark.parametrize("name", ["circle_ties", pytest.param("free", marks=pytest.mark.slow)])
def test_every_element_in_single_precision(name):
    operator = _operator(name, False)
    forward, backward = _matrix(operator, operator.domain), _matrix(operator.adjoint, operator.range)
    np.testing.assert_allclose(forward, _reference(*CASES[name]()), atol=5e-6)
    np.testing.assert_allclose(backward.T, forward, atol=2e-6)


@pytest.mark.parametrize("tilt", [(0.0, 0.0, 0.0), (0.1, 0.2, -0.1)])
@pytest.mark.parametrize("x64", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_dot_test(tilt, x64):
    with jax.enable_x64(x64):
        cone = Cone(np.arange(9) * 0.7, 100.0, 160.0, 17, 22, (2.0, 2.1), (3.0, 5.0), tilt)
        operator = ConeBeam(VolumeGrid((14, 19, 24), (1.5, 1.1, 1.0)), cone)
        gap = jax.jit(adjoint_gap)
        assert max(float(gap(operator, jax.random.key(seed))) for seed in range(5)) < (1e-12 if x64 else 1e-6)


def test_single_precision_at_a_clinical_distance():
    cone = Cone(np.arange(3) * 1.1, 1000.0, 1500.0, 24, 128, (3.0, 1.5))
    grid = VolumeGrid((16, 128, 128))
    x = np.random.default_rng(0).normal(size=(16, 128, 128, 1))
    single = np.asarray(ConeBeam(grid, cone)(jnp.asarray(x, jnp.float32)))
    with jax.enable_x64(True):
        double = np.asarray(ConeBeam(grid, cone)(jnp.asarray(x)))
    assert np.linalg.norm(single - double) < 2e-5 * np.linalg.norm(double)


def _over_the_top(a):
    """A source that climbs from the x axis to the z axis."""
    zero = 0 * a
    out, up = np.stack([np.cos(a), zero, np.sin(a)], -1), np.stack([-np.sin(a), zero, np.cos(a)], -1)
    return np.stack([200 * out, -100 * out, np.stack([zero, zero + 5, zero], -1), 5 * up], 1)


SCANS = {
    "cone": Cone(np.arange(4) * 1.1, 200.0, 300.0, 20, 24, (5.0, 5.0), (4.0, -7.0)),
    "tilted": Cone(np.arange(4) * 1.1, 200.0, 300.0, 20, 24, (5.0, 5.0), (4.0, -7.0), (0.1, 0.15, -0.2)),
    "helix": Helical(np.arange(12) * 0.7, 200.0, 300.0, 12, 24, (5.0, 5.0), pitch=20.0),
    "over_the_top": Vector(_over_the_top(np.array([0.0, 0.5, 1.0, 1.5])), 20, 24),
}


@pytest.mark.parametrize("name", SCANS)
def test_a_gaussian_blob_converges_at_second_order(name):
    """Along a line at distance d from c, `exp(-|r - c|^2 / 2 s^2)` sums to `s sqrt(2 pi) exp(-d^2 / 2 s^2)`."""
    centre, width = np.array([4.0, -6.0, 3.0]), 7.0
    sources, pixels = SCANS[name].rays()
    direction = (pixels - sources) / np.linalg.norm(pixels - sources, axis=-1, keepdims=True)
    square = np.sum(np.cross(sources - centre, direction) ** 2, -1)
    exact = width * np.sqrt(2 * np.pi) * np.exp(-square / (2 * width**2))
    errors = []
    for n in (16, 32):
        z = y = x = (np.arange(n) - (n - 1) / 2) * 64 / n
        r = (z[:, None, None] - centre[2]) ** 2 + (y[:, None] - centre[1]) ** 2 + (x - centre[0]) ** 2
        volume = jnp.asarray(np.exp(-r / (2 * width**2))[..., None], jnp.float32)
        measured = np.asarray(ConeBeam(VolumeGrid((n, n, n), 64 / n), SCANS[name])(volume))[..., 0]
        errors.append(np.linalg.norm(measured - exact) / np.linalg.norm(exact))
    assert errors[1] < 0.012 and 3.5 < errors[0] / errors[1] < 4.5


@pytest.mark.parametrize("name", SCANS)
def test_projections_of_ellipsoids(name):
    turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(2, 3, 3)))
    half_axes, centres = [[16.0, 10, 13], [6, 8, 5]], [[3.0, 6, -3], [-6, 3, 5]]
    phantom = ellipsoids([1.0, 0.5], half_axes, centres, turn * np.linalg.det(turn)[:, None, None])
    exact = line_integrals(phantom, *SCANS[name].rays())
    errors = []
    for n in (16, 32):
        volume = jnp.asarray(raster(phantom, (n, n, n), (64 / n,) * 3, 4))
        measured = np.asarray(ConeBeam(VolumeGrid((n, n, n), 64 / n), SCANS[name])(volume))[..., 0]
        errors.append(np.linalg.norm(measured - exact) / np.linalg.norm(exact))
    # Edges limit the order to one.
    assert errors[1] < 0.08 and errors[1] < 0.6 * errors[0]


def test_both_ways_of_interpolating_agree(x64):
    grid, cone = VolumeGrid((7, 8, 9)), Cone(CIRCLE, 20.0, 30.0, 5, 9, (1.3, 1.4))
    turned = Cone(CIRCLE, 20.0, 30.0, 5, 9, (1.3, 1.4), tilt=(1e-10, 0.0, 0.0))
    operator, general = ConeBeam(grid, cone), ConeBeam(grid, turned)
    assert operator.separable and not general.separable
    x, y = _normal(0, operator.domain), _normal(1, operator.range)
    np.testing.assert_allclose(operator(x), general(x), atol=1e-7)
    np.testing.assert_allclose(operator.adjoint(y), general.adjoint(y), atol=1e-7)


def test_a_steep_cone_is_driven_by_z(x64):
    grid, cone = VolumeGrid((3, 3, 3)), Cone(CIRCLE, 8.0, 9.0, 25, 6, (1.0, 1.4))
    operator, reference = ConeBeam(grid, cone), _reference(grid, cone)
    assert not operator.separable
    np.testing.assert_allclose(_matrix(operator, operator.domain), reference, atol=1e-12)
    np.testing.assert_allclose(_matrix(operator.adjoint, operator.range), reference.T, atol=1e-12)


def test_special_cases_are_the_general_one(x64):
    grid, arguments = VolumeGrid((5, 6, 6)), (CIRCLE * 0.6, 20.0, 30.0, 4, 7, (1.3, 1.4), (0.2, 0.3))
    operator = ConeBeam(grid, Cone(*arguments))
    x = _normal(0, operator.domain)
    same = [Helical(*arguments, pitch=0.0), Cone(*arguments).vector()]
    for geometry in same:
        np.testing.assert_array_equal(ConeBeam(grid, geometry)(x), operator(x))
    # A helix seen from its own height is a circle: lift the volume with the source.
    lifted = Helical(*arguments, pitch=0.0, start=1.0)
    up = jnp.concatenate([jnp.zeros_like(x[:1]), x[:-1]]), jnp.concatenate([x[:-1], jnp.zeros_like(x[:1])])
    np.testing.assert_allclose(ConeBeam(grid, lifted)(up[0]), operator(up[1]), atol=1e-12)


def test_the_middle_row_is_a_fan_beam(x64):
    angles = np.arange(6) * 0.9
    cone = ConeBeam(
        VolumeGrid((1, 7, 8), (2.0, 1.0, 1.1)), Cone(angles, 20.0, 30.0, 1, 9, (1.0, 1.4), (0.0, 0.6))
    )
    fan = FanBeam(ImageGrid((7, 8), (1.0, 1.1)), Fan(angles, 20.0, 30.0, 9, 1.4, 0.6))
    x, y = _normal(0, fan.domain), _normal(1, fan.range)
    np.testing.assert_allclose(cone(x[None])[:, 0], fan(x), atol=1e-11)
    np.testing.assert_allclose(cone.adjoint(y[:, None])[0], fan.adjoint(y), atol=1e-11)


def test_a_quarter_turn_of_the_volume_is_a_quarter_turn_of_the_scan(x64):
    grid, angles = VolumeGrid((4, 6, 6)), np.array([0.1, 0.7, 1.3])
    x = _normal(0, ConeBeam(grid, Cone(angles, 20.0, 30.0, 4, 7, (1.3, 1.4))).domain)
    # x -> -y, y -> x: columns to rows.
    turned = jnp.flip(jnp.swapaxes(x, 1, 2), 2)
    first, second = (
        ConeBeam(grid, Cone(a, 20.0, 30.0, 4, 7, (1.3, 1.4))) for a in (angles, angles + np.pi / 2)
    )
    np.testing.assert_allclose(second(turned), first(x), atol=1e-12)


def test_weights_are_not_negative_and_nothing_in_is_nothing_out(x64):
    operator = _operator("free", True)
    assert np.all(np.asarray(operator.row_sums()) >= 0) and np.all(_reference(*CASES["free"]()) >= 0)
    np.testing.assert_array_equal(operator(jnp.zeros(operator.domain.shape)), 0)
    np.testing.assert_array_equal(operator.adjoint(jnp.zeros(operator.range.shape)), 0)
    reference = _reference(*CASES["free"]())
    np.testing.assert_allclose(np.ravel(operator.row_sums()), reference.sum(1), atol=1e-11)
    np.testing.assert_allclose(np.ravel(operator.column_sums()), reference.sum(0), atol=1e-11)


@pytest.mark.parametrize("name", ["circle_odd", pytest.param("tilted", marks=pytest.mark.slow)])
def test_subsets_make_up_the_whole(name, x64):
    operator = _operator(name, True, 2)
    x, y = _normal(0, operator.domain), _normal(1, operator.range)
    parts = [operator.subset(i) for i in range(2)]
    for i, part in enumerate(parts):
        assert part.range.shape[0] == 3
        np.testing.assert_allclose(part(x), operator.restrict(operator(x), i), atol=1e-12)
    np.testing.assert_array_equal(parts[1](x)[2], 0)
    total = sum(part.adjoint(operator.restrict(y, i)) for i, part in enumerate(parts))
    np.testing.assert_allclose(total, operator.adjoint(y), atol=1e-12)
    traced = jax.jit(lambda a, i, x: a.subset(i)(x))(operator, 1, x)
    np.testing.assert_allclose(traced, parts[1](x), atol=1e-12)
    # A loop over subsets is one program, as ordered-subset solvers need.
    _, looped = jax.lax.scan(lambda c, i: (c, operator.subset(i)(x)), 0, jnp.arange(2))
    np.testing.assert_allclose(looped, jnp.stack([part(x) for part in parts]), atol=1e-12)


@pytest.mark.parametrize("name", ["one_view", pytest.param("free", marks=pytest.mark.slow)])
def test_transforms(name, x64):
    operator = _operator(name, True)
    x, y = _normal(0, operator.domain), _normal(1, operator.range)
    forward, backward = operator(x), operator.adjoint(y)

    def close(a, b):
        np.testing.assert_allclose(a, b, atol=1e-11)

    close(jax.jvp(operator, (x,), (2 * x,))[1], 2 * forward)
    close(jax.vjp(operator, x)[1](y)[0], backward)
    transpose = lambda y: jax.linear_transpose(operator, x)(y)[0]
    close(transpose(y), backward)
    close(jax.linear_transpose(transpose, y)(x)[0], forward)
    objective = lambda x: 0.5 * jnp.sum((operator(x) - y) ** 2)
    close(jax.grad(objective)(x), operator.adjoint(forward - y))
    close(jax.jvp(jax.grad(objective), (x,), (x,))[1], operator.adjoint(forward))
    close(jax.grad(jax.checkpoint(objective))(x), operator.adjoint(forward - y))

    def descend(x):
        return jax.lax.scan(lambda z, _: (z - 1e-3 * jax.grad(objective)(z), None), x, length=2)[0]

    unrolled = lambda v: v - 1e-3 * operator.adjoint(operator(v))
    close(jax.vjp(descend, x)[1](x)[0], unrolled(unrolled(x)))


def test_hessian_is_twice_the_gram_matrix(x64):
    operator = ConeBeam(VolumeGrid((2, 3, 3)), Cone(CIRCLE, 20.0, 30.0, 2, 4, (1.3, 1.4)))
    matrix = _reference(operator.grid, operator.geometry)
    flat = lambda v: jnp.sum(operator(v.reshape(operator.domain.shape)) ** 2)
    np.testing.assert_allclose(jax.hessian(flat)(jnp.ones(18)), 2 * matrix.T @ matrix, atol=1e-10)


def test_vmap_joins_the_slices():
    operator = _operator("circle_odd", False)
    xs = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, *operator.domain.shape)), jnp.float32)
    loop = np.stack([[operator(x) for x in row] for row in xs])
    np.testing.assert_allclose(jax.vmap(jax.vmap(operator))(xs), loop, atol=1e-5)
    flops = [
        jax.jit(f).lower(x).compile().cost_analysis()["flops"]
        for f, x in ((operator, xs[0, 0]), (jax.vmap(operator), xs[0]))
    ]
    # Three volumes share the weights and the loops: less than three times the work of one.
    assert flops[1] < 2.5 * flops[0]


@pytest.mark.parametrize("tilt", [(0.0, 0.0, 0.0), (0.1, 0.0, 0.0)])
def test_memory_is_a_few_volumes(tilt):
    """Compiled, not run: 256^3 and 360 views need 0.6 GB beside input and output, far from the 8 GB allowed."""
    n, views = 256, 360
    cone = Cone(np.arange(views) * 2 * np.pi / views, 4.0 * n, 6.0 * n, n, 3 * n // 2, (1.4, 1.4), tilt=tilt)
    operator = ConeBeam(VolumeGrid((n, n, n)), cone)
    volume, data = 4 * n**3, 4 * views * n * 3 * n // 2
    for apply, space in ((ConeBeam.__call__, operator.domain), (ConeBeam.adjoint, operator.range)):
        memory = jax.jit(apply).lower(operator, space).compile().memory_analysis()
        # Copies of the volume by driving axis, padded, and of one view at a time.
        assert memory.temp_size_in_bytes < 7 * volume + 16 * data / views


def test_shapes_are_checked_while_tracing():
    operator = _operator("one_view", False)
    with pytest.raises(ValueError, match="jax.vmap"):
        jax.jit(operator)(jnp.ones((2, *operator.domain.shape)))
    with pytest.raises(ValueError, match="needs one measurement"):
        operator.adjoint(jnp.ones((1, 7, 4, 1)))


@pytest.mark.parametrize(
    "grid, geometry, subsets, words",
    [
        (VolumeGrid((8, 8, 8)), _cone(source_to_axis=0.5, source_to_detector=0.9), 1, "reaches the source"),
        (VolumeGrid((8, 8, 8)), _cone(spacing=(2e-3, 2e-3)), 1, "detector pixels"),
        (VolumeGrid((8, 8, 8), 1e-3), _cone(), 1, "shadow is .* detector pixels wide"),
        (VolumeGrid((8, 8, 8)), _cone(offset=(0.0, 200.0)), 1, "no ray meets the volume"),
        (VolumeGrid((8, 8, 8)), _cone(), 6, "between 1 and 5 subsets"),
    ],
)
def test_wrong_units_say_what_is_needed(grid, geometry, subsets, words):
    with pytest.raises(ValueError, match=words):
        ConeBeam(grid, geometry, subsets)

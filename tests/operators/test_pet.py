"""Sinogram PET: adjoints, dense matrices, time of flight, list mode as its other form, subsets, sharding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from pgm_jax import operators as op
from pgm_jax.operators.ct.geometry import ImageGrid, Parallel
from pgm_jax.operators.ct.parallel import ParallelBeam
from pgm_jax.operators.emission.list_mode import ListModePET
from pgm_jax.operators.emission.pet import PET
from pgm_jax.operators.emission.psf import GaussianPSF
from pgm_jax.operators.emission.time_of_flight import TimeOfFlight

SHAPE, SPACING, BINS = (6, 5), (4.0, 3.0), 7
TOF = {"bins": 5, "bin_width": 6.0, "fwhm": 9.0}


def _angles(views):
    # Off the axes and the diagonals, where the driving axis of Joseph's method is a tie.
    return 0.11 + np.arange(views) * np.pi / views


def _beam(views=4, channels=1, subsets=1, footprint="joseph"):
    return ParallelBeam(
        ImageGrid(SHAPE, SPACING), Parallel(_angles(views), BINS, 3.5), footprint, subsets, channels
    )


def _pet(projector):
    rng = np.random.default_rng(0)
    lines = projector.projector if isinstance(projector, TimeOfFlight) else projector
    return PET.create(
        projector,
        attenuation=rng.uniform(0, 0.02, projector.domain.shape),
        normalisation=rng.uniform(0.3, 1, lines.range.shape),
        psf=GaussianPSF.create(projector.domain.shape, 5.0, SPACING),
    )


MAIN = {
    "pet": lambda: _pet(_beam(channels=2)),
    "pet with time of flight": lambda: _pet(TimeOfFlight.create(_beam(channels=2), **TOF)),
}
MORE = {
    "psf": lambda: GaussianPSF.create((5, 4, 6, 2), (0.0, 3.0, 8.0), 2.0),
    "time of flight": lambda: TimeOfFlight.create(_beam(channels=2), **TOF),
    "time of flight, strip": lambda: TimeOfFlight.create(_beam(3, footprint="strip"), **TOF),
    "time of flight, one view": lambda: TimeOfFlight.create(_beam(1), **TOF),
    "pet of a matrix": lambda: _pet(op.Matrix(jnp.ones((3, 30)), (6, 5, 1), (3,))),
}
CASES = [*MAIN, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)]


@pytest.mark.parametrize("name", CASES)
def test_dot_test_in_single_precision_of_pet(name):
    operator = (MAIN | MORE)[name]()
    gap = jax.jit(op.adjoint_gap)
    assert max(float(gap(operator, jax.random.key(seed))) for seed in range(5)) < 1e-6


@pytest.mark.parametrize("name", CASES)
def test_every_element_in_double_precision_of_pet(name, x64):
    operator = (MAIN | MORE)[name]()
    assert float(jax.jit(op.adjoint_gap)(operator, jax.random.key(3))) < 1e-12
    assert float(jax.jit(op.element_gap)(operator)) < 1e-12
    assert np.min(jax.jit(lambda a: a.matrix())(operator)) >= 0


def _every_line(geometry):
    """End points (views x bins, 2) of every ray of a sinogram, and the same with its time-of-flight bins."""
    angle, t = np.repeat(geometry.angles, geometry.bins)[:, None], geometry.lines(np.arange(geometry.bins)).t
    foot = t.reshape(-1, 1) * np.hstack([np.cos(angle), np.sin(angle)])
    along = 50 * np.hstack([-np.sin(angle), np.cos(angle)])
    return foot - along, foot + along


def test_listing_every_line_is_the_sinogram(x64):
    """Two implementations of one model: gathers in both directions per view, and per-event lines."""
    projector = _beam(5)
    starts, ends = _every_line(projector.geometry)
    events = ListModePET.create(starts, ends, (*SHAPE, 1), SPACING)
    np.testing.assert_allclose(events.matrix(), projector.matrix(), atol=1e-10)


def test_listing_every_line_and_bin_is_the_sinogram_with_time_of_flight(x64):
    timed = TimeOfFlight.create(_beam(5), **TOF)
    starts, ends = _every_line(timed.projector.geometry)
    tof = np.tile((np.arange(5) - 2) * 6.0, len(starts))
    starts, ends = (np.repeat(points, 5, axis=0) for points in (starts, ends))
    events = ListModePET.create(starts, ends, (*SHAPE, 1), SPACING, tof=tof, fwhm=9.0, bin_width=6.0)
    np.testing.assert_allclose(events.matrix(), timed.matrix(), atol=1e-10)


@pytest.mark.parametrize("footprint", ["joseph", "strip"])
def test_time_of_flight_bins_add_up_to_the_projection(footprint, x64):
    projector = _beam(channels=2, footprint=footprint)
    timed = TimeOfFlight.create(projector, bins=41, bin_width=4.0, fwhm=20.0)
    x = jnp.asarray(np.random.default_rng(0).uniform(size=projector.domain.shape))
    np.testing.assert_allclose(jax.jit(timed)(x).sum(2), projector(x), rtol=1e-9)


def test_a_point_is_seen_in_its_time_of_flight_bin(x64):
    """The bin of the largest share is where the point lies along (-sin th, cos th)."""
    n, angles = 21, np.array([0.3, 1.9])
    projector = ParallelBeam(ImageGrid((n, n), 2.0), Parallel(angles, 31, 2.0))
    timed = TimeOfFlight.create(projector, bins=21, bin_width=2.0, fwhm=3.0)
    point = np.zeros((n, n, 1))
    point[16, 13] = 1
    counts = np.asarray(timed(jnp.asarray(point)))[..., 0].sum(1)
    x, y = 3 * 2.0, 6 * 2.0
    along = -x * np.sin(angles) + y * np.cos(angles)
    positions = (np.arange(21) - 10) * 2.0
    np.testing.assert_allclose(counts @ positions / counts.sum(1), along, atol=1e-3)
    spread = counts @ positions**2 / counts.sum(1) - along**2
    np.testing.assert_allclose(spread, (3.0**2 / (8 * np.log(2))) + 2.0**2 / 12, rtol=3e-3)


def test_pet_is_its_factors_times_the_projection_of_the_blurred_image(x64):
    """Dense matrices of the parts, and Beer's law written out."""
    pet = _pet(_beam(channels=1))
    lines = np.asarray(pet.projector.matrix())
    rng = np.random.default_rng(0)
    mu, efficiency = rng.uniform(0, 0.02, (*SHAPE, 1)), rng.uniform(0.3, 1, (4, BINS, 1))
    factors = efficiency.ravel() * np.exp(-lines @ mu.ravel())
    expected = factors[:, None] * (lines @ np.asarray(pet.psf.matrix()))
    np.testing.assert_allclose(pet.matrix(), expected, atol=1e-12)
    timed = _pet(TimeOfFlight.create(_beam(channels=1), bins=41, bin_width=4.0, fwhm=20.0))
    x = jnp.asarray(rng.uniform(size=pet.domain.shape))
    np.testing.assert_allclose(timed(x).sum(2), pet(x), rtol=1e-9)


def test_the_point_spread_function_is_the_normal_law(x64):
    """Second moments and counts of a blurred point; a symmetric non-negative matrix of rows <= 1."""
    psf = GaussianPSF.create((25, 31, 1), (6.0, 9.0), (1.5, 2.0))
    point = np.zeros(psf.domain.shape)
    point[12, 15] = 1
    image = np.asarray(psf(jnp.asarray(point)))[..., 0]
    np.testing.assert_allclose(image.sum(), 1, rtol=1e-12)
    for axis, (width, step) in enumerate(((6.0, 1.5), (9.0, 2.0))):
        profile = image.sum(1 - axis)
        position = (np.arange(len(profile)) - len(profile) // 2) * step
        variance = width**2 / (8 * np.log(2)) + step**2 / 12
        np.testing.assert_allclose(profile @ position**2, variance, rtol=0.02)
    small = GaussianPSF.create((4, 3, 1), 6.0, 2.0)
    matrix = np.asarray(small.matrix())
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-15)
    assert matrix.min() > 0 and matrix.sum(1).max() <= 1


@pytest.mark.parametrize("timed", [False, True])
def test_subsets_of_pet_are_the_interleaved_views(timed):
    projector = _beam(6, subsets=1 if timed else 3)
    pet = _pet(TimeOfFlight.create(projector, **TOF, subsets=3) if timed else projector)
    x = jnp.asarray(np.random.default_rng(0).uniform(size=pet.domain.shape), jnp.float32)
    y = pet(x)

    @jax.jit
    def part(i):
        sub = pet.subset(i)
        return sub(x), pet.restrict(y, i), sub.adjoint(pet.restrict(y, i))

    parts = [part(i) for i in range(pet.subsets)]
    for i, (mine, rest, _) in enumerate(parts):
        np.testing.assert_allclose(mine, y[i::3], rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(rest, y[i::3])
    np.testing.assert_allclose(sum(p[2] for p in parts), pet.adjoint(y), rtol=1e-4)


@pytest.mark.parametrize("name", ["time of flight", "pet"])
def test_transforms_of_pet(name, x64):
    operator = (MAIN | MORE)[name]()
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 2, *operator.domain.shape)))
    y = jnp.asarray(rng.normal(size=operator.range.shape))
    apply = jax.jit(lambda a, x: a(x))
    looped = jnp.stack([jnp.stack([apply(operator, image) for image in row]) for row in x])
    np.testing.assert_allclose(jax.jit(jax.vmap(jax.vmap(operator)))(x), looped, atol=1e-12)
    pullback = jax.jit(lambda x, y: jax.vjp(operator, x)[1](y)[0])
    np.testing.assert_allclose(pullback(x[0, 0], y), jax.jit(operator.adjoint)(y), atol=1e-12)
    tangent = jax.jit(lambda x, v: jax.jvp(operator, (x,), (v,))[1])
    np.testing.assert_allclose(tangent(x[0, 0], x[0, 1]), looped[0, 1], atol=1e-12)


def test_the_gradient_by_the_factors_is_the_projection(x64):
    pet = _pet(_beam())
    x = jnp.asarray(np.random.default_rng(0).uniform(size=pet.domain.shape))
    gradient = jax.grad(lambda factors: jnp.sum(pet.replace(factors=factors)(x)))(pet.factors)
    np.testing.assert_allclose(gradient, pet.projector(pet.psf(x)), rtol=1e-12)


def test_views_sharded_over_devices_give_the_numbers_of_one_device():
    """Each device holds one subset of views; only the adjoint communicates, one sum of images."""
    pet = _pet(_beam(16, subsets=8))
    mesh = Mesh(np.asarray(jax.devices()), ("views",))
    split, whole = PartitionSpec("views"), PartitionSpec()
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.uniform(size=pet.domain.shape), jnp.float32)
    y = jnp.asarray(rng.uniform(size=pet.range.shape), jnp.float32)
    mine = lambda: jax.lax.axis_index("views")
    forward = jax.shard_map(
        lambda a, x: a.subset(mine())(x), mesh=mesh, in_specs=(whole, whole), out_specs=split
    )

    def pull(a, y):
        return jax.lax.psum(a.subset(mine()).adjoint(a.restrict(y, mine())), "views")

    ordered = lambda y: jnp.concatenate([y[i::8] for i in range(8)])
    found = jax.jit(forward)(pet, x)
    np.testing.assert_allclose(found, ordered(pet(x)), rtol=1e-5, atol=1e-5)
    adjoint = jax.shard_map(pull, mesh=mesh, in_specs=(whole, whole), out_specs=whole)
    compiled = jax.jit(adjoint).lower(pet, y).compile()
    np.testing.assert_allclose(compiled(pet, y), pet.adjoint(y), rtol=1e-5)
    text = compiled.as_text()
    assert text.count(" all-reduce(") == 1 and " all-gather(" not in text
    gradient = jax.jit(jax.grad(lambda x: 0.5 * jnp.sum(forward(pet, x) ** 2)))(x)
    np.testing.assert_allclose(gradient, pet.adjoint(pet(x)), rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: PET.create(_beam(), attenuation=np.full((6, 5, 1), 0.096)),
            "in 1/mm: divide by 10 if it is in",
        ),
        (lambda: PET.create(_beam(), attenuation=np.full((6, 5), 0.0096)), "needs the shape"),
        (lambda: PET.create(_beam(), normalisation=-np.ones((4, BINS, 1))), "normalisation has 28 negative"),
        (lambda: PET.create(_beam(), normalisation=np.ones((BINS, 4, 1))), "give one number a line"),
        (lambda: PET(_beam(), jnp.ones(BINS))(jnp.ones((6, 5, 1))), "build it with PET.create"),
        (lambda: TimeOfFlight.create(op.Identity((3,)), **TOF), "needs a ParallelBeam, got Identity"),
        (lambda: TimeOfFlight.create(_beam(), 3, 0.0, 9.0), "above 0"),
        (lambda: TimeOfFlight.create(_beam(5), **TOF, subsets=2), "2 subsets do not divide 5 views"),
        (lambda: GaussianPSF.create((4, 4, 1), (1.0, 2.0, 3.0), 1.0), "one fwhm and one spacing, or 2"),
        (lambda: GaussianPSF.create((4, 4, 1), -1.0, 1.0), "needs fwhm >= 0"),
    ],
)
def test_wrong_pet_geometry_is_refused_in_one_line(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)

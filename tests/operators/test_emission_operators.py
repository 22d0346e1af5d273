"""PET, list-mode PET and SPECT: adjoints, dense matrices, closed forms, and the transforms of JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec
from scipy import ndimage, special

from pgm_jax import operators as op
from pgm_jax.operators.emission.list_mode import ListModePET
from pgm_jax.operators.emission.rotation import rotate, rotate_adjoint
from pgm_jax.operators.emission.spect import SPECT


def _ring(seed, events, axes=2, radius=60.0):
    """Lines in every direction between points around a ring or a sphere, all of them near the centre."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(events, axes))
    points *= radius / np.linalg.norm(points, axis=-1, keepdims=True)
    return points, rng.uniform(-6, 6, points.shape) - points


def _list_mode(shape=(6, 5, 1), spacing=(4.0, 3.0), events=24, tof=False, subsets=1):
    starts, ends = _ring(0, events, len(shape) - 1)
    rng = np.random.default_rng(1)
    times = {"tof": rng.uniform(-12, 12, events), "fwhm": 9.0, "bin_width": 5.0} if tof else {}
    efficiency = rng.uniform(0.2, 1, events)
    return ListModePET.create(starts, ends, shape, spacing, efficiency=efficiency, subsets=subsets, **times)


def _spect(shape=(6, 5, 2), views=4, blur=True, attenuated=True, **options):
    angles = np.linspace(0.2, 0.2 + 2 * np.pi, views, endpoint=False)
    mu = np.random.default_rng(2).uniform(0, 0.02, shape) if attenuated else None
    if blur:
        options = {"radius": 40.0, "fwhm": 4.0, "growth": 0.05, **options}
    return SPECT.create(angles, shape, 4.0, attenuation=mu, **options)


MAIN = {
    "list mode": lambda: _list_mode((4, 7, 1), (2.0, 5.0)),
    "list mode, volume, time of flight": lambda: _list_mode((3, 6, 5, 1), (5.0, 4.0, 3.0), tof=True),
    "spect, narrow camera": lambda: _spect(bins=3),
    "spect, volume": lambda: _spect((3, 6, 5, 1), slice_spacing=5.0),
}
MORE = {
    "list mode, volume": lambda: _list_mode((3, 6, 5, 1), (5.0, 4.0, 3.0)),
    "list mode, time of flight": lambda: _list_mode(tof=True),
    "list mode, one event": lambda: _list_mode(events=1),
    "spect": _spect,
    "spect, plain": lambda: _spect(blur=False, attenuated=False),
    "spect, one view": lambda: _spect((5, 6, 1), views=1, bins=9),
    "spect, turning radius": lambda: _spect(radius=np.array([30.0, 40.0, 50.0, 60.0])),
}
CASES = [*MAIN, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)]


@pytest.mark.parametrize("name", CASES)
def test_dot_test_in_single_precision_of_emission(name):
    operator = (MAIN | MORE)[name]()
    gap = jax.jit(op.adjoint_gap)
    assert max(float(gap(operator, jax.random.key(seed))) for seed in range(5)) < 1e-6


@pytest.mark.parametrize("name", CASES)
def test_every_element_in_double_precision_of_emission(name, x64):
    operator = (MAIN | MORE)[name]()
    assert operator.domain.dtype == jnp.float64
    assert float(jax.jit(op.adjoint_gap)(operator, jax.random.key(3))) < 1e-12
    assert float(jax.jit(op.element_gap)(operator)) < 1e-12
    assert np.min(operator.matrix()) >= 0


def _disc(shape, spacing, radius, centre=(0.0, 0.0), fine=8):
    """A disc sampled on fine x fine points a pixel, value 1."""
    n = shape[0]
    grid = (np.arange(n * fine) - (n * fine - 1) / 2) * spacing / fine
    inside = (grid[:, None] - centre[1]) ** 2 + (grid[None] - centre[0]) ** 2 <= radius**2
    return inside.reshape(n, fine, n, fine).mean((1, 3))[..., None]


@pytest.mark.parametrize("axes", [2, 3])
def test_lines_are_josephs_samples(axes, x64):
    """Against interpolation by scipy at the crossings with the planes of the dominant axis, line by line."""
    shape, spacing = ((7, 6), (2.0, 3.0)) if axes == 2 else ((5, 7, 6), (4.0, 2.0, 3.0))
    starts, ends = _ring(4, 12, axes, radius=20.0)
    image = np.random.default_rng(5).normal(size=shape)
    found = ListModePET.create(starts, ends, (*shape, 1), spacing)(jnp.asarray(image)[..., None])
    padded = np.pad(image, 1)
    for value, a, b in zip(found, starts[:, ::-1], ends[:, ::-1], strict=True):
        step = (b - a) / spacing
        plane = np.argmax(np.abs(step))
        origin = a / spacing + (np.asarray(shape) - 1) / 2
        reach = (np.arange(shape[plane]) - origin[plane]) / step[plane]
        points = origin[:, None] + reach * step[:, None] + 1
        samples = ndimage.map_coordinates(padded, points, order=1, cval=0.0)
        np.testing.assert_allclose(
            value, np.linalg.norm(b - a) * samples.sum() / abs(step[plane]), rtol=1e-10
        )


@pytest.mark.parametrize("axes", [2, 3])
def test_lines_through_a_gaussian_blob_and_their_time_of_flight(axes, x64):
    """In closed form, with and without the kernel: a normal law along the line, widened by the resolution."""
    n, spacing, width, fwhm, bin_width = 48, 1.0, 4.0, 14.0, 6.0
    size = (n,) * axes
    centre = np.array([3.0, -2.0, 1.0])[:axes]
    grids = np.meshgrid(*[(np.arange(n) - (n - 1) / 2) * spacing] * axes, indexing="ij")
    blob = np.exp(-sum((g - c) ** 2 for g, c in zip(grids, centre[::-1], strict=True)) / (2 * width**2))
    starts, ends = _ring(6, 9, axes, radius=80.0)
    unit = (ends - starts) / np.linalg.norm(ends - starts, axis=1, keepdims=True)
    along = np.sum((centre - (starts + ends) / 2) * unit, axis=1)
    foot = (starts + ends) / 2 + along[:, None] * unit
    integral = width * np.sqrt(2 * np.pi) * np.exp(-np.sum((centre - foot) ** 2, axis=1) / (2 * width**2))
    blob = jnp.asarray(blob)[..., None]
    plain = ListModePET.create(starts, ends, (*size, 1), (spacing,) * axes)
    np.testing.assert_allclose(plain(blob), integral, rtol=0.02, atol=2e-3 * integral.max())
    tof = np.random.default_rng(7).uniform(-15, 15, 9)
    timed = ListModePET.create(
        starts, ends, (*size, 1), (spacing,) * axes, tof=tof, fwhm=fwhm, bin_width=bin_width
    )
    spread = np.hypot(width, fwhm / np.sqrt(8 * np.log(2)))
    share = special.ndtr((along - tof + bin_width / 2) / spread)
    share -= special.ndtr((along - tof - bin_width / 2) / spread)
    np.testing.assert_allclose(timed(blob), integral * share, rtol=0.02, atol=2e-3 * integral.max())


def test_time_of_flight_bins_of_an_event_add_up_to_the_event(x64):
    starts, ends = _ring(0, 4)
    bins, width = 25, 6.0
    repeated = [np.repeat(points, bins, axis=0) for points in (starts, ends)]
    tof = np.tile((np.arange(bins) - (bins - 1) / 2) * width, 4)
    shape, spacing = (6, 5, 1), (4.0, 3.0)
    timed = ListModePET.create(*repeated, shape, spacing, tof=tof, fwhm=20.0, bin_width=width)
    plain = ListModePET.create(starts, ends, shape, spacing)
    x = jnp.asarray(np.random.default_rng(3).uniform(size=shape))
    np.testing.assert_allclose(timed(x).reshape(4, bins).sum(1), plain(x), rtol=1e-9)


def test_turned_grids_gather_in_both_directions(x64):
    """The dense matrices of the rotation and of its hand-written transpose, square and not, any angle."""
    for shape, grid, angle in (((5, 6), (8, 7), 0.7), ((6, 5), (5, 9), -2.5), ((4, 4), (4, 4), np.pi / 4)):
        cosine, sine = jnp.cos(angle), jnp.sin(angle)
        pixels, points = np.prod(shape), np.prod(grid)
        turn = jax.jit(rotate, static_argnums=3)(jnp.eye(pixels).reshape(*shape, -1), cosine, sine, grid)
        back = jax.jit(rotate_adjoint, static_argnums=3)(
            jnp.eye(points).reshape(*grid, -1), cosine, sine, shape
        )
        np.testing.assert_allclose(turn.reshape(points, pixels), back.reshape(pixels, points).T, atol=1e-12)
        assert np.max(turn) > 0.5


def test_spect_without_attenuation_and_blur_is_the_sum_along_turned_rows(x64):
    shape, spacing = (6, 5, 2), 4.0
    operator = SPECT.create([0.0, np.pi / 2, np.pi, 0.6], shape, spacing, bins=7)
    x = np.random.default_rng(0).uniform(size=shape)
    y = np.asarray(operator(jnp.asarray(x)))
    columns = np.pad(x.sum(0) * spacing, [(1, 1), (0, 0)])
    np.testing.assert_allclose(y[0], columns, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(y[2], columns[::-1], rtol=1e-10, atol=1e-10)
    # Seven bins on six rows: each row is shared by two bins.
    rows = np.pad(x.sum(1) * spacing, [(1, 1), (0, 0)])
    np.testing.assert_allclose(y[1], (rows[1:] + rows[:-1]) / 2, rtol=1e-10, atol=1e-10)
    # A smooth blob, turned by any angle, keeps its line integrals.
    n, width = 40, 4.0
    grid = np.arange(n) - (n - 1) / 2
    blob = np.exp(-((grid[:, None] + 3) ** 2 + (grid[None] - 5) ** 2) / (2 * width**2))[..., None]
    angles = np.array([0.3, 1.1, 2.4])
    y = SPECT.create(angles, (n, n, 1), 1.0)(jnp.asarray(blob))[..., 0]
    t = 5 * np.cos(angles)[:, None] - 3 * np.sin(angles)[:, None]
    exact = width * np.sqrt(2 * np.pi) * np.exp(-((grid[None] - t) ** 2) / (2 * width**2))
    # Bilinear sampling widens the blob by 1/6 of a pixel squared on average, 1 % of its variance.
    np.testing.assert_allclose(y, exact, atol=0.02 * exact.max())


def test_spect_of_a_uniform_disc_in_a_uniform_medium():
    """Every view: `(1 - exp(-2 mu c)) / mu` with c half the chord, Beer's law along it."""
    n, spacing, radius, mu = 64, 2.0, 45.0, 0.015
    disc = _disc((n, n), spacing, radius)
    operator = SPECT.create(np.array([0.0, 0.4, 2.0, 4.0]), disc.shape, spacing, attenuation=mu * disc)
    y = np.asarray(operator(jnp.asarray(disc, jnp.float32)))[..., 0]
    t = (np.arange(n) - (n - 1) / 2) * spacing
    half = np.sqrt(np.maximum(radius**2 - t**2, 0))
    exact = (1 - np.exp(-2 * mu * half)) / mu
    inside = np.abs(t) < 0.9 * radius
    np.testing.assert_allclose(y[:, inside], np.broadcast_to(exact[inside], (4, inside.sum())), rtol=0.015)


def test_spect_sees_the_near_side_through_less_matter():
    """The camera lies beyond the largest s: at angle 0 a source in the last rows is hardly attenuated."""
    shape, spacing, mu = (9, 9, 1), 4.0, 0.01
    medium = np.full(shape, mu)
    operator = SPECT.create([0.0, np.pi], shape, spacing, attenuation=medium)
    source = np.zeros(shape, np.float32)
    source[7, 4] = 1
    y = np.asarray(operator(jnp.asarray(source)))[:, 4, 0]
    np.testing.assert_allclose(y[0], spacing * np.exp(-mu * spacing * 1.5), rtol=1e-3)
    np.testing.assert_allclose(y[1], spacing * np.exp(-mu * spacing * 7.5), rtol=1e-3)


@pytest.mark.parametrize("volume", [False, True])
def test_the_blur_of_a_point_grows_with_its_distance(volume, x64):
    """Second moments of a point's image: the width at its depth, one pixel's own box, and no lost counts."""
    n, spacing, fwhm, growth, radius = 41, 2.0, 5.0, 0.08, 60.0
    shape = (31, n, n, 1) if volume else (n, n, 1)
    source = np.zeros(shape)
    source[(15, 30, 20, 0) if volume else (30, 20, 0)] = 1
    options = {"slice_spacing": 3.0} if volume else {}
    angles = [0.0, np.pi / 2, np.pi]
    operator = SPECT.create(angles, shape, spacing, radius=radius, fwhm=fwhm, growth=growth, **options)
    y = np.asarray(operator(jnp.asarray(source)))[..., 0]
    across = y.sum(1) if volume else y
    np.testing.assert_allclose(across.sum(1), spacing, rtol=1e-6)
    t = (np.arange(n) - 20) * spacing
    # Depth of the point towards the camera at the three angles: s = 20, 0, -20 mm.
    widths = (fwhm + growth * (radius - np.array([20.0, 0.0, -20.0]))) / np.sqrt(8 * np.log(2))
    means = across @ t / spacing
    np.testing.assert_allclose(means, [0.0, 20.0, 0.0], atol=1e-4)
    variance = across @ t**2 / spacing - means**2
    np.testing.assert_allclose(variance, widths**2 + spacing**2 / 12, rtol=0.03)
    if volume:
        z = (np.arange(31) - 15) * 3.0
        axial = y.sum(2) @ z**2 / spacing
        np.testing.assert_allclose(axial, widths**2 + 3.0**2 / 12, rtol=0.03)


TRANSFORMED = {"list mode": lambda: _list_mode(tof=True), "spect": _spect}


@pytest.mark.parametrize("name", TRANSFORMED)
def test_transforms_of_emission_operators(name, x64):
    operator = TRANSFORMED[name]()
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 3, *operator.domain.shape)))
    y = jnp.asarray(rng.normal(size=operator.range.shape))
    looped = jnp.stack([jnp.stack([operator(image) for image in row]) for row in x])
    np.testing.assert_allclose(jax.jit(jax.vmap(jax.vmap(operator)))(x), looped, atol=1e-12)
    value, pullback = jax.vjp(operator, x[0, 0])
    np.testing.assert_allclose(pullback(y)[0], operator.adjoint(y), atol=1e-12)
    np.testing.assert_allclose(jax.jvp(operator, (x[0, 0],), (x[0, 1],))[1], looped[0, 1], atol=1e-12)
    transpose = jax.linear_transpose(operator, x[0, 0])
    again = jax.linear_transpose(lambda v: transpose(v)[0], y)
    np.testing.assert_allclose(again(x[0, 0])[0], value, atol=1e-12)
    loss = jax.jit(jax.hessian(lambda v: 0.5 * jnp.sum(operator(v) ** 2)))(x[0, 0])
    matrix = operator.matrix()
    np.testing.assert_allclose(loss.reshape(matrix.shape[1], -1), matrix.T @ matrix, atol=1e-10)


@pytest.mark.parametrize("name", TRANSFORMED)
def test_rows_sharded_over_devices_give_the_numbers_of_one(name):
    operator = {"list mode": lambda: _list_mode(tof=True), "spect": lambda: _spect(views=8)}[name]()
    mesh = Mesh(np.asarray(jax.devices()), ("rows",))
    rows, whole = PartitionSpec("rows"), PartitionSpec()
    leading = operator.range.shape[0]
    split = jax.tree.map(lambda leaf: rows if np.shape(leaf)[:1] == (leading,) else whole, operator)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.uniform(size=operator.domain.shape), jnp.float32)
    y = jnp.asarray(rng.uniform(size=operator.range.shape), jnp.float32)
    sharded = jax.shard_map(lambda a, x: a(x), mesh=mesh, in_specs=(split, whole), out_specs=rows)
    np.testing.assert_allclose(jax.jit(sharded)(operator, x), operator(x), rtol=2e-6, atol=1e-5)
    back = jax.shard_map(
        lambda a, y: jax.lax.psum(a.adjoint(y), "rows"), mesh=mesh, in_specs=(split, rows), out_specs=whole
    )
    compiled = jax.jit(back).lower(operator, y).compile()
    np.testing.assert_allclose(compiled(operator, y), operator.adjoint(y), rtol=2e-5, atol=1e-5)
    text = compiled.as_text()
    assert text.count(" all-reduce(") == 1 and " all-gather(" not in text and " all-to-all(" not in text
    fit = lambda x: 0.5 * jnp.sum((sharded(operator, x) - y) ** 2)
    np.testing.assert_allclose(
        jax.jit(jax.grad(fit))(x), operator.adjoint(operator(x) - y), rtol=2e-4, atol=1e-3
    )


@pytest.mark.parametrize("name", TRANSFORMED)
def test_subsets_are_the_interleaved_rows(name):
    operator = {"list mode": lambda: _list_mode(subsets=4), "spect": lambda: _spect(subsets=2)}[name]()
    x = jnp.asarray(np.random.default_rng(0).uniform(size=operator.domain.shape), jnp.float32)
    y = operator(x)
    one = jax.jit(
        lambda i: (
            operator.subset(i)(x),
            operator.restrict(y, i),
            operator.subset(i).adjoint(operator.restrict(y, i)),
        )
    )
    parts = [one(i) for i in range(operator.subsets)]
    for i, (mine, rest, _) in enumerate(parts):
        np.testing.assert_allclose(mine, y[i :: operator.subsets], rtol=1e-5)
        np.testing.assert_array_equal(rest, y[i :: operator.subsets])
    np.testing.assert_allclose(sum(part[2] for part in parts), operator.adjoint(y), rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SPECT.create([90.0], (4, 4, 1), 2.0), "radians, got up to 90: use numpy.deg2rad"),
        (lambda: SPECT.create([[0.0]], (4, 4, 1), 2.0), r"angles of shape \(views,\)"),
        (lambda: SPECT.create([0.0], (4, 4), 2.0), "needs a shape"),
        (lambda: SPECT.create([0.0], (4, 4, 1), 2.0, growth=0.1), "needs the radius"),
        (lambda: SPECT.create([0.0], (2, 4, 4, 1), 2.0, fwhm=3.0), "needs slice_spacing"),
        (lambda: SPECT.create([0.0], (4, 4, 1), 2.0, attenuation=np.ones((4, 3, 1))), "needs the shape"),
        (lambda: SPECT.create([0.0], (4, 4, 1), 2.0, attenuation=-np.ones((4, 4, 1))), "numbers >= 0"),
        (lambda: SPECT.create([0.0], (4, 4, 1), 2.0, attenuation=np.full((4, 4, 1), 0.15)), "in 1/mm"),
        (
            lambda: _spect(views=4, subsets=3),
            r"3 subsets do not divide 4 views into equal parts: use one of \[1, 2, 4\]",
        ),
        (lambda: _list_mode(events=10, subsets=3), "3 subsets do not divide 10 events"),
        (lambda: _list_mode(shape=(4, 4)), "ListModePET needs a shape"),
        (
            lambda: ListModePET.create(np.zeros((3, 2)), np.zeros((3, 2)), (4, 4, 1), (1.0, 1.0)),
            "the same twice",
        ),
        (lambda: ListModePET.create(*_ring(0, 3, 3), (4, 4, 1), (1.0, 1.0)), "end points of shape"),
        (
            lambda: ListModePET.create(*_ring(0, 3), (4, 4, 1), (1.0, 1.0), tof=np.zeros(3)),
            "needs its resolution",
        ),
        (
            lambda: ListModePET.create(*_ring(0, 3), (4, 4, 1), (1.0, 1.0), efficiency=np.ones(2)),
            "one finite number",
        ),
    ],
)
def test_wrong_emission_geometry_is_refused_in_one_line(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)

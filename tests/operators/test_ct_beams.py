"""Parallel and fan projectors: dense matrices, exact adjoints, transforms, subsets, sharding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ct_reference import joseph_matrix, strip_matrix
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from tables import rest_slow

from pgm_jax.operators import adjoint_gap, element_gap
from pgm_jax.operators.ct import Fan, FanBeam, ImageGrid, Parallel, ParallelBeam
from pgm_jax.operators.ct.gather import gather_sum

ROUND = 0.3 + np.linspace(0, 2 * np.pi, 5, endpoint=False)
AXES = np.array([0.0, np.pi / 4, np.pi / 2, 2.0, -1.0])
# Odd and even sizes, bins wider and narrower than pixels, truncated detectors, one view, oblong pixels.
CASES = {
    "oblong pixels": (ImageGrid((6, 5), (0.7, 1.3)), ROUND, 11, 0.9, -0.4),
    "even": (ImageGrid((6, 6)), AXES, 10, 1.0, 0.0),
    "odd": (ImageGrid((5, 7), 0.8), ROUND, 9, 1.0, 0.25),
    "fine bins": (ImageGrid((4, 5)), ROUND, 24, 0.3, 0.0),
    "truncated, wide bins": (ImageGrid((7, 6)), ROUND, 3, 1.9, 0.0),
    "one view": (ImageGrid((5, 5)), np.array([0.7]), 3, 1.5, 0.2),
}
BEAMS = {
    "parallel": lambda grid, angles, bins, spacing, offset, **o: ParallelBeam(
        grid, Parallel(angles, bins, spacing, offset), **o
    ),
    "flat": lambda grid, angles, bins, spacing, offset, **o: FanBeam(
        grid, Fan(angles, 12.0, 20.0, bins, spacing * 20 / 12, offset), **o
    ),
    "arc": lambda grid, angles, bins, spacing, offset, **o: FanBeam(
        grid, Fan(angles, 12.0, 20.0, bins, spacing * 20 / 12, offset, "arc"), **o
    ),
}
REFERENCE = {"joseph": joseph_matrix, "strip": strip_matrix}
KINDS = [
    ("flat", "strip"),
    ("parallel", "joseph"),
    ("arc", "joseph"),
    ("parallel", "strip"),
    ("flat", "joseph"),
    ("arc", "strip"),
]


def kinds(keep):
    """The first `keep` kinds by default, the others with `-m slow`."""
    marks = [() if number < keep else pytest.mark.slow for number in range(len(KINDS))]
    values = [pytest.param(*kind, id=" ".join(kind), marks=m) for kind, m in zip(KINDS, marks, strict=True)]
    return pytest.mark.parametrize("beam, footprint", values)


def _operator(beam, case="odd", **options):
    return BEAMS[beam](*CASES[case], **options)


def _draw(seed, shape, dtype=np.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def _close(a, b, rtol=1e-6):
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape
    np.testing.assert_allclose(a, b, rtol=0, atol=rtol * np.abs(b).max())


@pytest.mark.parametrize("case", rest_slow(CASES, 1, CASES))
@kinds(6)
def test_matrix_equals_its_definition_and_the_adjoint_is_exact(beam, footprint, case):
    A = _operator(beam, case, footprint=footprint)
    dense = REFERENCE[footprint](A.grid, A.geometry).reshape(A.range.size, A.domain.size)
    # The flank of a strip's footprint is at least 1e-6 of it.
    _close(A.matrix(), dense, 1e-6 if footprint == "joseph" else 3e-6)
    assert element_gap(A) <= 1.5e-6 * dense.max()
    assert max(adjoint_gap(A, jax.random.key(seed)) for seed in range(5)) <= 1e-6


@kinds(1)
def test_float64(beam, footprint, x64):
    A = _operator(beam, "oblong pixels", footprint=footprint)
    dense = REFERENCE[footprint](A.grid, A.geometry).reshape(A.range.size, A.domain.size)
    _close(A.matrix(), dense, 1e-13)
    assert adjoint_gap(A, jax.random.key(0)) <= 1e-14
    assert element_gap(A) <= 1e-13


@pytest.mark.parametrize("half", [20, 60, 80])
@pytest.mark.parametrize("footprint", ["joseph", "strip"])
@pytest.mark.parametrize("detector", ["flat", "arc"])
def test_a_wide_fan_next_to_the_image(detector, footprint, half, x64):
    """Columns lie beside and behind the source then, and the tangents of an arc no longer are a short series."""
    grid, angles, bins = ImageGrid((6, 5)), np.linspace(0, 6, 9), 91
    source = 1.02 * grid.radius() / min(1, np.sin(np.deg2rad(half)))
    reach = np.deg2rad(half) if detector == "arc" else np.tan(np.deg2rad(half))
    A = FanBeam(
        grid, Fan(angles, source, 2 * source, bins, 4 * source * reach / bins, 0.1, detector), footprint
    )
    dense = REFERENCE[footprint](A.grid, A.geometry).reshape(A.range.size, A.domain.size)
    _close(A.matrix(), dense, 1e-6)
    assert adjoint_gap(A, jax.random.key(0)) <= 1e-14
    assert element_gap(A) <= 1e-12 * dense.max()


@kinds(1)
def test_large_images_keep_the_precision(beam, footprint):
    """Positions are split in whole and part: at 400 pixels float32 alone would lose 2e-5 of a pixel."""
    grid, angles = ImageGrid((400, 4)), np.array([0.4, 1.2])
    A = (
        BEAMS[beam](grid, angles, 300, 1.3, 40.0, footprint=footprint)
        if beam == "parallel"
        else FanBeam(grid, Fan(angles, 700.0, 1100.0, 300, 2.1, 40.0, beam), footprint)
    )
    x = _draw(0, A.domain.shape)
    with jax.enable_x64(True):
        B = type(A)(A.grid, A.geometry, footprint)
        y, back = B(x.astype(jnp.float64)), B.adjoint(_draw(1, B.range.shape, np.float64))
    _close(A(x), y, 1e-6)
    _close(A.adjoint(_draw(1, A.range.shape)), back, 1e-6)


@pytest.mark.parametrize("together", [2, 3, 8])
def test_steps_taken_together_are_taken_once(together):
    """Seven steps and five slices, enough to store weights; the last group is filled up with nothing."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(7, 9, 5)).astype(np.float32)
    index, weights = rng.integers(-1, 8, (7, 4)), rng.normal(size=(2, 7, 4)).astype(np.float32)
    expected = sum(
        weights[m, s, :, None] * values[s, np.clip(index[s] + m, 0, 8)] for m in range(2) for s in range(7)
    )
    locate = lambda step: (step[0], [step[1], step[2]])
    steps = tuple(jnp.asarray(v) for v in (index.astype(np.int32), *weights))
    _close(gather_sum(locate, steps, jnp.asarray(values), (4,), together=together), expected)


@kinds(1)
def test_many_slices_equal_slice_by_slice(beam, footprint):
    """From a few slices on the weights are carried one step ahead; the numbers are the same."""
    one, many = _operator(beam, footprint=footprint), _operator(beam, footprint=footprint, channels=6)
    x, y = _draw(0, many.domain.shape), _draw(1, many.range.shape)
    _close(many(x), jnp.concatenate([one(x[..., z : z + 1]) for z in range(6)], -1))
    _close(many.adjoint(y), jnp.concatenate([one.adjoint(y[..., z : z + 1]) for z in range(6)], -1))


@pytest.mark.parametrize("beam", rest_slow(BEAMS))
def test_transforms(beam):
    A = _operator(beam, footprint="strip")
    M, x, v = np.asarray(A.matrix()), _draw(0, A.domain.shape), _draw(1, A.domain.shape)
    y = _draw(2, A.range.shape)
    flat = lambda array: np.ravel(array)
    _close(flat(jax.jvp(A, (x,), (v,))[1]), M @ flat(v))
    _close(flat(jax.vjp(A, x)[1](y)[0]), M.T @ flat(y))
    _close(flat(jax.linear_transpose(A, x)(y)[0]), M.T @ flat(y))
    _close(flat(jax.linear_transpose(A.adjoint, y)(x)[0]), M @ flat(x))
    size = A.domain.size
    hessian = jax.hessian(lambda x: 0.5 * jnp.sum(A(x) ** 2))(x).reshape(size, size)
    _close(hessian, M.T @ M, 3e-6)
    _close(A.gram(x), (M.T @ (M @ flat(x))).reshape(x.shape), 3e-6)
    _close(jax.jit(lambda A, x: A(x))(A, x), A(x))
    batch = _draw(3, (2, 3, *A.domain.shape))
    _close(jax.vmap(jax.vmap(A))(batch), np.stack([[A(b) for b in row] for row in batch]))
    gradient = jax.vmap(jax.grad(lambda x: 0.5 * jnp.sum((A(x) - y) ** 2)))(batch[0])
    _close(gradient, np.stack([A.adjoint(A(b) - y) for b in batch[0]]), 3e-6)
    descend = lambda x: jax.lax.scan(lambda x, _: (x - 0.01 * A.gram(x), None), x, length=3)[0]
    loss = lambda x: 0.5 * jnp.sum(descend(x) ** 2)
    step = np.linalg.matrix_power(np.eye(size) - 0.01 * M.T @ M, 3)
    for wrapped in (loss, jax.checkpoint(loss)):
        _close(flat(jax.grad(wrapped)(x)), step.T @ (step @ flat(x)), 3e-6)
    flat_batch = batch.reshape(6, *x.shape)
    _close(jax.pmap(lambda x: A(x))(flat_batch), jax.vmap(A)(flat_batch))


@pytest.mark.parametrize("beam", rest_slow(BEAMS))
def test_sums_norm_and_complex_images(beam):
    A = _operator(beam)
    M = np.asarray(A.matrix(), np.float64)
    _close(np.ravel(A.row_sums()), M.sum(1))
    _close(np.ravel(A.column_sums()), M.sum(0))
    _close(A.norm(), np.linalg.norm(M, 2), 1e-3)
    x = _draw(0, A.domain.shape) + 1j * _draw(1, A.domain.shape)
    _close(np.ravel(A(x)), M @ np.ravel(x))


@pytest.mark.parametrize("subsets", rest_slow([2, 5]))
@kinds(1)
def test_subsets_are_interleaved_views(beam, footprint, subsets):
    grid, _, *detector = CASES["odd"]
    angles = np.linspace(0.1, 6, 10)[:9]  # neither 2 nor 5 divides it
    A = BEAMS[beam](grid, angles, *detector, footprint=footprint, subsets=subsets)
    x, y = _draw(0, A.domain.shape), _draw(1, A.range.shape)
    whole, total = np.asarray(A(x)), 0
    for i in range(subsets):
        part = A.subset(i)
        views = len(angles[i::subsets])
        _close(part(x)[:views], whole[i::subsets])
        assert not np.any(part(x)[views:])
        _close(A.restrict(whole, i), part(x))
        total = total + part.adjoint(A.restrict(y, i))
    _close(total, A.adjoint(y), 2e-6)
    # Empty views see nothing and give nothing.
    assert not np.any(A.subset(subsets - 1).adjoint(jnp.zeros(part.range.shape).at[views:].set(1.0)))


QUARTERS = 0.2 + np.arange(8) * np.pi / 4
TURNED = {
    "forth": QUARTERS,
    "back": -QUARTERS,
    "uneven": (QUARTERS[:2] + np.pi / 2 * np.arange(4)[:, None]).ravel(),
}


@pytest.mark.parametrize("slices", [1, 5])
@pytest.mark.parametrize("order", rest_slow(TURNED, 1, TURNED))
@kinds(3)
def test_quarters_of_a_turn_share_their_weights(beam, footprint, order, slices):
    A = BEAMS[beam](ImageGrid((5, 5)), TURNED[order], 7, 1.3, 0.4, footprint=footprint, subsets=2)
    turn = -1 if order == "back" else 1
    assert A.turns == (turn, turn)
    dense = REFERENCE[footprint](A.grid, A.geometry).reshape(A.range.size, A.domain.size)
    many = A.replace(channels=slices)
    x, y = _draw(0, many.domain.shape), _draw(1, many.range.shape)
    _close(many(x).reshape(-1, slices), dense @ np.asarray(x).reshape(-1, slices), 3e-6)
    _close(many.adjoint(y).reshape(-1, slices), dense.T @ np.asarray(y).reshape(-1, slices), 3e-6)
    parts = [many.subset(i).adjoint(many.restrict(y, i)) for i in range(2)]
    _close(sum(parts), many.adjoint(y), 3e-6)
    _close(many.subset(1)(x), many(x)[1::2], 3e-6)
    assert max(adjoint_gap(many, jax.random.key(seed)) for seed in range(5)) <= 1e-6


@pytest.mark.parametrize(
    "grid, angles",
    [
        (ImageGrid((5, 6)), QUARTERS),
        (ImageGrid((5, 5), (1.0, 1.1)), QUARTERS),
        (ImageGrid((5, 5)), QUARTERS[:6]),
        (ImageGrid((5, 5)), QUARTERS + 1e-6 * np.arange(8)),
        (ImageGrid((5, 5)), np.zeros(4)),
    ],
)
def test_other_scans_are_not_taken_for_turned_ones(grid, angles):
    assert BEAMS["flat"](grid, angles, 7, 1.3, 0.4).turns == (0, 0)


def test_subsets_need_not_turn_with_their_scan():
    A = BEAMS["flat"](ImageGrid((5, 5)), QUARTERS, 7, 1.3, 0.4, subsets=4)
    assert A.turns == (1, 0) and A.subset(0).turns == (0, 0)
    x = _draw(0, A.domain.shape)
    _close(A.subset(3)(x), A(x)[3::4], 2e-6)


def test_subsets_run_in_one_scan_with_a_traced_index():
    A = _operator("flat", "even", subsets=2)
    x, y = _draw(0, A.domain.shape), _draw(1, A.range.shape)

    def add(total, i):
        return total + A.subset(i).adjoint(A.restrict(y, i) - A.subset(i)(x)), None

    total = jax.jit(lambda: jax.lax.scan(add, jnp.zeros_like(x), jnp.arange(2))[0])()
    _close(total, A.adjoint(y - A(x)), 2e-6)


@pytest.fixture
def mesh():
    return jax.make_mesh((8,), ("slices",), axis_types=(AxisType.Auto,))


COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")


@kinds(1)
def test_sharded_slices_need_no_collective(beam, footprint, mesh):
    A = _operator(beam, footprint=footprint, channels=16)
    x, y = _draw(0, A.domain.shape), _draw(1, A.range.shape)
    place = NamedSharding(mesh, P(None, None, "slices"))
    gradient = jax.jit(lambda x, y: A.adjoint(A(x) - y), in_shardings=place, out_shardings=place)
    _close(gradient(x, y), A.adjoint(A(x) - y))
    text = gradient.lower(x, y).compile().as_text()
    assert not any(word in text for word in COLLECTIVES)


def test_shard_map_over_slices_and_over_a_batch(mesh):
    A = _operator("flat", channels=2)
    x = _draw(0, (*A.domain.shape[:2], 16))
    spec = P(None, None, "slices")
    sharded = jax.jit(jax.shard_map(A, mesh=mesh, in_specs=spec, out_specs=spec))
    _close(sharded(x), _operator("flat", channels=16)(x))
    loss = lambda x: 0.5 * jnp.sum(sharded(x) ** 2)
    _close(jax.grad(loss)(x), _operator("flat", channels=16).gram(x), 2e-6)
    batch = _draw(1, (8, *A.domain.shape))
    place = NamedSharding(mesh, P("slices"))
    many = jax.jit(jax.vmap(A), in_shardings=place, out_shardings=place)
    _close(many(batch), jax.vmap(A)(batch))
    assert not any(word in many.lower(batch).compile().as_text() for word in COLLECTIVES)


def test_views_sharded_as_operators_sum_their_adjoints(mesh):
    """Eight subsets, one a device: projections stay where they are, the gradient is one sum."""
    A = BEAMS["parallel"](ImageGrid((6, 6)), np.linspace(0, 3, 16), 10, 1.0, 0.0, subsets=8)
    x, y = _draw(0, A.domain.shape), _draw(1, A.range.shape)
    parts = jax.vmap(lambda i: A.restrict(y, i))(jnp.arange(8))

    def misfit(tables, part):
        own = A.subset(0).replace(tables=jax.tree.map(lambda table: table[0], tables))
        return jax.lax.psum(own.adjoint(own(x) - part[0]), "slices")

    sharded = jax.jit(jax.shard_map(misfit, mesh=mesh, in_specs=(P("slices"), P("slices")), out_specs=P()))
    _close(sharded(A.parts, parts), A.adjoint(A(x) - y), 2e-6)
    assert sharded.lower(A.parts, parts).compile().as_text().count(" all-reduce(") == 1


def test_vmap_is_one_call_with_more_slices():
    A = _operator("parallel")
    text = str(jax.make_jaxpr(jax.vmap(jax.vmap(A)))(jnp.zeros((2, 3, *A.domain.shape))))
    assert text.count("parallel_beam_joseph") == 1 and f"{A.domain.shape[0]},{A.domain.shape[1]},6" in text


def test_two_operators_of_one_kind_do_not_share_a_program():
    A, B = (BEAMS["parallel"](ImageGrid((6, 6)), angles, 10, 1.0, 0.0) for angles in (AXES, ROUND))
    x = _draw(0, A.domain.shape)
    _close(jax.jit(A)(x), A(x))
    _close(jax.jit(B)(x), B(x))

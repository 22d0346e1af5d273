"""NUFFT and NUDFT against the explicit sum, the FFT, finufft and finite differences, and under every transform."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec as P
from tables import rest_slow

from pgm_jax import operators as op
from pgm_jax.operators.mri import NUDFT, NUFFT
from pgm_jax.operators.mri.gridding import TILE, gridding_tables, interpolate
from pgm_jax.operators.mri.kaiser_bessel import kaiser_bessel, kaiser_bessel_transform, shape_parameter

SHAPES = [(10, 9), (5, 6, 7), (12, 12), (7, 1), (4, 5, 4)]


def _points(shape, count=40, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-0.5, 0.5, size=(count, len(shape))) * np.asarray(shape)


def _image(shape, seed=1, dtype=np.complex128):
    x = np.random.default_rng(seed).normal(size=(2, *shape, 1))
    return jnp.asarray((x[0] + 1j * x[1]).astype(dtype))


def _dense(points, shape):
    """The sum of the definition as a matrix, in float64."""
    voxel = np.stack(np.meshgrid(*[np.arange(n) - n // 2 for n in shape], indexing="ij"), axis=-1)
    phase = (points / np.asarray(shape)) @ voxel.reshape(-1, len(shape)).T
    return np.exp(-2j * np.pi * phase) / np.sqrt(np.prod(shape))


def _matrices(operator):
    """The dense matrices of A and of A^H, conjugated and transposed."""
    return jax.jit(lambda a: (a.matrix(), jnp.conj(a.H.matrix()).T))(operator)


def _dot_gap(operator, seeds=5):
    """The largest dot-test gap over several random pairs, drawn on the host since that compiles faster."""
    rng = np.random.default_rng(7)
    x, y = (
        (rng.normal(size=(seeds, *s.shape)) + 1j * rng.normal(size=(seeds, *s.shape))).astype(s.dtype)
        for s in (operator.domain, operator.range)
    )
    forward, backward = jax.jit(lambda a, x, y: (jax.vmap(a)(x), jax.vmap(a.adjoint)(y)))(operator, x, y)
    gaps = []
    for u, v, a, b in zip(x, y, np.asarray(forward), np.asarray(backward), strict=True):
        gaps.append(abs(np.vdot(a, v) - np.vdot(u, b)) / (np.linalg.norm(a) * np.linalg.norm(v)))
    return max(gaps)


def _gap(a, b):
    return np.linalg.norm(np.ravel(a) - np.ravel(b)) / np.linalg.norm(np.ravel(b))


def test_transform_of_the_window_is_its_integral():
    u = np.linspace(-3, 3, 200001)
    beta = shape_parameter(6, 2.0)
    for v in (0.0, 0.1, 0.25, 0.8):
        integral = np.trapezoid(kaiser_bessel(u, 6, beta) * np.cos(2 * np.pi * u * v), u)
        np.testing.assert_allclose(kaiser_bessel_transform(v, 6, beta), integral, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("shape", rest_slow(SHAPES, keep=2))
@pytest.mark.parametrize("make", [NUFFT.create, NUDFT.create])
def test_dense_matrix_and_adjoint(make, shape, x64):
    points = _points(shape)
    operator, exact = make(points, shape), _dense(points, shape)
    # Of an element's modulus; the window's error is largest at the corners of the image.
    tolerance = 1e-12 if make == NUDFT.create else 3e-5
    forward, backward = _matrices(operator)
    np.testing.assert_allclose(forward, exact, atol=tolerance / np.sqrt(np.prod(shape)))
    np.testing.assert_allclose(backward, forward, atol=1e-12)
    assert _dot_gap(operator) < 1e-12


# Errors of the window alone, in float64: of the order of exp(-pi W sqrt(1 - 1 / s)), Beatty et al.
@pytest.mark.parametrize("case", rest_slow([(6, 2.0, 1e-5), (4, 2.0, 1e-3), (8, 2.0, 3e-7), (6, 1.25, 1e-3)]))
def test_accuracy_grows_with_width(case, x64):
    width, oversampling, bound = case
    # 1.25 and 2 times these sizes are grid sizes, so the ratio is the one asked for.
    shape = (64, 32)
    points, x = _points(shape, 200), _image(shape)
    operator = NUFFT.create(points, shape, width=width, oversampling=oversampling)
    assert operator.grid == tuple(oversampling * n for n in shape)
    exact = NUDFT.create(points, shape)
    y = exact(x)
    error = _gap(jax.jit(lambda a: a(x))(operator), y)
    assert bound / 100 < error < bound
    assert _gap(jax.jit(lambda a: a.adjoint(y))(operator), exact.adjoint(y)) < bound


@pytest.mark.parametrize("shape", rest_slow([(9, 8), (4, 5, 6)]))
def test_grid_points_give_the_orthonormal_fft(shape):
    index = np.stack(np.meshgrid(*[np.arange(n) - n // 2 for n in shape], indexing="ij"), axis=-1)
    x = _image(shape, dtype=np.complex64)
    spectrum = op.centred_fft(x[..., 0], range(len(shape)))
    for operator in (NUFFT.create(index, shape), NUDFT.create(index, shape)):
        there, back = jax.jit(lambda a: (a(x), a.adjoint(spectrum)))(operator)
        assert _gap(there, spectrum) < 1e-5 and _gap(back, x) < 1e-5


def test_band_edges_meet():
    # k and k + N differ by the sign (-1)^(2 c): both edges of an even axis are the same point.
    edges = NUFFT.create(np.array([[4.0, 0.3], [-4.0, 0.3]]), (8, 6))(_image((8, 6), dtype=np.complex64))
    np.testing.assert_allclose(edges[0], edges[1], atol=1e-6)


@pytest.mark.parametrize("shape", rest_slow([(11, 8), (5, 6, 4)]))
def test_single_precision_adjoint(shape):
    operator = NUFFT.create(_points(shape, 300).reshape(3, 100, -1), shape)
    assert _dot_gap(operator) < 1e-6
    space = jax.eval_shape(operator, jnp.ones((*shape, 1)))
    assert space.shape == operator.range.shape == (3, 100) and space.dtype == jnp.complex64


def test_crowded_tile_and_blocks(monkeypatch, x64):
    # 3000 points in one tile, a few elsewhere, and blocks so small that tiles are mapped in several.
    from pgm_jax.operators.mri import gridding

    monkeypatch.setattr(gridding, "_BLOCK", 1 << 9)
    rng = np.random.default_rng(2)
    points = np.concatenate([rng.normal(size=(3000, 2)) * 0.2, _points((20, 16), 300)])
    operator = NUFFT.create(points, (20, 16))
    assert any(table.ndim == 3 and table.shape[0] > 1 for table in operator.tables)
    assert _gap(operator(_image((20, 16))), NUDFT.create(points, (20, 16))(_image((20, 16)))) < 1e-5
    assert _dot_gap(operator) < 1e-12


def test_interpolation_is_periodic_and_each_weight_is_used_once(x64):
    grid, position = (TILE, 2 * TILE), np.array([[-0.2, 0.4], [7.9, 15.7], [3.5, 31.9]])
    tables = gridding_tables(position, grid, 6, (2.0, 2.0))
    x = np.random.default_rng(0).normal(size=grid)
    beta = shape_parameter(6, 2.0)
    expected = []
    for p in position:
        distance = [(np.arange(n) - c + n / 2) % n - n / 2 for n, c in zip(grid, p, strict=True)]
        w = [kaiser_bessel(d, 6, beta) for d in distance]
        expected.append(w[0] @ x @ w[1])
    got = interpolate(tables, jnp.asarray(x)[..., None], grid=grid, width=6)
    np.testing.assert_allclose(got[:, 0], expected, rtol=1e-12)


def test_gradients_with_respect_to_the_trajectory(x64):
    shape = (6, 7)
    points, x = jnp.asarray(_points(shape, 9)), _image(shape)
    target = jnp.asarray(np.random.default_rng(3).normal(size=9))

    def loss(points):
        return jnp.sum(jnp.abs(NUDFT(points, shape, 4)(x)) * target)

    gradient, step = jax.jit(jax.grad(loss))(points), 1e-5
    for m, a in [(0, 0), (4, 1), (8, 0)]:
        shift = np.zeros((9, 2))
        shift[m, a] = step
        slope = (loss(points + shift) - loss(points - shift)) / (2 * step)
        np.testing.assert_allclose(gradient[m, a], slope, rtol=1e-6, atol=1e-8)
    tangent = jnp.asarray(np.random.default_rng(4).normal(size=(9, 2)))
    np.testing.assert_allclose(
        jax.jvp(loss, (points,), (tangent,))[1], jnp.sum(gradient * tangent), rtol=1e-10
    )


@pytest.mark.parametrize("make", [NUFFT.create, NUDFT.create])
def test_transforms_of_jax(make):
    shape = (8, 9)
    operator = make(_points(shape, 30), shape)
    x, other = (_image(shape, seed, np.complex64) for seed in (0, 5))
    y = operator(other)

    def bundle(operator, x, other, y):
        transpose = jax.linear_transpose(operator, x)
        fit = jax.grad(lambda x: 0.5 * jnp.sum(jnp.abs(jax.checkpoint(operator)(x) - y) ** 2))(x)
        images = jnp.stack([x, other])
        forward, backward = operator(x), operator.adjoint(y)
        return {
            "nested vmap": (jax.vmap(jax.vmap(operator))(images[None])[0], jnp.stack([forward, y])),
            "vmap of the adjoint": (
                jax.vmap(operator.adjoint, 1, -1)(jnp.stack([y, 2 * y], 1))[..., 1],
                2 * backward,
            ),
            "jvp": (jax.jvp(operator, (x,), (other,))[1], y),
            "transpose": (jnp.conj(transpose(jnp.conj(y))[0]), backward),
            "transpose twice": (jax.linear_transpose(lambda y: transpose(y)[0], y)(x)[0], forward),
            "vjp and checkpoint": (jnp.conj(fit), operator.adjoint(forward - y)),
            "scan": (jax.lax.scan(lambda c, x: (c, operator(x)), 0, images)[1][1], y),
        }

    np.testing.assert_allclose(jax.jit(lambda a, x: a(x))(operator, other), y, atol=2e-5)
    for name, (got, expected) in jax.jit(bundle)(operator, x, other, y).items():
        np.testing.assert_allclose(got, expected, atol=2e-5, err_msg=name)


def test_second_derivative_of_a_fit_is_the_gram(x64):
    shape = (3, 4)
    operator = NUFFT.create(_points(shape, 20), shape)
    real = op.RealImage(operator)
    hessian = jax.jit(jax.hessian(lambda x: 0.5 * jnp.sum(jnp.abs(real(x)) ** 2)))(jnp.ones((*shape, 1)))
    dense = np.asarray(_matrices(operator)[0])
    np.testing.assert_allclose(hessian.reshape(12, 12), np.real(dense.conj().T @ dense), atol=1e-12)


def test_images_sharded_over_devices():
    shape = (8, 6)
    operator = NUFFT.create(_points(shape, 30), shape)
    images = jnp.stack([_image(shape, seed, np.complex64) for seed in range(8)])
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.device_put(images, NamedSharding(mesh, P("batch")))
    both = jax.vmap(lambda x: operator.adjoint(operator(x)))
    each = jax.shard_map(both, mesh=mesh, in_specs=P("batch"), out_specs=P("batch"))
    expected = jax.jit(both)(images)
    np.testing.assert_allclose(jax.jit(each)(spread), expected, atol=1e-5)
    text = jax.jit(each).lower(spread).compile().as_text()
    assert "all-gather" not in text and "all-reduce" not in text
    np.testing.assert_allclose(jax.jit(both)(spread), expected, atol=1e-5)


@pytest.mark.parametrize(
    "points, shape, words",
    [
        (np.zeros((0, 2)), (4, 4), "at least one point"),
        (np.zeros((3, 3)), (4, 4), r"shape \(..., 2\)"),
        (np.array([[0.0, np.nan]]), (4, 4), "not finite"),
        (np.array([[0.0, 2.1]]), (4, 4), "cycles per field of view"),
    ],
)
def test_wrong_trajectories_are_refused(points, shape, words):
    for make in (NUFFT.create, NUDFT.create):
        with pytest.raises(ValueError, match=words):
            make(points, shape)


def test_wrong_options_and_traced_trajectories_are_refused():
    with pytest.raises(ValueError, match="width"):
        NUFFT.create(np.zeros((1, 2)), (4, 4), width=1)
    with pytest.raises(ValueError, match="use NUDFT"):
        jax.jit(lambda k: NUFFT.create(k, (4, 4))(jnp.ones((4, 4, 1))))(jnp.zeros((1, 2)))
    with pytest.raises(ValueError, match="one image of shape"):
        NUFFT.create(np.zeros((1, 2)), (4, 4))(jnp.ones((4, 4)))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(24, 31), (9, 10, 12)])
def test_finufft_agrees(shape):
    finufft = pytest.importorskip("finufft")
    points, x = _points(shape, 5000), _image(shape)[..., 0]
    call = {2: finufft.nufft2d2, 3: finufft.nufft3d2}[len(shape)]
    angles = [np.ascontiguousarray(2 * np.pi * points[:, a] / n) for a, n in enumerate(shape)]
    expected = call(*angles, np.asarray(x, np.complex128), eps=1e-12, isign=-1) / np.sqrt(np.prod(shape))
    operator = NUFFT.create(points, shape)
    assert _gap(operator(jnp.asarray(x, jnp.complex64)[..., None]), expected) < 1e-5
    back = {2: finufft.nufft2d1, 3: finufft.nufft3d1}[len(shape)]
    expected = back(*angles, expected, shape, eps=1e-12, isign=1)
    y = operator(jnp.asarray(x, jnp.complex64)[..., None])
    assert _gap(operator.adjoint(y), expected / np.sqrt(np.prod(shape))) < 1e-5

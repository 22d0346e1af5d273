"""Multi-coil non-Cartesian scans, their Toeplitz gram, and off-resonance, against dense matrices and NUDFT."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from tables import rest_slow

from pgm_jax import operators as op
from pgm_jax.operators.coils import birdcage_volume_maps
from pgm_jax.operators.mri import NUDFT, NonCartesian, OffResonance, radial, toeplitz_apply, toeplitz_kernel
from pgm_jax.operators.mri.off_resonance import fit_segments
from pgm_jax.reconstruction import cg_sense


def _points(shape, count=60, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-0.5, 0.5, size=(3, count // 3, len(shape))) * np.asarray(shape)


def _maps(shape, coils=2, dtype=np.complex128):
    if len(shape) == 3:
        return birdcage_volume_maps(coils, *shape, dtype=dtype)
    return op.birdcage_maps(coils, *shape, dtype=dtype)


def _image(shape, seed=1, dtype=np.complex128):
    x = np.random.default_rng(seed).normal(size=(2, *shape, 1))
    return jnp.asarray((x[0] + 1j * x[1]).astype(dtype))


def _dense(points, shape, maps):
    voxel = np.stack(np.meshgrid(*[np.arange(n) - n // 2 for n in shape], indexing="ij"), axis=-1)
    phase = (points.reshape(-1, len(shape)) / np.asarray(shape)) @ voxel.reshape(-1, len(shape)).T
    fourier = np.exp(-2j * np.pi * phase) / np.sqrt(np.prod(shape))
    return np.concatenate([fourier * s.ravel()[None] for s in maps])


def _gap(a, b):
    return np.linalg.norm(np.ravel(a) - np.ravel(b)) / np.linalg.norm(np.ravel(b))


@pytest.mark.parametrize("shape", rest_slow([(7, 6), (4, 5, 3), (8, 8)], keep=2))
def test_matrix_adjoint_and_gram_of_every_coil(shape, x64):
    maps, points = _maps(shape), _points(shape)
    weights = np.random.default_rng(2).uniform(size=(3, 20))
    operator = NonCartesian.create(maps, points, weights=weights)
    exact = np.tile(np.sqrt(weights).ravel(), 2)[:, None] * _dense(points, shape, maps)
    forward, backward, gram = jax.jit(
        lambda a: (
            a.matrix(),
            jnp.conj(a.H.matrix()).T,
            jax.vmap(a.gram)(jnp.eye(a.domain.size).reshape(-1, *a.domain.shape)),
        )
    )(operator)
    np.testing.assert_allclose(forward, exact, atol=1e-5)
    np.testing.assert_allclose(backward, forward, atol=1e-12)
    gram = gram.reshape(operator.domain.size, -1).T
    assert _gap(gram, exact.conj().T @ exact) < 1e-5
    # Self-adjoint to rounding, whatever the error of the NUFFT behind the kernel.
    np.testing.assert_allclose(gram, gram.conj().T, atol=1e-13)


@pytest.mark.parametrize("shape", [(9, 8), (3, 4, 5)])
def test_toeplitz_kernel_of_the_exact_transform_is_its_gram(shape, x64):
    points, x = _points(shape), _image(shape)
    weights = np.random.default_rng(3).uniform(size=(3, 20))
    exact = NUDFT.create(points, shape)
    kernel = toeplitz_kernel(exact, points, weights)
    assert all(p >= 2 * n - 1 for p, n in zip(kernel.shape, shape, strict=True))
    np.testing.assert_allclose(
        toeplitz_apply(kernel, x[..., 0]), exact.adjoint(weights * exact(x))[..., 0], atol=1e-13
    )


def test_gram_in_single_precision_and_its_cost():
    operator = NonCartesian.create(_maps((16, 15), 3, np.complex64), _points((16, 15), 600))
    x = _image((16, 15), dtype=np.complex64)
    gram = jax.jit(lambda a, x: a.gram(x))
    explicit = jax.jit(lambda a, x: a.adjoint(a(x)))(operator, x)
    assert _gap(gram(operator, x), explicit) < 1e-5
    # Two FFTs of twice the size a coil, inside a loop over the coils; no gather at all.
    text = gram.lower(operator, x).as_text()
    assert text.count("stablehlo.fft") <= 4 and "stablehlo.gather" not in text


def test_grid_points_are_a_full_cartesian_scan():
    shape, maps = (6, 7), _maps((6, 7), 3, np.complex64)
    index = np.stack(np.meshgrid(*[np.arange(n) - n // 2 for n in shape], indexing="ij"), axis=-1)
    sense, x = op.Sense(jnp.asarray(maps), np.ones(7)), _image(shape, dtype=np.complex64)
    operator = NonCartesian.create(maps, index)
    assert _gap(operator(x), sense(x)) < 1e-5 and _gap(operator.gram(x), x) < 1e-5


def test_cg_solves_the_dense_problem_and_leaves_unseen_voxels_zero(x64):
    shape, maps = (6, 5), _maps((6, 5), 3)
    maps[:, 2, 3] = 0
    points = _points(shape, 90)
    operator = NonCartesian.create(maps, points, width=8)
    exact = _dense(points, shape, maps)
    noise = np.random.default_rng(4).normal(size=operator.range.shape)
    y = operator(_image(shape)) + 0.1 * noise
    image, _ = cg_sense(operator, y, steps=60, weight=0.05)
    expected = np.linalg.solve(exact.conj().T @ exact + 0.05 * np.eye(30), exact.conj().T @ np.ravel(y))
    np.testing.assert_allclose(image.ravel(), expected, atol=1e-5)
    assert image[2, 3, 0] == 0 and operator.adjoint(y)[2, 3, 0] == 0


def test_density_as_weights_speeds_up_cg():
    # Weights on both sides change the norm of the misfit, not the solution of consistent data.
    scan, maps = radial(40, 32, (16, 16)), _maps((16, 16), 4, np.complex64)
    rows, columns = np.indices((16, 16)) - 7.5
    x = jnp.asarray(np.exp(-(rows**2 + columns**2) / 12 + 0.3j * rows).astype(np.complex64))[..., None]
    plain = NonCartesian.create(maps, scan.points)
    weighted = NonCartesian.create(maps, scan.points, weights=scan.density)
    y = plain(x)
    slow, quick = (cg_sense(a, a.weigh(y), steps=8)[0] for a in (plain, weighted))
    assert _gap(weighted(x), weighted.weigh(y)) < 1e-6
    assert _gap(quick, x) < 0.5 * _gap(slow, x)


@pytest.mark.parametrize("shape", rest_slow([(6, 5), (4, 3, 4)]))
def test_transforms_of_jax(shape):
    operator = NonCartesian.create(_maps(shape, 2, np.complex64), _points(shape))
    x, other = (_image(shape, seed, np.complex64) for seed in (0, 5))
    y = operator(other)

    def bundle(operator, x, other, y):
        forward, backward = operator(x), operator.adjoint(y)
        transpose = jax.linear_transpose(operator, x)
        fit = jax.grad(lambda x: 0.5 * jnp.sum(jnp.abs(operator(x) - y) ** 2))(x)
        by_maps = jax.grad(lambda maps: jnp.sum(jnp.abs(operator.replace(maps=maps)(x)) ** 2))(operator.maps)
        power = jnp.sum(jnp.real(jnp.conj(jnp.conj(by_maps)) * operator.maps))
        return {
            "vmap": (jax.vmap(operator)(jnp.stack([x, other])), jnp.stack([forward, y])),
            "vmap of gram": (jax.vmap(operator.gram)(jnp.stack([x, other]))[1], operator.gram(other)),
            "transpose": (jnp.conj(transpose(jnp.conj(y))[0]), backward),
            "vjp": (jnp.conj(fit), operator.adjoint(forward - y)),
            "jvp": (jax.jvp(operator.gram, (x,), (other,))[1], operator.gram(other)),
            "maps (Euler: homogeneous of degree 2)": (power, 2 * jnp.sum(jnp.abs(forward) ** 2)),
        }

    for name, (got, expected) in jax.jit(bundle)(operator, x, other, y).items():
        np.testing.assert_allclose(got, expected, atol=5e-5, rtol=1e-5, err_msg=name)


def test_coils_sharded_over_devices():
    shape = (8, 6)
    operator = NonCartesian.create(_maps(shape, 8, np.complex64), _points(shape))
    x = _image(shape, dtype=np.complex64)
    mesh = jax.make_mesh((8,), ("coils",), axis_types=(jax.sharding.AxisType.Auto,))

    def local(maps, x):
        part = operator.replace(maps=maps)
        y = part(x)
        return y, jax.lax.psum(part.adjoint(y), "coils"), jax.lax.psum(part.gram(x), "coils")

    each = jax.jit(
        jax.shard_map(local, mesh=mesh, in_specs=(P("coils"), P()), out_specs=(P("coils"), P(), P()))
    )
    y, back, gram = each(operator.maps, x)
    expected = jax.jit(lambda a, x: (a(x), a.adjoint(a(x)), a.gram(x)))(operator, x)
    for got, want in zip((y, back, gram), expected, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5)
    text = each.lower(operator.maps, x).compile().as_text()
    assert "all-gather" not in text and "all-reduce" in text

    def loss(x):
        part = jax.shard_map(
            lambda maps, x: jax.lax.psum(jnp.sum(jnp.abs(operator.replace(maps=maps)(x)) ** 2), "coils"),
            mesh=mesh,
            in_specs=(P("coils"), P()),
            out_specs=P(),
        )
        return 0.5 * part(operator.maps, x)

    np.testing.assert_allclose(jnp.conj(jax.jit(jax.grad(loss))(x)), expected[1], atol=2e-5)


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(maps=np.ones((4, 4))), "maps"),
        (dict(maps=np.full((1, 4, 4), np.nan)), "not finite"),
        (dict(weights=-np.ones(5)), "weights must be >= 0"),
        (dict(weights=np.zeros(5)), "no sample would be measured"),
        (dict(trajectory=np.full((5, 2), 3.0)), "cycles per field of view"),
    ],
)
def test_wrong_scans_are_refused(change, words):
    arguments = dict(maps=np.ones((1, 4, 4)), trajectory=np.zeros((5, 2)), weights=None) | change
    with pytest.raises(ValueError, match=words):
        NonCartesian.create(**arguments)


def test_data_with_nan_are_refused_by_the_likelihood():
    operator = NonCartesian.single((4, 4), np.zeros((5, 2)))
    with pytest.raises(ValueError, match="not finite"):
        op.GaussianLikelihood.create(operator, np.full((1, 5), np.nan), 1.0)


def _field(shape):
    rows, columns = np.indices(shape)
    return 80 * np.sin(rows / 2) - 60 * columns / shape[1]


def test_off_resonance_is_the_sum_over_voxels_at_each_time(x64):
    shape, maps, points = (7, 8), _maps((7, 8), 2), _points((7, 8), 90)
    field, times = _field(shape), np.linspace(1e-3, 21e-3, 30)
    operator = OffResonance.create(maps, points, times, field, tolerance=1e-6, width=8)
    each_time = np.broadcast_to(times, (3, 30)).ravel()
    turn = np.exp(-2j * np.pi * each_time[:, None] * field.ravel()[None])
    exact = np.tile(turn, (2, 1)) * _dense(points, shape, maps)
    forward, backward = jax.jit(lambda a: (a.matrix(), jnp.conj(a.H.matrix()).T))(operator)
    assert _gap(forward, exact) < 1e-6
    np.testing.assert_allclose(backward, forward, atol=1e-12)
    assert _gap(operator.gram(_image(shape)), exact.conj().T @ (exact @ np.ravel(_image(shape)))) < 1e-5


def test_no_off_resonance_is_one_segment_and_the_plain_scan():
    shape, maps, points = (6, 6), _maps((6, 6), 2, np.complex64), _points((6, 6))
    x, times = _image(shape, dtype=np.complex64), np.linspace(0, 0.02, 20)
    flat = OffResonance.create(maps, points, times, np.zeros(shape))
    assert len(flat.temporal) == 1
    np.testing.assert_allclose(flat(x), NonCartesian.create(maps, points)(x), atol=1e-6)
    # A constant frequency only turns the samples.
    turned = OffResonance.create(maps, points, times, np.full(shape, 100.0))
    assert len(turned.temporal) == 1
    phase = np.exp(-2j * np.pi * 100 * times).astype(np.complex64)
    np.testing.assert_allclose(turned(x), phase[None, None] * flat(x), atol=1e-5)


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-6])
def test_segments_keep_their_tolerance_between_the_fitted_frequencies(tolerance):
    times = np.linspace(0, 0.02, 101)
    b, tau = fit_segments(times, (-130.0, 70.0), tolerance)
    f = np.random.default_rng(0).uniform(-130, 70, 500)
    error = np.exp(-2j * np.pi * np.outer(f, tau)) @ b - np.exp(-2j * np.pi * np.outer(f, times))
    assert np.abs(error).max() < 1.1 * tolerance
    # Four cycles over the band: one segment a cycle, and a few more for the accuracy.
    assert 4 < len(tau) <= 15


def test_wrong_field_maps_are_refused():
    create = lambda **kw: OffResonance.create(np.ones((1, 4, 4)), np.zeros((99, 2)), **kw)
    with pytest.raises(ValueError, match="the field map is"):
        create(times=np.zeros(99), field=np.zeros((4, 5)))
    with pytest.raises(ValueError, match="times are"):
        create(times=np.zeros((2, 99)), field=np.zeros((4, 4)))
    with pytest.raises(ValueError, match="times are"):
        create(times=np.zeros(98), field=np.zeros((4, 4)))
    with pytest.raises(ValueError, match="check the units"):
        create(times=np.linspace(0, 20, 99), field=np.linspace(-200, 200, 16).reshape(4, 4))
    with pytest.raises(ValueError, match="not finite"):
        create(times=np.full(99, np.nan), field=np.zeros((4, 4)))

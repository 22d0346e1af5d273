"""Augmentation against closed forms: exact symmetries, linear ramps, known losses, bounds and laws of the draws."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax.data import affine, compose, crop, flip, intensity, rotation, smooth_phase, warp

SHAPES = [(9, 7, 2), (5, 6, 4, 1)]


moving = jax.jit(warp)


def image(shape, dtype=np.float32, seed=0):
    random = np.random.default_rng(seed)
    x = random.normal(size=shape)
    return jnp.asarray((x + 1j * random.normal(size=shape) if dtype == np.complex64 else x).astype(dtype))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
def test_flips(key, shape, dtype):
    x, axes = image(shape, dtype), tuple(range(len(shape) - 1))
    always, never = flip(axes, 1.0), flip(axes, 0.0)
    np.testing.assert_array_equal(always(key, x), np.flip(x, axes))
    np.testing.assert_array_equal(always(key, always(key, x)), x)
    np.testing.assert_array_equal(never(key, x), x)


def test_flips_of_axes_are_independent_and_of_the_given_chance():
    x = jnp.arange(4.0).reshape(2, 2, 1)
    seen = jax.jit(jax.vmap(flip((0, 1), 0.25), (0, None)))(jax.random.split(jax.random.key(1), 4000), x)[
        :, 0, 0, 0
    ]
    share = [float(jnp.mean(seen == corner)) for corner in range(4)]  # corner 2: first axis only
    np.testing.assert_allclose(share, [9 / 16, 3 / 16, 3 / 16, 1 / 16], atol=0.03)  # 4 standard errors


@pytest.mark.parametrize("spatial", [(7, 7), (8, 8)])
def test_a_quarter_turn_is_rot90(spatial):
    x = image((*spatial, 2), np.complex64)
    turned = moving(x, rotation(jnp.pi / 2), jnp.zeros(2))
    np.testing.assert_allclose(turned, np.rot90(x, axes=(0, 1)), atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_quarter_turns_of_a_volume_are_rot90(axis):
    x = image((5, 5, 5, 1))
    others = [(1, 2), (2, 0), (0, 1)][axis]  # right-handed: the axis, then these two
    turned = moving(x, rotation(jnp.pi / 2, 3.0 * jnp.eye(3)[axis]), jnp.zeros(3))
    np.testing.assert_allclose(turned, np.rot90(x, axes=others), atol=1e-5)


def test_rotation_matrices():
    axis, angle = jnp.array([1.0, -2.0, 0.5]), 0.7
    matrix = rotation(angle, axis)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(jnp.linalg.det(matrix), 1.0, rtol=1e-5)
    np.testing.assert_allclose(matrix @ axis, axis, atol=1e-6)
    np.testing.assert_allclose(jnp.trace(matrix), 1 + 2 * np.cos(angle), rtol=1e-5)


def test_warp_of_a_ramp_is_the_inverse_map():
    """Linear interpolation is exact on a linear function, away from the repeated border."""
    slope, matrix, shift = jnp.array([0.5, -2.0]), 1.25 * rotation(0.3), jnp.array([0.4, -1.3])
    grid = jnp.stack(jnp.meshgrid(jnp.arange(21.0), jnp.arange(17.0), indexing="ij"), -1)
    points = grid - jnp.array([10.0, 8.0])[None, None]
    moved = moving((points @ slope)[..., None], matrix, shift)[..., 0]
    expected = ((points - shift[None, None]) @ jnp.linalg.inv(matrix).T) @ slope
    np.testing.assert_allclose(moved[6:-6, 6:-6], expected[6:-6, 6:-6], atol=1e-4)


def test_warp_repeats_the_border():
    x = image((6, 5, 1))
    moved = moving(x, jnp.eye(2), jnp.array([2.0, 0.0]))
    np.testing.assert_allclose(moved, np.concatenate([x[:1], x[:1], x[:-2]]), atol=1e-6)


@pytest.mark.parametrize("frequency", [1 / 8, 1 / 4, 1 / 2])
def test_half_a_pixel_costs_the_stated_amplitude(frequency):
    wave = lambda p: np.cos(2 * np.pi * frequency * p)
    x = jnp.asarray(np.repeat(wave(np.arange(32.0))[:, None, None], 3, 1), jnp.float32)
    moved = moving(x, jnp.eye(2), jnp.array([0.5, 0.0]))[2:-2, 1, 0]
    np.testing.assert_allclose(moved, np.cos(np.pi * frequency) * wave(np.arange(2, 30) - 0.5), atol=1e-5)


def test_affine_draws_stay_in_their_ranges(key):
    """The ramps along both axes give back the matrix and the shift, so their laws can be read."""
    turn, scales, reach = 20.0, (0.8, 1.25), 2.0
    points = jnp.stack(jnp.meshgrid(jnp.arange(-10.0, 11), jnp.arange(-10.0, 11), indexing="ij"), -1)
    draw = jax.jit(jax.vmap(affine(turn, scales, reach), (0, None)))
    ramps = np.asarray(draw(jax.random.split(key, 200), points), np.float64)
    centre = ramps[:, 10, 10]
    inverse = np.stack([ramps[:, 11, 10] - centre, ramps[:, 10, 11] - centre], -1)
    scale = np.linalg.det(inverse) ** -0.5
    angle = np.degrees(np.arctan2(inverse[:, 0, 1], inverse[:, 0, 0]))
    shift = -np.einsum("nij,nj->ni", np.linalg.inv(inverse), centre)
    for value, low, high in [(angle, -turn, turn), (np.log(scale), *np.log(scales)), (shift, -reach, reach)]:
        assert low - 1e-3 <= value.min() and value.max() <= high + 1e-3
        # A uniform law fills its range and has the middle as mean, here within four standard errors.
        assert value.max() - value.min() > 0.9 * (high - low)
        np.testing.assert_allclose(value.mean(), (low + high) / 2, atol=4 * (high - low) / np.sqrt(12 * 200))


def test_a_still_affine_is_the_identity(key):
    for shape in SHAPES:
        np.testing.assert_allclose(jax.jit(affine(0.0))(key, image(shape)), image(shape), atol=1e-5)


def test_intensity_gains_and_powers(key):
    x = image((6, 5, 2), np.complex64)
    np.testing.assert_array_equal(intensity((1.0, 1.0))(key, x), x)
    np.testing.assert_allclose(intensity((3.0, 3.0))(key, x), 3 * x, rtol=1e-6)
    changed = intensity((2.0, 2.0), (1.7, 1.7))(key, x)
    np.testing.assert_allclose(jnp.abs(changed), 2 * jnp.abs(x) ** 1.7, rtol=1e-4)
    np.testing.assert_allclose(jnp.angle(changed), jnp.angle(x), atol=1e-5)
    real = image((6, 5, 2))
    np.testing.assert_allclose(
        intensity((1.0, 1.0), (0.5, 0.5))(key, real), np.sign(real) * np.sqrt(np.abs(real)), rtol=1e-4
    )


def test_intensity_of_an_empty_background_has_a_gradient(key):
    x = jnp.zeros((3, 3, 1)).at[1, 1].set(4.0)
    darker = intensity((1.0, 1.0), (0.5, 0.5))
    gradient = jax.jit(jax.grad(lambda x: darker(key, x).sum()))(x)
    np.testing.assert_allclose(gradient[1, 1, 0], 0.25, rtol=1e-5)  # d sqrt(x) = 1 / (2 sqrt(x))
    assert np.all(np.isfinite(gradient)) and np.array_equal(darker(key, x) == 0, x == 0)


@pytest.mark.parametrize("shape", SHAPES)
def test_phase_keeps_the_magnitude_and_is_shared_by_channels(key, shape):
    x, change = image(shape), jax.jit(smooth_phase())
    y = change(key, x)
    assert y.dtype == jnp.complex64
    np.testing.assert_allclose(jnp.abs(y), jnp.abs(x), rtol=1e-5)
    factor = change(key, jnp.ones(shape))
    np.testing.assert_array_equal(factor, jnp.broadcast_to(factor[..., :1], shape))
    np.testing.assert_allclose(y, x * factor, atol=1e-6)
    twice = jax.jit(smooth_phase())(key, y)
    np.testing.assert_allclose(twice, x * factor**2, atol=1e-5)


@functools.cache
def phases(count, size, turns, dimensions=2):
    keys = jax.random.split(jax.random.key(5), count)
    y = jax.jit(jax.vmap(smooth_phase(turns), (0, None)))(keys, jnp.ones((size,) * dimensions + (1,)))
    phase = np.angle(y[..., 0])
    for axis in range(1, dimensions + 1):
        phase = np.unwrap(phase, axis=axis)
    return phase / (2 * np.pi)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_phase_is_smooth_and_spans_what_is_asked(dimensions):
    turns, size = 1.5, 9 if dimensions == 3 else 33
    cycles = phases(100, size, turns, dimensions)
    span = np.ptp(cycles.reshape(100, -1), axis=1)
    assert span.max() <= turns + 1e-3 and span.min() >= 0
    # The span is uniform in [0, turns]: its mean within four standard errors, and both ends are reached.
    np.testing.assert_allclose(span.mean(), turns / 2, atol=4 * turns / np.sqrt(12 * 100))
    assert span.max() > 0.9 * turns and span.min() < 0.1 * turns
    # Markov: a cubic on [-1, 1] is at most 3^2 half ranges steep a unit, so 4.5 spans a unit; waves stay below.
    step = max(np.abs(np.diff(cycles, axis=axis)).max() for axis in range(1, dimensions + 1))
    assert step <= 4.5 * turns * 2 / (size - 1)
    offset = np.exp(2j * np.pi * cycles[:, *(0,) * dimensions])
    assert np.abs(offset.mean()) < 4 / np.sqrt(2 * 100)  # global phase has no preferred angle


def test_phase_is_a_field_on_the_image_whatever_its_size():
    coarse, fine = phases(100, 17, 1.5), phases(100, 33, 1.5)[:, ::2, ::2]
    gap = (fine - coarse) - np.round(fine[:, :1, :1] - coarse[:, :1, :1])
    assert np.abs(gap).max() < 0.015  # only the range that scales the field is read from the pixels


def test_crops_are_windows_and_every_position_is_equally_likely(key):
    x = jnp.arange(5.0 * 4).reshape(5, 4, 1)
    windows = jax.jit(jax.vmap(crop((3, 3)), (0, None)))(jax.random.split(key, 3000), x)
    start = windows[:, 0, 0, 0].astype(int)
    inside = np.array([[x[r : r + 3, c : c + 3] for c in range(2)] for r in range(3)])
    np.testing.assert_array_equal(windows, inside[start // 4, start % 4])
    counts = np.bincount(start // 4 * 2 + start % 4, minlength=6)
    np.testing.assert_allclose(counts, 500, atol=4 * np.sqrt(3000 * 5 / 36))
    volume = image((4, 5, 6, 2))
    np.testing.assert_array_equal(crop((4, 5, 6))(key, volume), volume)


PIPELINE = compose(
    flip((1,)), affine(10.0, (0.9, 1.1), 1.0), intensity((0.8, 1.2), (0.8, 1.2)), smooth_phase(), crop((6, 5))
)


def test_compose_folds_the_number_into_the_key(key):
    x = image((8, 8, 1))
    parts = [flip((0, 1)), crop((4, 4)), flip((0, 1))]
    expected = x
    for i, part in enumerate(parts):
        expected = part(jax.random.fold_in(key, i), expected)
    np.testing.assert_array_equal(compose(*parts)(key, x), expected)
    np.testing.assert_array_equal(compose()(key, x), x)


def test_a_pipeline_is_a_function_of_key_and_image(key):
    keys, x = jax.random.split(key, 4), image((4, 8, 8, 1))
    together = jax.jit(jax.vmap(PIPELINE))(keys, x)
    alone = jax.jit(PIPELINE)
    for i in range(4):
        np.testing.assert_allclose(together[i], alone(keys[i], x[i]), atol=1e-5)
    np.testing.assert_array_equal(alone(keys[0], x[0]), alone(keys[0], x[0]))
    assert np.abs(alone(keys[0], x[0]) - alone(keys[1], x[0])).max() > 0.1


def test_a_pipeline_is_differentiable(key):
    x, direction = jnp.abs(image((8, 8, 1))) + 0.5, image((8, 8, 1), seed=1)
    f = jax.jit(lambda x: jnp.sum(jnp.real(PIPELINE(key, x)) ** 2))
    numeric = (f(x + 1e-2 * direction) - f(x - 1e-2 * direction)) / 2e-2
    np.testing.assert_allclose(jnp.sum(jax.grad(f)(x) * direction), numeric, rtol=1e-3)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: flip((0,), 1.5), "probability 1.5"),
        (lambda: affine(5.0, (1.1, 0.9)), "smaller first"),
        (lambda: affine(-5.0), "negative"),
        (lambda: intensity((0.0, 1.0)), "two positive numbers"),
        (lambda: smooth_phase(-1.0), "turns -1.0"),
        (lambda: flip((2,))(jax.random.key(0), jnp.ones((4, 4, 1))), "use 0 to 1"),
        (lambda: crop((5, 4))(jax.random.key(0), jnp.ones((4, 4, 1))), "pad it first"),
        (lambda: crop((4,))(jax.random.key(0), jnp.ones((4, 4, 1))), "cannot cut"),
        (lambda: affine(5.0)(jax.random.key(0), jnp.ones((4, 4))), "a batch is vmap"),
    ],
)
def test_refusals_are_one_clear_line(make, match):
    with pytest.raises(ValueError, match=match) as caught:
        make()
    assert "\n" not in str(caught.value)

"""Editing with consistency functions: known parts to the bit, dense forms, the noise law, a correlated Gaussian."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from pgm_jax.core import chain, lift
from pgm_jax.guidance import channel_fill, inpainting, replace_known, super_resolution
from pgm_jax.operators import Downsample
from pgm_jax.processes import EDM, VP, PFGMpp, StudentT
from pgm_jax.samplers import consistency, sample

_EDM, GRID = EDM(), [80.0, 2.0, 0.5, 0.0]
CASES = {
    "inf": (EDM(), GRID, jnp.float32),
    "8": (PFGMpp(8), GRID, jnp.complex64),
    "vp 8": (VP(law=StudentT(8.0)), [1.0, 0.6, 0.3, 0.0], jnp.float32),
}


def smooth(x_t, t, cond=None):
    """A nonlinear function that mixes neighbours."""
    return jnp.tanh(x_t + 0.3 * jnp.roll(x_t, 1, axis=0)) / (1 + t)


def drawn(guidance, shape, process=_EDM, grid=GRID, denoise=smooth, dtype=jnp.float32, seed=0):
    draw = lambda key: sample(
        key, consistency(), denoise, process, grid, shape=shape, guidance=guidance, dtype=dtype
    )
    return jax.jit(draw)(jax.random.key(seed))


def applied(guidance, x_t, t=0.7):
    """The clean image of one guided evaluation, and that of the bare one."""
    estimator = guidance(lift(EDM(), smooth))
    run = jax.jit(lambda x_t, t: estimator.apply(jax.random.key(0), x_t, t, estimator.init(x_t))[0].x0)
    return run(x_t, jnp.asarray(t)), smooth(x_t, t)


@pytest.mark.parametrize("name", CASES)
def test_known_voxels_are_the_images_bit_for_bit(name):
    process, grid, dtype = CASES[name]
    rng = np.random.default_rng(0)
    mask = (rng.uniform(size=(6, 5, 1)) < 0.5).astype(np.float32)
    image = rng.normal(size=(6, 5, 1)).astype(dtype)
    # What is not known is not read.
    hidden = np.where(mask > 0, image, np.nan).astype(dtype)
    draws = drawn(inpainting(mask, hidden), (3, 6, 5, 1), process, grid, dtype=dtype)
    kept = np.broadcast_to(mask > 0, draws.shape)
    assert np.array_equal(draws[kept], np.broadcast_to(image, draws.shape)[kept])
    assert np.isfinite(draws).all() and np.std(draws[~kept]) > 0


def test_independent_voxels_are_drawn_as_without_editing():
    """The posterior of independent voxels is exact: those that are not known are the unguided sample's."""
    mask, image = np.arange(8) % 2, np.linspace(-1, 1, 8, dtype=np.float32)
    denoise = lambda x_t, t, cond=None: x_t * jnp.sqrt(0.25 / (0.25 + t**2))
    edited, free = (drawn(guidance, (50, 8), denoise=denoise) for guidance in (inpainting(mask, image), None))
    np.testing.assert_allclose(edited[:, ::2], free[:, ::2], rtol=1e-5)
    assert np.array_equal(edited[:, 1::2], np.tile(image[1::2], (50, 1)))


@pytest.mark.parametrize("D", [8.0, math.inf])
def test_the_next_state_has_the_noise_of_the_law(D):
    """Over known and filled voxels together: |n|^2 / N ~ F(N, D), and the shared radius cancels in their ratio."""
    size, s = 10, 0.5
    mask, image = np.arange(size) % 2, np.full(size, 3.0, np.float32)
    flat = lambda x_t, t, cond=None: jnp.full_like(x_t, -1.0)
    clean = np.where(mask, 3.0, -1.0)
    draw = lambda key: sample(
        key, consistency(), flat, PFGMpp(D), [5.0, s, 0.0], shape=(4000, size),
        guidance=inpainting(mask, image), trace=lambda state, t, s: state.x,
    )[1][:, 0]  # fmt: skip
    noise = (np.asarray(jax.jit(draw)(jax.random.key(1)), np.float64) - clean) / s
    energy = lambda part: np.sum(part**2, axis=1)
    law = stats.f(size, D) if D < math.inf else stats.chi2(size, scale=1 / size)
    assert stats.kstest(energy(noise) / size, law.cdf).pvalue > 1e-3
    ratio = energy(noise[:, ::2]) / energy(noise[:, 1::2])
    assert stats.kstest(ratio, stats.f(size // 2, size // 2).cdf).pvalue > 1e-3


@pytest.mark.parametrize("kind", [float, complex])
def test_replacement_is_its_dense_form(x64, kind):
    """x0 <- Q^H (m y + (1 - m) Q x0) of a random unitary Q, and once is as good as twice."""
    rng = np.random.default_rng(1)
    draw = lambda *shape: rng.normal(size=shape) + (1j * rng.normal(size=shape) if kind is complex else 0)
    q, mask, y = np.linalg.qr(draw(8, 8))[0], np.arange(8) < 3, draw(8)
    guidance = replace_known(lambda x: jnp.asarray(q) @ x, lambda c: jnp.asarray(q).conj().T @ c, mask, y)
    found, x0 = applied(guidance, jnp.asarray(draw(8)))
    np.testing.assert_allclose(found, q.conj().T @ (mask * y + (1 - mask) * (q @ x0)), atol=1e-13)
    np.testing.assert_allclose((q @ found)[:3], y[:3], atol=1e-13)
    twice, _ = applied(chain(guidance, guidance), jnp.asarray(draw(8)) * 0 + 0.3)
    once, _ = applied(guidance, jnp.full(8, 0.3, twice.dtype))
    np.testing.assert_allclose(twice, once, atol=1e-13)


@pytest.mark.parametrize(
    "shape, factor", [((4, 6, 2), 2), ((4, 6, 1), (1, 3)), ((8, 1), 4), ((2, 4, 2, 1), 2)]
)
def test_super_resolution_is_a_replacement_in_blocks(x64, shape, factor):
    """Any orthogonal map of a block whose first row is constant gives it; its means are known."""
    rng = np.random.default_rng(2)
    factors = np.broadcast_to(factor, len(shape) - 1)
    measure = Downsample(shape, tuple(int(f) for f in factors))
    low = rng.normal(size=measure.range.shape)
    # The rows of the means, completed by others.
    size = math.prod(shape)
    means = np.asarray(jax.vmap(lambda x: measure(x).ravel(), out_axes=1)(jnp.eye(size).reshape(-1, *shape)))
    root = math.sqrt(math.prod(factors))
    q = np.linalg.svd(means, full_matrices=True)[2]
    q[: low.size] = root * means
    dense = replace_known(
        lambda x: jnp.asarray(q) @ x.ravel(),
        lambda c: (jnp.asarray(q).T @ c).reshape(shape),
        np.arange(size) < low.size,
        np.append(root * low.ravel(), np.zeros(size - low.size)),
    )
    np.testing.assert_allclose(q @ q.T, np.eye(size), atol=1e-13)
    x_t = jnp.asarray(rng.normal(size=shape))
    found, _ = applied(super_resolution(low, factor), x_t)
    np.testing.assert_allclose(found, applied(dense, x_t)[0], atol=1e-13)
    np.testing.assert_allclose(measure(found), low, atol=1e-14)


def test_super_resolution_keeps_the_coarse_image():
    """Its block means to rounding, and for blocks of one voxel the image itself, bit for bit."""
    rng = np.random.default_rng(3)
    low = (rng.normal(size=(3, 4, 1)) + 1j * rng.normal(size=(3, 4, 1))).astype(np.complex64)
    draws = drawn(super_resolution(low, 2), (2, 6, 8, 1), dtype=jnp.complex64)
    means = np.asarray(draws).reshape(2, 3, 2, 4, 2, 1).mean((2, 4))
    np.testing.assert_allclose(means, np.broadcast_to(low, means.shape), rtol=1e-6, atol=1e-6)
    same, _ = applied(super_resolution(low, 1), jnp.asarray(low[::-1]))
    assert np.array_equal(same, low)


def test_channels_are_filled_from_known_ones():
    rng = np.random.default_rng(4)
    image = rng.normal(size=(4, 4, 3)).astype(np.float32)
    draws = drawn(channel_fill([0, 2], image), (2, 4, 4, 3))
    assert np.array_equal(draws[..., ::2], np.broadcast_to(image[..., ::2], (2, 4, 4, 2)))
    assert not np.isclose(draws[..., 1], image[..., 1]).any()
    # Colours of a grey image: the first row of an orthogonal matrix is known.
    mixing = np.linalg.svd(np.full((1, 3), 3**-0.5))[2]
    coloured = drawn(channel_fill(0, image, mixing), (2, 4, 4, 3))
    grey = np.broadcast_to(image.mean(-1), (2, 4, 4))
    np.testing.assert_allclose(coloured.mean(-1), grey, atol=2e-6)
    assert np.std(coloured, axis=-1).min() > 1e-3


def test_the_real_part_is_filled_from_the_imaginary_part():
    rng = np.random.default_rng(5)
    image = (rng.normal(size=(4, 4, 1)) + 1j * rng.normal(size=(4, 4, 1))).astype(np.complex64)
    draws = drawn(channel_fill(1, image), (2, 4, 4, 1), dtype=jnp.complex64)
    assert np.array_equal(draws.imag, np.broadcast_to(image.imag, draws.shape))
    assert not np.isclose(draws.real, image.real).any()


# A correlated Gaussian, whose consistency function is f(x, t) = C^(1/2) (C + t^2)^(-1/2) x.
PIXELS = 16
PLACES = np.arange(PIXELS)
COVARIANCE = 0.25 * 0.9 ** np.abs(PLACES[:, None] - PLACES)
KNOWN = PLACES % 4 == 0


def gaussian_function(t):
    values, vectors = np.linalg.eigh(COVARIANCE)
    return (vectors * np.sqrt(values / (values + t**2))) @ vectors.T


def edited_moments(grid):
    """Mean, as a matrix on the known pixels, and covariance of the edited sample: every step is affine."""
    known, free = np.diag(1.0 * KNOWN), np.diag(1.0 - KNOWN)
    mean, cov = np.zeros((PIXELS, PIXELS)), grid[0] ** 2 * np.eye(PIXELS)
    for t, s in zip(grid[:-1], grid[1:], strict=True):
        step = free @ gaussian_function(t)
        mean, cov = step @ mean + known, step @ cov @ step.T + s**2 * np.eye(PIXELS)
    return mean, cov


def grid_of(levels):
    return np.append(np.geomspace(80.0, 0.1, levels) if levels > 1 else 80.0, 0.0)


def test_filled_pixels_come_near_the_conditional_mean():
    """RMS distance to E[x | y] in deviations, over all y: 1.34 without editing, .46 for posterior draws."""
    gain = np.zeros((PIXELS, PIXELS))
    gain[:, KNOWN] = COVARIANCE[:, KNOWN] @ np.linalg.inv(COVARIANCE[np.ix_(KNOWN, KNOWN)])

    def distance(mean, cov):
        gap = (mean - gain) @ COVARIANCE @ (mean - gain).T + cov
        return np.sqrt(np.mean(np.diag(gap)[~KNOWN])) / np.sqrt(COVARIANCE[0, 0])

    unguided = distance(np.zeros_like(gain), COVARIANCE)
    posterior = distance(gain, COVARIANCE - gain @ COVARIANCE)
    found = [distance(*edited_moments(grid_of(levels))) for levels in (1, 2, 4, 16, 64)]
    np.testing.assert_allclose([unguided, posterior], [1.337, 0.462], atol=1e-3)
    np.testing.assert_allclose(found, [1.336, 1.284, 1.104, 0.754, 0.545], atol=1e-3)


def test_edited_samples_have_the_moments_of_the_recursion(x64):
    image = np.linalg.cholesky(COVARIANCE) @ np.random.default_rng(6).normal(size=PIXELS)
    values, vectors = np.linalg.eigh(COVARIANCE)

    def exact(x_t, t, cond=None):
        return jnp.asarray(vectors) @ (jnp.sqrt(values / (values + t**2)) * (jnp.asarray(vectors.T) @ x_t))

    grid, count = grid_of(8), 4000
    draws = drawn(inpainting(KNOWN, image), (count, PIXELS), grid=grid, denoise=exact, dtype=jnp.float64)
    mean, cov = edited_moments(grid)
    spread = np.sqrt(np.diag(cov))
    np.testing.assert_array_less(np.abs(draws.mean(0) - mean @ image), 5 * spread / count**0.5 + 1e-12)
    np.testing.assert_allclose(draws.std(0)[~KNOWN], spread[~KNOWN], rtol=5 / (2 * count) ** 0.5)


IMAGE = np.zeros((4, 4, 2), np.float32)


@pytest.mark.parametrize(
    "make, told",
    [
        (lambda: inpainting(np.ones((4, 4, 1)), IMAGE[:2]), r"y has shape \(2, 4, 2\), but the sample's is"),
        (lambda: inpainting(np.ones((3, 1, 1)), IMAGE), "does not broadcast"),
        (lambda: inpainting(np.ones((2, 4, 4, 2)), IMAGE), "does not broadcast"),
        (lambda: super_resolution(IMAGE, 2), r"shape \(8, 8, 2\), but the sample's is \(4, 4, 2\)"),
        (lambda: super_resolution(IMAGE, 1.5), "whole factor"),
        (lambda: super_resolution(IMAGE, (2, 2, 2)), "one whole factor >= 1 an axis"),
        (lambda: channel_fill(2, IMAGE), "channels 0 to 1, got 2"),
        (lambda: channel_fill([], IMAGE), "channels 0 to 1"),
        (lambda: channel_fill(0, IMAGE, np.ones((2, 2))), "orthogonal matrix"),
        (lambda: channel_fill(0, IMAGE.astype(complex)), "y has shape"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(make, told):
    with pytest.raises(ValueError, match=told) as caught:
        applied(make(), jnp.zeros((4, 4, 2)))
    assert "\n" not in str(caught.value)

"""Projections of the state: Song, score-MRI and MCG against dense forms; noise-free data are reproduced."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles.problems import gaussian_problem

from pgm_jax.core import lift
from pgm_jax.guidance import dps, mcg, score_mri, song
from pgm_jax.operators import (
    Fourier,
    GaussianLikelihood,
    ImageGrid,
    Parallel,
    ParallelBeam,
    Sense,
    birdcage_maps,
)
from pgm_jax.processes import EDM, VP, karras
from pgm_jax.reconstruction import fbp
from pgm_jax.samplers import ancestral, ddim, sample_one


def _apply(guidance, denoise, process, x_t, t):
    @jax.jit
    def apply(x_t, t):
        estimator = guidance(lift(process, denoise))
        return estimator.apply(jax.random.key(0), x_t, t, estimator.init(x_t))[0]

    return apply(x_t, jnp.asarray(t))


def _nonlinear(x_t, t, cond=None):
    return jnp.tanh(x_t + 0.3 * jnp.roll(x_t, 1))


def _complex(rng, *shape):
    return jnp.asarray(rng.normal(size=shape) + 1j * rng.normal(size=shape))


@pytest.mark.parametrize("process", [EDM(), VP()], ids=["edm", "vp"])
def test_song_projects_the_next_state_on_noised_data(x64, process):
    """Eq. 27 as printed, of a complex image, at any next level: the noise is that of one image-space draw."""
    rng = np.random.default_rng(0)
    fourier, weight = Fourier((4, 4, 1)), 0.7
    mask = jnp.asarray(rng.uniform(size=(4, 4, 1)) < 0.5)
    y, x_t, t = _complex(rng, 4, 4, 1) * mask, _complex(rng, 4, 4, 1), 0.6
    denoise = lambda x, t, cond=None: 0.4 * x
    plain = lift(process, denoise).apply(None, x_t, jnp.asarray(t), ())[0]
    moved = _apply(song(fourier, fourier.adjoint, mask, y, weight), denoise, process, x_t, t)
    # The draw, read off at weight 1 with every coordinate measured.
    fresh = _apply(song(fourier, fourier.adjoint, 1, y), denoise, process, x_t, t).noise
    for s in (0.3, 0.05):
        x_s, v = process.mix(plain, s), fourier(process.mix(plain, s))
        noisy = process.alpha(s) * y + process.sigma(s) * fourier(fresh)
        mixed = weight * mask * noisy + (1 - weight) * mask * v + (1 - mask) * v
        np.testing.assert_allclose(process.mix(moved, s), fourier.adjoint(mixed), atol=1e-14)
        assert float(jnp.max(jnp.abs(process.mix(moved, s) - x_s))) > 0.05
    assert 0.7 < float(jnp.mean(jnp.abs(fresh) ** 2)) / 2 < 1.4


def test_song_reproduces_the_data_of_a_real_image(x64):
    """Noise-free k-space on a mask symmetric about DC: the last image has exactly those data."""
    rng = np.random.default_rng(1)
    fourier = Fourier((5, 5, 1))
    mask = np.zeros((5, 5, 1))
    mask[1:4] = 1
    y = mask * fourier(jnp.asarray(rng.normal(size=(5, 5, 1))))
    x = sample_one(
        jax.random.key(0), ancestral(), lambda x, t, c: x / (1 + t**2), EDM(), karras(6), shape=(5, 5, 1),
        dtype=jnp.float64, guidance=song(fourier, fourier.adjoint, mask, y),
    )  # fmt: skip
    assert x.dtype == jnp.float64
    np.testing.assert_allclose(mask * fourier(x), y, atol=1e-13)


def test_song_with_filtered_backprojection_fits_measured_views(key):
    """CT: T the projector at all views, FBP its approximate inverse: the measured views are nearly fitted."""
    projector = ParallelBeam(ImageGrid((16, 16)), Parallel(np.pi * np.arange(24) / 24, 25))
    rows, columns = np.mgrid[-1:1:16j, -1:1:16j]
    truth = jnp.asarray(np.exp(-6 * ((rows - 0.1) ** 2 + (columns + 0.2) ** 2))[..., None], jnp.float32)
    mask = jnp.zeros((24, 1, 1)).at[::3].set(1.0)
    y = mask * projector(truth)

    @jax.jit
    def gap(weight):
        guidance = song(projector, lambda v: fbp(projector, v), mask, y, weight)
        denoise = lambda x, t, c: x / (1 + t**2)
        x = sample_one(key, ddim(), denoise, EDM(), karras(12), shape=truth.shape, guidance=guidance)
        return jnp.linalg.norm(mask * projector(x) - y) / jnp.linalg.norm(y)

    gaps = [float(gap(weight)) for weight in (0.0, 1.0)]
    assert gaps[1] < 0.5 * gaps[0], gaps


# Score-MRI.


def test_score_mri_replaces_the_measured_k_space(x64):
    """Weight 1 on a masked orthonormal transform: measured entries of x_s are alpha y, the others untouched."""
    rng = np.random.default_rng(2)
    mask = jnp.asarray([1.0, 0.0, 1.0, 1.0])
    operator = Sense.single(4, 4, mask)
    likelihood = GaussianLikelihood.create(operator, operator(_complex(rng, 4, 4, 1)), 0.1)
    x_t, process, t = _complex(rng, 4, 4, 1), VP(), 0.6
    denoise = lambda x, t, cond=None: 0.4 * x
    plain = lift(process, denoise).apply(None, x_t, jnp.asarray(t), ())[0]
    moved = _apply(score_mri(likelihood), denoise, process, x_t, t)
    whole = operator.replace(mask=jnp.ones(4))
    for s in (0.5, 0.0):
        expected = jnp.where(mask > 0, process.alpha(s) * likelihood.y, whole(process.mix(plain, s)))
        np.testing.assert_allclose(whole(process.mix(moved, s)), expected, atol=1e-14)


def test_score_mri_of_several_coils_is_a_kaczmarz_step(x64):
    """`x + lambda A^H (y - A x)` with lambda a function of the level."""
    rng = np.random.default_rng(3)
    operator = Sense(birdcage_maps(3, 4, 4).astype(complex), jnp.asarray([1.0, 0.0, 1.0, 0.0]))
    likelihood = GaussianLikelihood.create(operator, operator(_complex(rng, 4, 4, 1)), 0.1)
    x_t, denoise = _complex(rng, 4, 4, 1), lambda x, t, cond=None: 0.4 * x
    guidance = score_mri(likelihood, lambda process, t: 0.2 + 0.8 * process.sigma(t))
    plain = lift(EDM(), denoise).apply(None, x_t, jnp.asarray(0.5), ())[0]
    moved, x_s = _apply(guidance, denoise, EDM(), x_t, 0.5), EDM().mix(plain, 0.2)
    expected = x_s + 0.6 * operator.adjoint(likelihood.y - operator(x_s))
    np.testing.assert_allclose(EDM().mix(moved, 0.2), expected, atol=1e-14)


# MCG.


def test_mcg_is_a_gradient_and_a_projection(x64):
    """x0 by DPS moves to the nearest image that fits y, the noise to the nearest with the drawn data noise."""
    problem, process, x_t, t = gaussian_problem(), VP(), jnp.linspace(-1, 2, 8), 0.4
    a = jnp.asarray(problem.matrix)
    inverse = jnp.linalg.pinv(a)
    stepped = _apply(dps(problem.likelihood, 0.3), _nonlinear, process, x_t, t)
    found = _apply(mcg(problem.likelihood, 0.3), _nonlinear, process, x_t, t)
    x0 = stepped.x0 + inverse @ (problem.likelihood.y - a @ stepped.x0)
    np.testing.assert_allclose(found.x0, x0, atol=1e-12)
    null = jnp.eye(8) - inverse @ a
    np.testing.assert_allclose(null @ found.noise, null @ stepped.noise, atol=1e-12)
    assert float(jnp.linalg.norm(a @ (found.noise - stepped.noise))) > 0.1


@pytest.mark.parametrize("coils", [1, 3])
def test_mcg_reproduces_noise_free_complex_data(x64, coils):
    """The last image fits the k-space of several coils as well, by conjugate gradients."""
    rng = np.random.default_rng(4)
    operator = Sense(birdcage_maps(coils, 4, 4).astype(complex), jnp.asarray([1.0, 0.0, 1.0, 0.0]))
    y = operator(_complex(rng, 4, 4, 1))
    guidance = mcg(GaussianLikelihood.create(operator, y, 0.0), 0.2, steps=20)
    x = sample_one(
        jax.random.key(0), ancestral(), lambda x, t, c: x / (1 + t**2), EDM(), karras(4), shape=(4, 4, 1),
        dtype=jnp.complex128, guidance=guidance,
    )  # fmt: skip
    np.testing.assert_allclose(operator(x), y, atol=1e-9)

"""The consistency posterior against its steps by hand, for real and complex images and every noise law."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from untrained import untrained_prior

from pgm_jax import priors
from pgm_jax.operators import Diagonal, GaussianLikelihood
from pgm_jax.recipes import ct, mri
from pgm_jax.recipes.consistency_posterior import (
    FewDraws,
    FewSteps,
    annealed,
    consistency_posterior,
    few_step_image,
)
from pgm_jax.reconstruction import piccs

GAINS = jnp.linspace(0.0, 1.0, 64).reshape(8, 8, 1)
NOISE = 0.05


def problem(dtype):
    """First image and likelihood of a scan that sees each pixel with a gain of its own."""
    first, y = (jax.random.normal(jax.random.key(n), GAINS.shape, dtype) for n in range(2))
    return first, GaussianLikelihood.create(Diagonal(GAINS.astype(dtype)), y, NOISE)


@pytest.mark.parametrize("reads", [True, False])
@pytest.mark.parametrize("D, dtype", [(8, jnp.float32), ("inf", jnp.complex64)])
def test_the_last_evaluation_is_corrected_by_the_measurement(reads, D, dtype, tmp_path):
    """By hand from the noisy image that the network saw, which a second run shows."""
    prior = untrained_prior(tmp_path, "ect", D, reads, channels=2 if dtype == jnp.complex64 else 1)
    (first, likelihood), chosen = problem(dtype), FewDraws((0.4, 0.1), trust=2.0, spread=0.2, cg=30)
    seen, clean = [], prior.denoiser()

    class Watched(priors.LearnedPrior):
        def denoiser(self):
            def denoise(x_t, t, cond=None):
                jax.debug.callback(lambda *row: seen.append(row), x_t, t)
                return clean(x_t, t, cond)

            return denoise

    watched = Watched(**{f.name: getattr(prior, f.name) for f in dataclasses.fields(prior)})
    found = consistency_posterior(jax.random.key(0), watched, likelihood, first, chosen, draws=1)
    jax.effects_barrier()
    seen.sort(key=lambda row: -row[1])
    levels = [float(t) for _, t in seen]
    np.testing.assert_allclose(levels, [0.4, 0.1], rtol=1e-6)
    cond = {"image": first} if reads else None
    x0 = [clean(jnp.asarray(x), jnp.float32(t), cond) for x, t in seen]
    v = [2.0 / (1 / t**2 + 1 / 0.2**2) for t in levels]
    weighed = lambda x, w: (x / w + GAINS * likelihood.y / NOISE**2) / (1 / w + GAINS**2 / NOISE**2)
    corrected = [weighed(*pair) for pair in zip(x0, v, strict=True)]
    np.testing.assert_allclose(found.draws[0], corrected[1], rtol=1e-3, atol=1e-4)
    # New noise around the first image, then around the corrected one: of the size of the level.
    for x, centre, level in zip((seen[0][0], seen[1][0]), (first, corrected[0]), levels, strict=True):
        spread = np.sqrt(np.mean(np.abs(x - centre) ** 2) / (2 if dtype == jnp.complex64 else 1))
        assert 0.3 * level < spread < 3 * level


def test_the_network_is_given_the_first_image(tmp_path):
    prior, (first, likelihood) = untrained_prior(tmp_path, "ect", 64, True), problem(jnp.float32)
    run = lambda shown: (
        consistency_posterior(jax.random.key(0), prior, likelihood, shown, FewDraws((0.4,)), draws=2).draws
    )
    assert float(jnp.abs(run(first) - run(first + 0.1)).max()) > 1e-3
    assert float(jnp.abs(run(first)[0] - run(first)[1]).max()) > 1e-3


@pytest.mark.parametrize("levels", [(), (0.1, 0.4), (0.4, -0.1)])
def test_impossible_levels_are_refused(levels, tmp_path):
    prior, (first, likelihood) = untrained_prior(tmp_path, "ect"), problem(jnp.float32)
    with pytest.raises(ValueError, match="levels|falls|fall"):
        consistency_posterior(jax.random.key(0), prior, likelihood, first, FewDraws(levels))


@pytest.mark.parametrize("dtype, reads", [(jnp.float32, True), (jnp.complex64, False)])
def test_one_image_is_plug_and_play_corrected_by_piccs(dtype, reads, tmp_path):
    """By hand, for counts of different noise; real images stay positive."""
    channels, rows = (
        2 if dtype == jnp.complex64 else 1,
        ((0.4, 0.5, 8.0, 0.7, 0.3), (0.1, 1.2, 4.0, 1.0, 0.0)),
    )
    prior, (first, likelihood) = (
        untrained_prior(tmp_path, "ect", 64, reads, channels=channels),
        problem(dtype),
    )
    weights = jnp.linspace(0.2, 2.0, 64).reshape(8, 8, 1)
    likelihood = GaussianLikelihood.create(likelihood.operator, likelihood.y, NOISE, weights)
    found = few_step_image(prior, likelihood, first, FewSteps(rows, "piccs", 60))
    cond, denoise, x, u = {"image": first} if reads else None, prior.denoiser(), first, first
    root = jnp.sqrt(weights) / NOISE
    operator, y = Diagonal(root.astype(dtype)) @ likelihood.operator, root * likelihood.y
    for level, relax, weight, share, beta in rows:
        z = u + relax * (denoise(u, jnp.float32(level), cond) - u)
        new, _ = piccs(operator, y, z, weight, share, 60, keep_positive=dtype == jnp.float32)
        u, x = new + beta * (new - x), new
    np.testing.assert_allclose(found, x, rtol=1e-3, atol=1e-3)
    assert dtype == jnp.complex64 or found.min() >= 0


def test_one_image_is_plug_and_play_corrected_by_the_proximal_map(tmp_path):
    prior, (first, likelihood) = untrained_prior(tmp_path, "ect", 64, True), problem(jnp.float32)
    rows = ((0.4, 0.5, 0.1, 0.3), (0.1, 1.2, 0.4, 0.0))
    found = few_step_image(prior, likelihood, first, FewSteps(rows, "prox", 30))
    denoise, x, u = prior.denoiser(), first, first
    for level, relax, trust, beta in rows:
        z = u + relax * (denoise(u, jnp.float32(level), {"image": first}) - u)
        w = trust * level**2
        new = (z / w + GAINS * likelihood.y / NOISE**2) / (1 / w + GAINS**2 / NOISE**2)
        u, x = new + beta * (new - x), new
    np.testing.assert_allclose(found, x, rtol=1e-3, atol=1e-4)


def test_an_unknown_correction_is_refused(tmp_path):
    prior, (first, likelihood) = untrained_prior(tmp_path, "ect"), problem(jnp.float32)
    with pytest.raises(ValueError, match="choose piccs or prox"):
        few_step_image(prior, likelihood, first, FewSteps(((0.4, 1.0, 1.0),), "tv"))


def test_the_variance_of_the_correction_is_bounded_by_the_spread():
    process = priors.load_prior("chest-ct-edm").process
    for sigma, expected in ((1e-3, 0.6e-6), (0.06, 0.3 * 0.06**2), (50.0, 0.6 * 0.06**2)):
        assert float(annealed(0.6, 0.06)(process, sigma)) == pytest.approx(expected, rel=1e-3)
    assert float(annealed(2.0)(process, 50.0)) == pytest.approx(5000, rel=1e-5)
    assert annealed(0.6, 0.06) is annealed(0.6, 0.06)


def disc(radius):
    along = np.arange(512) - 255.5
    return (along[:, None] ** 2 + along[None] ** 2 < radius**2).astype(np.float32)[..., None]


def test_two_evaluations_of_the_shipped_chest_prior():
    """Far above FBP; the flat disc is TV's own image and no chest, so TV is not asked for."""
    scan = ct.chest_scan(jax.random.key(0), disc(150), 0.6, ct.TASKS["views_23"])
    prior, chosen = priors.load_prior("chest-ct-posterior"), ct.settings("views_23")
    psnr = lambda x: float(ct.scores(x, scan.truth)["psnr"])
    fbp = psnr(ct.baseline("fbp", scan, chosen))
    image = ct.few_step_image(prior, scan, chosen, ct.few_step_settings("views_23-2"))
    found = ct.few_step_draws(jax.random.key(1), prior, scan, chosen, draws=2)
    assert psnr(image) > fbp + 5 and psnr(found.mean) > fbp + 5
    assert 0 < float(found.std.mean()) < 0.05
    with pytest.raises(ValueError, match="Tuned for views_23-1"):
        ct.few_step_settings("views_7-2")


def test_two_evaluations_of_the_shipped_brain_prior():
    """Far above the zero-filled image, which the early TV image of a flat head is too."""
    y, x = np.mgrid[:128, :128] - 63.5
    head = 0.8 * (x**2 + (0.8 * y) ** 2 < 2000) - 0.4 * ((x / 8) ** 2 + (y / 20) ** 2 < 1)
    scan = mri.undersampled_scan(jax.random.key(0), jnp.asarray(head[..., None], jnp.float32), 4)
    prior = priors.load_prior("brain-t1-posterior")
    psnr = lambda x: float(mri.scores(x, scan.truth)["psnr"])
    image = mri.few_step_image(prior, scan, mri.few_step_settings("4-2"))
    found = mri.few_step_draws(jax.random.key(1), prior, scan, draws=2)
    worst = psnr(mri.reconstruct("zero_filled", mri.settings(4))(jax.random.key(0), None, scan)[0])
    assert psnr(image) > worst + 5 and psnr(found.mean) > worst + 5
    assert 0 < float(found.std.mean()) < 0.05

"""Hijacked samplers against their steps by hand, on untrained networks of both kinds and every noise law."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from untrained import untrained_prior

from pgm_jax import priors
from pgm_jax.recipes import ct


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Priors by objective, D and whether they read the low-dose image."""
    return functools.partial(untrained_prior, tmp_path_factory.mktemp("priors"))


LOW = jax.random.normal(jax.random.key(3), (8, 8, 1))


@pytest.mark.parametrize("reads", [True, False])
@pytest.mark.parametrize("objective", ["denoising", "ect"])
def test_one_step_is_one_evaluation_blended(objective, reads, made):
    prior = made(objective, 64, reads)
    cond = {"image": LOW} if reads else None
    model = prior.denoiser()(LOW, jnp.float32(0.2), cond)
    for weight in (0.0, 0.7, 1.0):
        found = ct.hijacked(jax.random.key(0), prior, LOW, ct.Hijack(sigma=0.2, weight=weight))
        expected = weight * model + (1 - weight) * LOW
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6, equal_nan=False)


def test_euler_steps_blend_at_every_level(made):
    prior = made("denoising", 128, True)
    denoise = prior.denoiser()
    found = ct.hijacked(jax.random.key(0), prior, LOW, ct.Hijack(sigma=0.4, weight=0.7, steps=3))
    x, levels = LOW, [0.4, 0.2, 0.1, 0.0]
    for here, below in zip(levels[:-1], levels[1:], strict=True):
        x = x + (below - here) * (x - denoise(x, jnp.float32(here), {"image": LOW})) / here
        x = 0.7 * x + 0.3 * LOW
    # Blending the state is the same wherever the next evaluation sees it.
    np.testing.assert_allclose(found, x, rtol=1e-4, atol=1e-5, equal_nan=False)


@pytest.mark.parametrize("D", [8.0, math.inf])
def test_jumps_are_noised_afresh_with_the_law_of_the_prior(D, made):
    prior = made("ect", D, False)
    seen = []

    def record(x_t, t, cond=None):
        seen.append((x_t, t))
        return jnp.zeros_like(x_t)

    class Watched:
        objective, process, reads_image = prior.objective, prior.process, False
        denoiser = staticmethod(lambda: record)

    draw = lambda key: ct.hijacked(key, Watched, LOW, ct.Hijack(sigma=0.4, weight=1.0, steps=2, ratio=0.25))
    out = jax.vmap(draw)(jax.random.split(jax.random.key(0), 2))
    assert jnp.all(out == 0)

    def second(key):
        seen.clear()
        from pgm_jax import samplers

        grid = np.append(np.asarray(prior.process.time(np.array([0.4, 0.1]))), 0.0)
        states = samplers.sample_one(
            key, samplers.consistency(), record, prior.process, grid, x_init=LOW,
            trace=lambda state, t, s: state.x,
        )[1]  # fmt: skip
        return states[0]

    states = jax.vmap(second)(jax.random.split(jax.random.key(1), 4000))
    radius2 = jnp.sum(states**2, axis=(1, 2, 3)) / 64
    # E R^2 / N = sigma^2 D / (D - 2) of the multivariate t, sigma^2 of Normal noise.
    expected = 0.01 * (1.0 if math.isinf(D) else D / (D - 2))
    assert float(jnp.mean(radius2)) == pytest.approx(expected, rel=0.05)
    spread = float(jnp.std(radius2) / jnp.mean(radius2))
    assert spread > 0.4 if D == 8.0 else spread < 0.25


def test_posterior_images_need_a_prior_that_reads(made):
    found = ct.posterior_images(jax.random.key(0), made("denoising", 64, True), LOW, draws=2, steps=3)
    assert found.shape == (2, 8, 8, 1) and bool(jnp.isfinite(found).all())
    with pytest.raises(ValueError, match="reads the low-dose image"):
        ct.posterior_images(jax.random.key(0), made("denoising", 64, False), LOW)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (ct.Hijack(steps=0), "takes 0 steps"),
        (ct.Hijack(sigma=0.0), "sigma > 0"),
        (ct.Hijack(weight=1.2), "weight in"),
        (ct.Hijack(ratio=1.0), "0 < ratio < 1"),
    ],
)
def test_impossible_numbers_are_refused(chosen, message, made):
    with pytest.raises(ValueError, match=message):
        ct.hijacked(jax.random.key(0), made("ect", 64, True), LOW, chosen)


def test_the_shipped_prior_denoises_what_it_reads():
    """A disc under simulated low dose: one evaluation, with the tuned numbers."""
    along = (np.arange(512) - 255.5) * 0.6
    disc = (along[:, None] ** 2 + along[None] ** 2 < 90**2).astype(np.float32)[..., None]
    low, truth = jax.jit(ct.low_dose_pair, static_argnums=2)(jax.random.key(0), disc, 0.6, 4000.0)
    prior = priors.load_prior("chest-ct-low-dose")
    chosen = ct.hijack_settings("ps_pfcm-64-1-photons_4000")
    image = jax.jit(lambda prior, low: ct.hijacked(jax.random.key(1), prior, low, chosen))(prior, low)
    psnr = lambda x: float(ct.scores(x, truth)["psnr"])
    assert psnr(image) > psnr(low) + 3
    with pytest.raises(ValueError, match="this prior reads an image"):
        prior.denoiser()(low, 0.1)
    with pytest.raises(ValueError, match="Tuned for"):
        ct.hijack_settings("ps_pfcm-64-1-photons_7")


def test_the_low_dose_image_lowers_its_objective_and_knows_starved_rays():
    """An ellipse starves the rays along it: weighted, it is nearer to the truth than FBP and than unweighted."""
    along = (np.arange(512) - 255.5) * 0.6
    disc = (((along[:, None] / 50) ** 2 + (along[None] / 140) ** 2) < 1).astype(np.float32)[..., None]
    scan = jax.jit(ct.chest_scan, static_argnums=(2, 3))(
        jax.random.key(0), disc, 0.6, ct.TASKS["photons_4000"]
    )
    fbp = ct.baseline("fbp", scan, ct.Settings(filter="hann", cutoff=1.0))
    low = jax.jit(ct.low_dose_image)(scan)
    flat = jax.jit(ct.low_dose_image)(scan.replace(weights=jnp.full_like(scan.weights, scan.weights.mean())))

    def objective(x):
        slopes = sum(jnp.sum(jnp.diff(x, axis=axis) ** 2) for axis in (0, 1))
        return float(jnp.sum(scan.weights * (scan.operator(x) - scan.y) ** 2) + 30 * slopes) / 2

    # Most of the objective is the noise of the counts, which no image explains.
    assert objective(low) < min(objective(fbp), objective(flat)) and float(low.min()) >= 0
    psnr = lambda x: float(ct.scores(x, scan.truth)["psnr"])
    assert psnr(low) > psnr(fbp) + 1 and psnr(low) > psnr(flat) + 0.5

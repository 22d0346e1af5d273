"""The chest recipe: the scan against closed forms, and each method in its place on a phantom."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax import load_prior
from pgm_jax.recipes import ct

PIXEL = 0.6


@pytest.fixture(scope="module")
def disc():
    """A disc of water of 60 mm radius on the fine pixels."""
    along = (np.arange(512) - 255.5) * PIXEL
    return (along[:, None] ** 2 + along[None] ** 2 < 60**2).astype(np.float32)[..., None]


@pytest.fixture(scope="module")
def scan(disc):
    return ct.chest_scan(jax.random.key(0), disc, PIXEL, ct.TASKS["views_23"])


def test_line_integrals_are_chords_and_weights_their_precision(scan):
    bins = (np.arange(400) - 199.5) * 1.2
    chord = 2 * ct.WATER * np.sqrt(np.maximum(60.0**2 - bins**2, 0))
    away = np.abs(np.abs(bins) - 60) > 3
    error = np.asarray(scan.y)[..., 0] - chord
    counts = np.asarray(scan.counts)[..., 0]
    assert np.std((error * np.sqrt(counts))[:, away]) == pytest.approx(1, abs=0.05)
    np.testing.assert_allclose(scan.weights[..., 0], 1 / (1 / counts + 0.003**2), rtol=1e-5)
    assert np.abs(error[:, away].mean()) < 2e-4
    np.testing.assert_allclose(scan.truth.mean(), np.pi * 60**2 / (512 * PIXEL) ** 2, rtol=1e-3)


def test_the_operator_is_in_units_of_water(scan):
    modelled = scan.operator(scan.truth)
    np.testing.assert_allclose(modelled.sum(), scan.y.sum(), rtol=2e-3, equal_nan=False)


def test_baselines_and_draws_on_a_disc(scan):
    chosen = ct.Settings(
        filter="hann", tv_weight=30.0, tv_balance=3.0, tv_iterations=60, steps=4, draws=2, cg=4
    )
    psnr = {m: float(ct.scores(ct.baseline(m, scan, chosen), scan.truth)["psnr"]) for m in ("fbp", "tv")}
    found = ct.draws(jax.random.key(1), load_prior("chest-ct-pfgmpp"), scan, chosen._replace(sigma_max=0.2))
    mean = float(ct.scores(found.mean, scan.truth)["psnr"])
    assert psnr["tv"] > psnr["fbp"] + 5
    assert mean > psnr["fbp"] + 5
    assert found.draws.shape == (2, 256, 256, 1) and float(jnp.min(found.std)) >= 0


def test_settings_are_stored_for_every_task():
    for task in ct.TASKS:
        chosen = ct.settings(task)
        assert chosen.trust > 0 and chosen.cg > 0
    with pytest.raises(ValueError, match="Tuned for views_60"):
        ct.settings("views_7")
    with pytest.raises(ValueError, match="choose one of fbp, tv, tgv"):
        ct.baseline("sart", None, ct.Settings())

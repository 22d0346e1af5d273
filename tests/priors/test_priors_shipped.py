"""The shipped priors, few-step ones included: small together, readable, documented, finite in their range."""

import importlib.resources

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax import load_prior, priors
from pgm_jax.recipes import prior_config

NAMES = priors.prior_names()


def test_all_weights_together_have_at_most_40_mb():
    folder = importlib.resources.files("pgm_jax.priors").joinpath("weights")
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 40e6
    assert {"brain-t1-pfgmpp", "chest-ct-pfgmpp", "brain-pet-pfgmpp", "chest-ct-edm-ect"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_card_says_what_a_user_must_know(name):
    card = load_prior(name).card
    for entry in ("unit", "images", "people", "limits", "sources", "command", "warning"):
        assert card[entry], entry
    assert any("psnr_db" in entry for entry in card)
    if "config" not in card:
        assert card["network"][1]["conditions"]["image"]
        return
    config = prior_config.from_json(card["config"])
    assert config.objective == card.get("objective", "denoising")
    assert 0 < config.sigma_min < config.sigma_max


@pytest.mark.parametrize("name", NAMES)
def test_a_prior_brings_a_noisy_image_nearer(name):
    """A smooth image in the prior's range; at the lowest level the image comes back as it is."""
    prior = load_prior(name)
    row, column = np.mgrid[:32, :32] / 32 - 0.5
    image = jnp.asarray(0.9 * (row**2 + column**2 < 0.15), jnp.float32)[..., None]
    complex_images = prior.card["network"][1]["channels"] == 2
    image = image.astype(jnp.complex64) if complex_images else image
    cond = {"image": image} if prior.reads_image else None
    denoise = jax.jit(lambda prior, x, t: prior.denoiser()(x, t, cond))
    noise = jax.random.normal(jax.random.key(0), image.shape, image.dtype)
    error = lambda x: float(jnp.sqrt(jnp.mean(jnp.abs(x - image) ** 2)))
    for sigma, share in ((0.1, 0.75), (0.005, 1.05), (20.0, 0.1)):
        noisy = image + sigma * noise
        found = denoise(prior, noisy, jnp.float32(sigma))
        assert found.shape == image.shape and bool(jnp.all(jnp.isfinite(found)))
        assert error(found) < share * error(noisy)

"""The consistency posterior against its steps by hand, for real and complex images and every noise law."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from untrained import untrained_prior

from pgm_jax import priors
from pgm_jax.operators import Diagonal, GaussianLikelihood
from pgm_jax.recipes.consistency_posterior import FewSteps, consistency_posterior

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
    (first, likelihood), chosen = problem(dtype), FewSteps((0.4, 0.1), trust=2.0, cg=30)
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
    v = [2.0 * t**2 for t in levels]
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
        consistency_posterior(jax.random.key(0), prior, likelihood, shown, FewSteps((0.4,)), draws=2).draws
    )
    assert float(jnp.abs(run(first) - run(first + 0.1)).max()) > 1e-3
    assert float(jnp.abs(run(first)[0] - run(first)[1]).max()) > 1e-3


@pytest.mark.parametrize("levels", [(), (0.1, 0.4), (0.4, -0.1)])
def test_impossible_levels_are_refused(levels, tmp_path):
    prior, (first, likelihood) = untrained_prior(tmp_path, "ect"), problem(jnp.float32)
    with pytest.raises(ValueError, match="levels|falls|fall"):
        consistency_posterior(jax.random.key(0), prior, likelihood, first, FewSteps(levels))

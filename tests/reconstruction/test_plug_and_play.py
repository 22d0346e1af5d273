"""Accelerated plug-and-play: its fixed point for a Gaussian prior, what extrapolation gains, and bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax.operators import Diagonal, GaussianLikelihood
from pgm_jax.processes import EDM, VP, PFGMpp
from pgm_jax.reconstruction import PlugStep, plug_and_play

VARIANCE, NOISE, LEVEL = 1.0, 0.3, 0.4
# Some pixels are not seen: their posterior mean is that of the prior, 0.
GAINS = jnp.linspace(0.0, 1.0, 48).reshape(4, 12, 1)


@pytest.fixture(scope="module")
def case():
    y = jax.random.normal(jax.random.key(0), GAINS.shape)
    return GaussianLikelihood.create(Diagonal(GAINS), y, NOISE), y


def denoiser(process):
    def denoise(x_t, t, cond=None):
        alpha, sigma = process.alpha(t), process.sigma(t)
        return alpha * VARIANCE / (alpha**2 * VARIANCE + sigma**2) * x_t

    return denoise


def reconstructed(case, process, steps):
    start = jnp.ones(GAINS.shape)
    return plug_and_play(denoiser(process), process, case[0], start, steps, cg=30)


@pytest.mark.parametrize("process", [EDM(), PFGMpp(128.0), VP()], ids=["edm", "pfgmpp", "vp"])
@pytest.mark.parametrize("relax, beta", [(1.0, 0.0), (1.5, 0.0), (1.0, 0.4)])
def test_fixed_point_is_the_posterior_mean_of_a_wider_prior(case, process, relax, beta):
    found = reconstructed(case, process, [PlugStep(LEVEL, relax, relax, beta)] * 80)
    wider = VARIANCE + LEVEL**2
    mean = wider * GAINS * case[1] / (wider * GAINS**2 + NOISE**2)
    np.testing.assert_allclose(found, mean, atol=2e-4)


def test_one_step_is_its_formula(case):
    step = PlugStep(LEVEL, 2.0, 3.0, 7.0)
    clean = VARIANCE / (VARIANCE + LEVEL**2)
    pulled, variance = 1 + 2.0 * (clean - 1), 3.0 * LEVEL**2
    precision = 1 / variance + GAINS**2 / NOISE**2
    want = (pulled / variance + GAINS * case[1] / NOISE**2) / precision
    np.testing.assert_allclose(reconstructed(case, EDM(), [step]), want, rtol=2e-4, atol=2e-5)


def test_extrapolation_and_relaxation_come_nearer_in_as_many_steps(case):
    wider = VARIANCE + LEVEL**2
    mean = wider * GAINS * case[1] / (wider * GAINS**2 + NOISE**2)
    error = lambda relax, beta: float(
        jnp.linalg.norm(reconstructed(case, EDM(), [PlugStep(LEVEL, relax, relax, beta)] * 6) - mean)
    )
    plain = error(1.0, 0.0)
    assert error(2.0, 0.0) < 0.8 * plain
    assert error(1.0, 0.4) < 0.8 * plain


def test_no_step_is_refused(case):
    with pytest.raises(ValueError, match="no steps"):
        reconstructed(case, EDM(), [])


def test_a_start_of_another_shape_is_refused(case):
    with pytest.raises(ValueError, match="start has shape"):
        plug_and_play(denoiser(EDM()), EDM(), case[0], jnp.ones((4, 6, 1)), [PlugStep(LEVEL)])


def test_the_denoiser_is_given_the_condition(case):
    told = lambda x_t, t, cond=None: jnp.broadcast_to(cond["image"], x_t.shape)
    run = lambda value: plug_and_play(
        told, EDM(), case[0], jnp.ones(GAINS.shape), [PlugStep(LEVEL)], cond={"image": jnp.float32(value)}
    )
    # What no ray sees is the denoiser's image.
    np.testing.assert_allclose([run(value)[0, 0, 0] for value in (0.25, 2.0)], [0.25, 2.0], rtol=1e-4)


def test_another_correction_takes_the_place_of_the_proximal_map(case):
    seen = []
    halved = lambda z, step: seen.append((z, step)) or z / 2
    steps = [PlugStep(LEVEL, 1.0, 1.0, 0.5), PlugStep(2 * LEVEL)]
    found = plug_and_play(denoiser(EDM()), EDM(), case[0], jnp.ones(GAINS.shape), steps, correct=halved)
    first = VARIANCE / (VARIANCE + LEVEL**2) / 2
    second = VARIANCE / (VARIANCE + 4 * LEVEL**2) * (first + 0.5 * (first - 1)) / 2
    np.testing.assert_allclose(found, jnp.full(GAINS.shape, second), rtol=1e-5)
    assert [step for _, step in seen] == steps

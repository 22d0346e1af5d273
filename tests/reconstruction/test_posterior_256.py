"""`posterior` at 256 x 256 against the closed form (one coil) and against perturb-and-MAP (several coils, CT).

The mean is propagated without noise, which for a Gaussian prior is the mean of all draws; the variance is that of
two draws about it, averaged over the pixels.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax.guidance import exact
from pgm_jax.operators import (
    GaussianLikelihood,
    ImageGrid,
    Parallel,
    ParallelBeam,
    Sense,
    birdcage_maps,
    measure,
    random_mask,
)
from pgm_jax.priors import LinearPosterior, StationaryGaussianPrior
from pgm_jax.processes import EDM
from pgm_jax.reconstruction import posterior
from pgm_jax.verify.moments import GivenNoise

SIDE = 256
# Karras' grid from above the widest posterior deviation to below the narrowest.
GRID = {"steps": 24, "sigma_max": 20.0, "sigma_min": 0.01}


def smooth_prior(dtype, side=SIDE):
    """Mean 0.5, standard deviation 0.3 per real component, power 1 / (1 + (f / 0.06)^2)^1.5: 1.7e3 to 1."""
    f = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side), indexing="ij"))[..., None]
    power = (1 + (f / 0.06) ** 2) ** -1.5
    power = jnp.asarray(0.09 * power / power.mean(), jnp.float32)
    return StationaryGaussianPrior(jnp.asarray(0.5, dtype), power, jnp.dtype(dtype))


def scan(prior, operator, noise_std, weights=None):
    x = prior.sample(jax.random.key(0))
    y = measure(jax.random.key(1), operator, x, noise_std, weights)
    return GaussianLikelihood.create(operator, y, noise_std)


def sampled(prior, likelihood, method, **options):
    """Mean of all draws, and the variance of a real component over the pixels of two draws."""
    draw = functools.partial(
        posterior, jax.random.key(2), prior, likelihood, method=method, **GRID, **options
    )
    quiet = EDM().replace(law=GivenNoise(jnp.zeros(prior.power.shape)))
    mean = draw(process=quiet, draws=1).draws[0]
    return mean, variance(draw(process=EDM(), draws=2).draws, mean)


def variance(draws, mean):
    return float(jnp.mean(jnp.abs(draws - mean[None]) ** 2)) / (2 if jnp.iscomplexobj(mean) else 1)


def require_exact(name, found, expected):
    mean_error = float(
        jnp.linalg.norm(jnp.ravel(found[0] - expected[0])) / jnp.linalg.norm(expected[0].ravel())
    )
    ratio = found[1] / expected[1]
    print(f"{name}: mean {100 * mean_error:.2f} %, variance {100 * (ratio - 1):+.1f} %")
    assert mean_error < 0.01
    assert abs(ratio - 1) < 0.05


def perturb_and_map(prior, likelihood):
    target = LinearPosterior(prior, likelihood.operator, likelihood.y, likelihood.noise_std, 1e-4, 2000)
    mean = jax.jit(lambda p: p.mean())(target)
    draws = jax.jit(lambda p, keys: jax.lax.map(p.sample, keys))(
        target, jax.random.split(jax.random.key(3), 2)
    )
    return mean, variance(draws, mean)


def test_the_closed_form_is_known_inside_the_compiled_program():
    """A stationary prior is told there that the operator is circulant; at 16 x 16, the mean alone."""
    prior, mask = smooth_prior("complex64", 16), random_mask(0, 16, 2, 0.2)
    likelihood = scan(prior, Sense.single(16, 16, mask), 0.05, mask)
    closed = prior.posterior(likelihood.operator, likelihood.y, 0.05)
    mean, _ = sampled(prior, likelihood, functools.partial(exact, prior, circulant=True))
    gap = jnp.linalg.norm(jnp.ravel(mean - closed.mean))
    assert float(gap) < 0.01 * float(jnp.linalg.norm(jnp.ravel(closed.mean)))
    with pytest.raises(ValueError, match="no closed-form denoiser"):
        sampled(prior, likelihood, functools.partial(exact, prior, circulant=False))


@pytest.mark.slow
def test_one_coil_against_the_closed_form():
    prior, mask = smooth_prior("complex64"), random_mask(0, SIDE, 4)
    likelihood = scan(prior, Sense.single(SIDE, SIDE, mask), 0.05, mask)
    closed = prior.posterior(likelihood.operator, likelihood.y, 0.05, circulant=True)
    found = sampled(prior, likelihood, functools.partial(exact, prior, circulant=True))
    require_exact("one coil", found, (closed.mean, float(closed.power.mean())))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_four_coils_against_perturb_and_map():
    prior, mask = smooth_prior("complex64"), random_mask(0, SIDE, 4)
    likelihood = scan(prior, Sense(birdcage_maps(4, SIDE, SIDE), mask), 0.05, mask)
    found = sampled(prior, likelihood, "moment_matching", rtol=1e-3, max_steps=1000)
    require_exact("four coils", found, perturb_and_map(prior, likelihood))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ct_against_perturb_and_map():
    """30 views of an image whose 1 is the attenuation of water, 0.02 / mm; noise 0.1 of line integrals."""
    prior, views = smooth_prior("float32"), 30
    angles = np.pi * np.arange(views) / views
    projector = ParallelBeam(ImageGrid((SIDE, SIDE), (1.0, 1.0)), Parallel(angles, 367, 1.0))
    likelihood = scan(prior, 0.02 * projector, 0.1)
    found = sampled(prior, likelihood, "moment_matching", rtol=1e-3, max_steps=1000)
    require_exact("CT", found, perturb_and_map(prior, likelihood))

"""`posterior_cost` against the run that it is an estimate of: memory of its program, and the seconds it takes."""

import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax.operators import GaussianLikelihood, Sense, birdcage_maps, equispaced_mask
from pgm_jax.priors import StationaryGaussianPrior, load_prior
from pgm_jax.processes import EDM
from pgm_jax.reconstruction import posterior, posterior_cost
from pgm_jax.reconstruction.posterior import _run

KEY = jax.random.key(0)


def likelihood_of(side):
    operator = Sense(birdcage_maps(4, side, side), equispaced_mask(0, side, 4, 0.1))
    y = operator(jnp.full((side, side, 1), 0.5, jnp.complex64))
    return GaussianLikelihood.create(operator, y, 0.05)


@pytest.mark.parametrize("together", [None, 1])
def test_memory_is_that_of_the_run(monkeypatch, together):
    prior = StationaryGaussianPrior(jnp.complex64(0.5), jnp.full((48, 48, 1), 0.1), jnp.dtype("complex64"))
    likelihood = likelihood_of(48)
    request = {"process": EDM(), "steps": 6, "draws": 4, "together": together}
    cost = posterior_cost(KEY, prior, likelihood, images=3, **request)
    taken = []
    # `reconstruction.posterior` is the function; its module is under the name of the program.
    recorded = lambda *given: taken.append(given) or _run(*given)
    monkeypatch.setattr(sys.modules[_run.__module__], "_run", recorded)
    posterior(KEY, prior, likelihood, **request)
    memory = _run.lower(*taken[0]).compile().memory_analysis()
    whole = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    assert cost.memory_bytes == pytest.approx(whole, rel=0.3)
    assert cost.seconds == pytest.approx(cost.compile_seconds + 3 * 6 * cost.step_seconds)
    assert 0 < cost.step_seconds < 1 and cost.compile_seconds > 0


@pytest.mark.slow
def test_seconds_of_a_brain_at_256():
    """Network and data step of the shipped prior, two draws; within 30 % of the run, compilation included."""
    prior, likelihood = load_prior("brain-t1-pfgmpp"), likelihood_of(256)
    start = jnp.full((256, 256, 1), 0.5, jnp.complex64)
    request = {"start": start, "steps": 10, "draws": 2, "sigma_max": 1.0, "sigma_min": 0.005}
    # Programs read from a cache would compile in no time.
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        cost = posterior_cost(KEY, prior, likelihood, **request)
        begun = time.perf_counter()
        found = posterior(KEY, prior, likelihood, **request)
        seconds = time.perf_counter() - begun
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
    assert np.isfinite(found.mean).all()
    print(f"estimate {cost.seconds:.1f} s, run {seconds:.1f} s, {cost.memory_bytes / 1e6:.0f} MB")
    assert cost.seconds == pytest.approx(seconds, rel=0.3)

"""`posterior`: against exact posteriors, one compilation, the same draws however they are computed, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles.problems import gaussian_problem

from pgm_jax import operators as op, reconstruction
from pgm_jax.core import sample_key
from pgm_jax.guidance import dds, exact
from pgm_jax.parallel import make_mesh
from pgm_jax.priors import GaussianPrior
from pgm_jax.processes import EDM, VP, PFGMpp, karras
from pgm_jax.reconstruction import posterior
from pgm_jax.reconstruction.posterior import _run
from pgm_jax.samplers import ddim, sample_one

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def problem():
    return gaussian_problem()


@pytest.mark.parametrize("process", [EDM(), VP()], ids=["EDM", "VP"])
@pytest.mark.parametrize("method", ["moment_matching", "exact"])
def test_moments_of_a_gaussian_posterior(problem, process, method):
    """Five standard errors of 2000 draws, and 4 % of bias for 40 steps."""
    guide = (lambda likelihood: exact(problem.prior, likelihood)) if method == "exact" else method
    found = posterior(
        KEY, problem.prior, problem.likelihood, method=guide, process=process, steps=40, draws=2000
    )
    std = np.sqrt(np.diag(problem.posterior.cov))
    np.testing.assert_array_less(
        np.abs(found.mean - problem.posterior.mean), (5 / np.sqrt(2000) + 0.04) * std
    )
    np.testing.assert_allclose(found.std, std, rtol=5 / np.sqrt(4000) + 0.06)
    np.testing.assert_allclose(found.mean, found.draws.mean(0), atol=1e-5)
    np.testing.assert_allclose(found.std, found.draws.std(0, ddof=1), rtol=1e-4)


def test_it_composes_what_a_user_would(problem):
    """A jump start by hand, with the same keys."""
    start, process, grid = jnp.ones(8), PFGMpp(D=32.0), karras(6, 0.01, 2.0)
    found = posterior(
        KEY,
        problem.prior,
        problem.likelihood,
        process=process,
        steps=6,
        draws=3,
        sigma_min=0.01,
        sigma_max=2.0,
        start=start,
        gamma=0.5,
    )

    def by_hand(index):
        key_start, key = jax.random.split(sample_key(KEY, index))
        x_init = process.perturb(key_start, start, 2.0)
        denoise = problem.prior.denoiser(process)
        sampler, guidance = ddim(1.0, of="marginal"), dds(problem.likelihood, 0.5)
        return sample_one(key, sampler, denoise, process, grid, x_init=x_init, guidance=guidance)

    np.testing.assert_allclose(found.draws, jax.jit(jax.vmap(by_hand))(jnp.arange(3)), atol=2e-5)


@pytest.mark.parametrize("process", [EDM(), VP(), PFGMpp(D=32.0)], ids=["EDM", "VP", "PFGM++"])
def test_given_levels_take_the_place_of_the_grid(problem, process):
    """Levels of sigma / alpha in the time of every process; those of Karras are the default's."""
    ask = lambda **given: posterior(
        KEY, problem.prior, problem.likelihood, process=process, draws=2, gamma=0.5, **given
    )
    found = ask(levels=tuple(karras(4, 0.05, 2.0)[:-1]))
    grid = ask(steps=4, sigma_min=0.05, sigma_max=2.0).draws
    np.testing.assert_allclose(found.draws, grid, rtol=1e-4, atol=1e-5)
    few = ask(levels=(1.0, 0.2))
    assert bool(jnp.isfinite(few.draws).all()) and float(jnp.abs(few.draws - found.draws).max()) > 1e-3


def test_a_new_measurement_or_d_does_not_compile_again(problem):
    draw = lambda y, D: posterior(
        KEY, problem.prior, problem.likelihood.replace(y=y), process=PFGMpp(D=D), steps=3, draws=2
    )
    first = draw(problem.likelihood.y, 8.0)
    before = _run._cache_size()
    second = draw(problem.likelihood.y + 1, 64.0)
    assert _run._cache_size() == before
    assert not np.allclose(first.draws, second.draws)


def test_the_same_draws_in_parts_and_over_devices(problem):
    draw = lambda **how: (
        posterior(KEY, problem.prior, problem.likelihood, process=EDM(), steps=4, draws=8, **how).draws
    )
    whole = draw()
    np.testing.assert_allclose(draw(together=3), whole, atol=1e-5)
    shared = draw(mesh=make_mesh())
    np.testing.assert_allclose(shared, whole, atol=1e-5)
    assert len(shared.sharding.device_set) == 8


def test_complex_images_have_the_spread_of_one_real_component():
    """A prior of independent components that the data do not see: the posterior is the prior."""
    prior = GaussianPrior(jnp.zeros(3, jnp.complex64), 0.25 * jnp.eye(6))
    seen = op.Matrix(jnp.array([[1.0, 0.0, 0.0]], jnp.complex64))
    likelihood = op.GaussianLikelihood.create(seen, jnp.ones(1, jnp.complex64), 0.1)
    found = posterior(KEY, prior, likelihood, method="moment_matching", process=EDM(), steps=20, draws=800)
    assert found.draws.dtype == jnp.complex64 and found.std.dtype == jnp.float32
    np.testing.assert_allclose(found.std[1:], 0.5, rtol=5 / np.sqrt(3200) + 0.05)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"method": "ddss"}, "did you mean dds"),
        ({"process": None}, "GaussianPrior fits every process"),
        ({"draws": 0}, "at least 1"),
        ({"together": 5}, "from 1 to the 2 draws"),
        ({"mesh": "all"}, "2 draws cannot be shared by 8 devices"),
        ({"mesh": "all", "together": 1}, "not both"),
        ({"sigma_max": 0.001}, "sigma_min"),
        ({"levels": (0.2, 1.0)}, "falling order"),
        ({"levels": (1.0, 0.0)}, "levels above 0"),
    ],
)
def test_wrong_requests_are_refused_in_one_line(problem, change, words):
    change = {**change, "mesh": make_mesh()} if "mesh" in change else change
    with pytest.raises(ValueError, match=words) as error:
        posterior(
            KEY, problem.prior, problem.likelihood, **{"process": EDM(), "draws": 2, "steps": 2} | change
        )
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_every_named_method_runs_at_finite_d_or_says_why(problem):
    for name, guide in reconstruction.GUIDES.items():
        found = posterior(
            KEY, problem.prior, problem.likelihood, method=name, process=PFGMpp(D=64.0), steps=4, draws=2
        )
        assert np.isfinite(found.draws).all() and guide.summary

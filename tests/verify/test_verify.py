"""The exactness table: its problems are right, and its rows fall at the stated orders."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax import verify
from pgm_jax.processes import EDM, VP, karras
from pgm_jax.samplers import ddim, dpmpp_2m, sample


def test_moments_of_a_sampler_equal_those_of_its_draws():
    target = verify.problem("gaussian", "dense")
    process, grid = EDM(), karras(6)
    denoise, size = target.prior.denoiser(process), target.prior.mean.size
    mean, cov = verify.gaussian_moments(
        ddim(1.0), denoise, process, grid, jnp.zeros(size), grid[0] ** 2 * jnp.eye(size)
    )
    draws = sample(jax.random.key(3), ddim(1.0), denoise, process, grid, shape=(20000, size))
    spread = np.sqrt(np.diag(cov) / 20000)
    np.testing.assert_array_less(np.abs(draws.mean(0) - mean), 5 * spread)
    error = np.linalg.norm(np.cov(draws.T) - cov) ** 2
    assert error < 5 * (np.linalg.norm(cov) ** 2 + np.trace(cov) ** 2) / 20000


def test_a_sampler_with_memory_is_refused():
    target = verify.problem("gaussian", "dense")
    with pytest.raises(ValueError, match="without memory"):
        verify.gaussian_moments(
            dpmpp_2m(), target.prior.denoiser(EDM()), EDM(), karras(4), jnp.zeros(8), jnp.eye(8)
        )


@pytest.mark.parametrize(("sampler", "order"), [("ancestral", 1), ("heun", 2)])
def test_exact_guidance_falls_at_its_order(sampler, order):
    coarse, fine = (
        verify.run_case(verify.Case(sampler=sampler, steps=n), samples=64)["cov_err"] for n in (40, 160)
    )
    # The order in the step, over two halvings in float32; tests/samplers shows it to two digits.
    assert order - 0.15 < math.log(coarse / fine, 4) < order + 0.4


def test_moment_matching_is_exact_for_normal_noise():
    rows = [
        verify.run_case(verify.Case(process="VP", guidance=name, steps=20), samples=64)
        for name in ("exact", "moment_matching")
    ]
    assert rows[0]["cov_err"] == pytest.approx(rows[1]["cov_err"], rel=1e-3)
    assert rows[0]["exact_moments"] and rows[1]["exact_moments"]


def test_problems_have_their_own_posterior():
    for prior in ("gaussian", "mixture"):
        for operator in ("dense", "fourier", "mask"):
            target = verify.problem(prior, operator)
            draw = target.posterior.sample(jax.random.key(0))
            gap = jnp.abs(target.likelihood.residual(draw)).mean() / target.likelihood.noise_std
            assert gap < 4
    with pytest.raises(ValueError, match="priors are"):
        verify.problem("uniform", "dense")


def test_default_cases_are_valid_and_all_cases_hold_them():
    default, every = verify.default_cases(), verify.all_cases()
    assert set(default) <= set(every) and len(set(every)) == len(every)
    assert not any(math.isfinite(case.D) and case.sampler == "ancestral" for case in every)
    with pytest.raises(ValueError, match="knows the processes"):
        verify.run_case(verify.Case(process="GenPhys"), samples=16)


def test_every_guidance_has_a_row_where_it_is_valid():
    default, every = verify.default_cases(), verify.all_cases()
    assert {case.guidance for case in default} == set(verify.cases.GUIDANCE)
    for case in every:
        assert (case.guidance == "ddrm") == (case.sampler == "ctm")
        assert math.isinf(case.D) or case.guidance not in ("mcg", "song", "ddrm", "known_region")


def test_start_level_is_reached_by_every_process():
    assert float(VP().ratio(0.9999)) > 80


@pytest.mark.slow
def test_default_table_is_finite():
    for row in verify.verify(samples=256):
        assert all(np.isfinite(row[name]) for name in ("mean_err", "cov_err", "energy", "cover50", "cover90"))

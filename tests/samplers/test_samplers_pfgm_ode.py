"""PFGM's ODE in t' = ln z: right for PFGM itself, fourth order, and exact on a point mass's last step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax.priors import EmpiricalPrior
from pgm_jax.processes import EDM, PFGM, VP, log_snr
from pgm_jax.samplers import pfgm_ode, sample_one

S = 0.5


def test_atoms_under_cauchy_noise_follow_the_quantiles(x64):
    # Foundations O10 at D = 1: x(5) = 2.3 flows to x(.3).
    prior = EmpiricalPrior(jnp.array([[-1.0], [0.2], [1.5]]), jnp.array([0.2, 0.5, 0.3]))
    grid = log_snr(40, 0.3, 5.0, end_at_zero=False)
    x = sample_one(
        jax.random.key(0), pfgm_ode(), prior.denoiser(PFGM()), PFGM(), grid, x_init=jnp.array([2.3])
    )
    assert float(x[0]) == pytest.approx(0.5959537570, abs=1e-6)


@pytest.mark.parametrize("process", [EDM(), VP()], ids=["EDM", "VP"])
def test_fourth_order_on_gaussian_data(x64, process):
    def denoise(x, t, cond):
        alpha, sigma = process.alpha(t), process.sigma(t)
        return alpha * S**2 * x / (alpha**2 * S**2 + sigma**2)

    errors = []
    for steps in (20, 40):
        grid = log_snr(steps, 0.01, 10.0, process, end_at_zero=False)
        spread = [np.sqrt(process.alpha(t) ** 2 * S**2 + process.sigma(t) ** 2) for t in (grid[0], grid[-1])]
        x = sample_one(jax.random.key(0), pfgm_ode(), denoise, process, grid, x_init=jnp.ones(1))
        errors.append(abs(float(x[0]) * spread[0] / spread[1] - 1))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(4, abs=0.3)


def test_last_step_ends_at_the_clean_image(x64):
    denoise = lambda x, t, cond: jnp.full_like(x, 0.7)
    x = sample_one(
        jax.random.key(0), pfgm_ode(), denoise, PFGM(), log_snr(6, 0.01, 10.0, PFGM()), x_init=jnp.ones(3)
    )
    np.testing.assert_allclose(x, 0.7, rtol=1e-12)

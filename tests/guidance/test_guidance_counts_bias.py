"""The bias of guidance by counts, where the exact posterior is known: pixels alone, by quadrature."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax.guidance import mlem_matching, pet_dds, pet_dps, pet_naive, transmission_dps
from pgm_jax.operators import Diagonal, PoissonEmission, PoissonTransmission
from pgm_jax.priors import GaussianPrior
from pgm_jax.processes import EDM, karras
from pgm_jax.reconstruction import mlem
from pgm_jax.samplers import ancestral, sample

LEVELS, DRAWS = 100, 2000
CASES = {"emission": (5.0, 1.0), "transmission": (1.0, 0.3)}
"""Mean and standard deviation of the prior of every pixel; it is below 0 with probability 4e-4 at most."""


@functools.cache
def _likelihood(case):
    """Eight pixels, each seen alone: about as much information in the counts as in the prior."""
    truth = CASES[case][0] + CASES[case][1] * np.linspace(-1.5, 1.5, 8)
    rng = np.random.default_rng(0)
    if case == "emission":
        return PoissonEmission.create(Diagonal(jnp.full(8, 4.0)), rng.poisson(4 * truth + 2) * 1.0, 2.0)
    y = rng.poisson(50 * np.exp(-truth) + 3) * 1.0
    return PoissonTransmission.create(Diagonal(jnp.ones(8)), y, 50.0, 3.0)


@functools.cache
def _exact(case):
    """Mean and standard deviation of each pixel given its counts, on a fine grid of x >= 0."""
    mean, std = CASES[case]
    x = np.linspace(0, mean + 8 * std, 4001)
    y = np.asarray(_likelihood(case).y, np.float64)[:, None]
    rate = 4 * x + 2 if case == "emission" else 50 * np.exp(-x) + 3
    log_p = y * np.log(rate) - rate - (x - mean) ** 2 / (2 * std**2)
    p = np.exp(log_p - log_p.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    first = p @ x
    return first, np.sqrt(p @ x**2 - first**2)


def _targets(likelihood):
    start = jnp.full(8, CASES["emission"][0])
    _, trace = mlem(likelihood.operator, likelihood.y, 8, background=2.0, x_init=start)
    return jnp.interp(jnp.linspace(0, 7, LEVELS), jnp.arange(8.0), trace.objective)


GUIDANCE = {
    "pet_dds": lambda l: pet_dds(l, steps=5),
    "pet_dds kept state": lambda l: pet_dds(l, steps=5, keep_noise=False),
    "pet_dps": lambda l: pet_dps(l, weight=4.0),
    "pet_naive": lambda l: pet_naive(l, LEVELS, weight=1.0),
    "mlem_matching": lambda l: mlem_matching(l, _targets(l)),
    "transmission_dps": lambda l: transmission_dps(l),
    "transmission_dps without Jacobian": lambda l: transmission_dps(l, jacobian_free=True),
    "transmission_dps kept noise": lambda l: transmission_dps(l, jacobian_free=True, keep_noise=True),
}

BIAS = {
    "pet_dds": (1.25, 0.49),
    "pet_dds kept state": (0.03, 0.95),
    "pet_dps": (0.52, 1.13),
    "pet_naive": (0.19, 0.95),
    "mlem_matching": (1.37, 0.00),
    "transmission_dps": (0.27, 1.03),
    "transmission_dps without Jacobian": (0.08, 0.91),
    "transmission_dps kept noise": (0.56, 0.44),
}
"""Root mean square error of the mean in posterior standard deviations, and mean ratio of the spreads."""

FAST = ("pet_dds kept state", "transmission_dps without Jacobian")


@pytest.mark.parametrize("name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in BIAS])
def test_bias_of_guidance_by_counts(name):
    """Ancestral steps, 100 EDM levels; a mean of 2000 draws is known to .02, a spread to 2 %."""
    case = "transmission" if name.startswith("transmission") else "emission"
    mean, std = CASES[case]
    prior = GaussianPrior(jnp.full(8, mean), std**2 * jnp.eye(8))

    @jax.jit
    def run(key, likelihood):
        guidance, process, grid = GUIDANCE[name](likelihood), EDM(), karras(LEVELS)
        denoise = prior.denoiser(process)
        return sample(key, ancestral(), denoise, process, grid, shape=(DRAWS, 8), guidance=guidance)

    x = np.asarray(run(jax.random.key(0), _likelihood(case)))
    truth, spread = _exact(case)
    shift = np.sqrt(np.mean(((x.mean(0) - truth) / spread) ** 2))
    assert (shift, np.mean(x.std(0) / spread)) == pytest.approx(BIAS[name], abs=0.03)

"""Consistency at finite D against exact maps: the flow keeps the radial distribution function (foundations O11)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import gammainc
from scipy.stats import gamma

from pgm_jax.core import Network
from pgm_jax.priors import GaussianPrior
from pgm_jax.processes import PFGMpp, karras, precondition
from pgm_jax.samplers import heun
from pgm_jax.training import objectives as o

STD, LOW, HIGH, LEVELS = 0.5, 0.01, 10.0, 40
GRID = karras(LEVELS, LOW, HIGH)[:-1][::-1]
RADII = np.geomspace(1e-3, 3e4, 500)


def radial_cdf(size, D, level):
    """F(R) = E_w gammainc(N / 2, R^2 / (2 (s^2 + sigma^2 / w))), w a chi square of D over D."""
    w = gamma.ppf((np.arange(200) + 0.5) / 200, D / 2, scale=2 / D)
    variance = STD**2 + level**2 / w
    return gammainc(size / 2, RADII[:, None] ** 2 / (2 * variance)).mean(1)


def exact_map(size, D):
    """Table (levels, radii) of the radius at the lowest level, by levels' distribution functions."""
    below = radial_cdf(size, D, LOW)
    known = np.concatenate([[True], np.diff(below) > 1e-12])
    return np.stack([np.interp(radial_cdf(size, D, level), below[known], RADII[known]) for level in GRID])


def tabulated(table):
    """A network that moves a state to the radius of a table."""
    times, radii, table = (jnp.asarray(a, jnp.float32) for a in (GRID, RADII, table))

    def apply(params, x, t, cond=None, *, key=None, train=False):
        def one(x, t):
            radius = jnp.linalg.norm(x)
            row = table[jnp.argmin(jnp.abs(times - t))]
            return x / radius * jnp.interp(radius, radii, row)

        return jax.vmap(one)(x, t)

    return Network(None, apply)


def plain(process, t):
    return precondition.Coefficients(0 * t, t**0, t**0, t)


@pytest.mark.parametrize(
    "size, D, expected",
    [
        (16, 4, 2.11896309),
        (2, 2, 0.70408208),
        pytest.param(16, 64, 2.49306453, marks=pytest.mark.slow),
        pytest.param(64, 8, 4.25657849, marks=pytest.mark.slow),
    ],
)
def test_the_exact_map_has_no_loss_and_the_gaussian_one_has(size, D, expected):
    """Distillation with the exact denoiser: what is left is Heun's error on 40 levels."""
    table = exact_map(size, D)
    start = 10 * np.sqrt(size) * 1.3
    assert np.interp(start, RADII, table[-1]) == pytest.approx(expected, rel=5e-3)
    process = PFGMpp(D)
    denoise = GaussianPrior(jnp.zeros(size), jnp.float32(STD**2) * jnp.eye(size)).denoiser(process)
    exact = Network(None, lambda params, x, t, cond=None, **_: jax.vmap(denoise)(x, t))
    batch = {"x0": STD * jax.random.normal(jax.random.key(0), (128, size))}

    def loss(network):
        objective = o.consistency_distillation(
            process, network, plain, o.gaps.on_grid(LEVELS, LOW, HIGH), o.Teacher(exact, plain, heun()),
            distance=o.distances.squared,
        )  # fmt: skip
        return jax.jit(objective)((), o.carry_of(teacher=()), batch, jax.random.key(1))[0]

    scale = np.sqrt((STD**2 + LOW**2) / (STD**2 + GRID**2))
    linear = scale[:, None] * RADII[None]
    ours, wrong = loss(tabulated(table)), loss(tabulated(linear))
    # Of a clean image of variance .25: a step of the flow is off by less than 1 % of its deviation.
    assert ours < 2.5e-5 and wrong > 3 * ours

"""Grids: published values, explicit ends, rises; schedules' reference numbers; NCSN's rules."""

import itertools
import math

import numpy as np
import pytest

from pgm_jax.processes import (
    DDPM,
    EDM,
    VE,
    VP,
    Bridge,
    Cosine,
    FlowMatching,
    SubVP,
    churn,
    cosine_betas,
    fast_ddpm,
    few_step_grid,
    karras,
    linear,
    log_snr,
    ncsn_levels,
    ncsn_step_size,
    resample,
    scaled_linear_betas,
    subset,
    trailing,
    voxelwise,
)
from pgm_jax.processes.ncsn import largest_distance, level_ratio

PROCESSES = {
    "EDM": (EDM(), 80.0),
    "VE": (VE(0.01, 90.0), 80.0),
    "VP": (VP(), 80.0),
    "SubVP": (SubVP(), 80.0),
    "Cosine": (Cosine(), 80.0),
    "FlowMatching": (FlowMatching(), 80.0),
    "DDPM": (DDPM(), 80.0),
    "Bridge": (Bridge(), 80.0),
}
# O27: abar on Fast-DDPM's non-uniform grid.
FAST_ABAR = [0.9999, 0.659039, 0.195146, 0.025879, 0.006966, 0.001532, 0.000666, 0.000275, 0.000108, 0.000040]


def test_karras_is_edms_formula():
    steps, low, high = 18, 0.002, 80.0
    i = np.arange(steps)
    expected = (high ** (1 / 7) + i / (steps - 1) * (low ** (1 / 7) - high ** (1 / 7))) ** 7
    grid = karras(steps)
    assert grid.dtype == np.float64 and grid.shape == (steps + 1,)
    np.testing.assert_allclose(grid[:-1], expected, rtol=1e-14)
    assert grid[-1] == 0
    np.testing.assert_array_equal(karras(1), [80.0, 0.0])


def test_karras_reproduces_the_euler_recursion_of_oracle_15():
    for steps, expected in ((5, 0.46726699), (18, 0.84607940), (80, 0.96465968)):
        x, grid = 1.0, karras(steps)
        for t, s in itertools.pairwise(grid):
            x = x * (0.25 + t * s) / (0.25 + t * t)
        assert abs(x / math.sqrt(0.25 / (0.25 + 80**2)) - expected) < 5e-9


@pytest.mark.parametrize("process, sigma_max", PROCESSES.values(), ids=PROCESSES)
@pytest.mark.parametrize("make", [karras, log_snr])
def test_levels_become_times_of_any_process(make, process, sigma_max):
    levels, grid = make(12, sigma_max=sigma_max), make(12, sigma_max=sigma_max, process=process)
    assert grid[-1] == 0 and np.all(np.diff(grid) < 0) and grid.dtype == np.float64
    np.testing.assert_allclose(process.sigma(grid[:-1]) / process.alpha(grid[:-1]), levels[:-1], rtol=1e-4)


def test_log_snr_is_geometric():
    grid = log_snr(4, 0.1, 10.0, end_at_zero=False)
    np.testing.assert_allclose(grid, [10, 10**0.5, 1, 10**-0.5, 0.1], rtol=1e-12)
    np.testing.assert_allclose(log_snr(3, 0.1, 10.0), [10, 1, 0.1, 0], rtol=1e-12)


def test_trailing_starts_noisy_and_ends_clean_for_any_count():
    np.testing.assert_array_equal(trailing(4), [1000, 750, 500, 250, 0])
    np.testing.assert_array_equal(trailing(7), [1000, 857, 714, 571, 429, 286, 143, 0])
    for steps in (1, 3, 37, 999, 1000):
        grid = trailing(steps)
        assert grid[0] == 1000 and grid[-1] == 0 and len(grid) == steps + 1
        assert np.array_equal(grid, np.round(grid))


def test_fast_ddpm_grids():
    uniform, nonuniform = fast_ddpm(), fast_ddpm(10, "nonuniform")
    np.testing.assert_array_equal(uniform, [1000, 900, 800, 700, 600, 500, 400, 300, 200, 100, 1, 0])
    np.testing.assert_array_equal(nonuniform, [1000, 950, 900, 850, 800, 700, 600, 400, 200, 1, 0])
    np.testing.assert_allclose((DDPM().alpha(nonuniform[:-1]) ** 2)[::-1], FAST_ABAR, atol=5.1e-7)
    # The reference's rule: ceil(linspace(0, 699, 9)[:-1]) and ceil(linspace(699, 999, 12)).
    rule = np.concatenate([np.ceil(np.linspace(0, 699, 9)[:-1]), np.ceil(np.linspace(699, 999, 12))])
    np.testing.assert_array_equal(fast_ddpm(20, "nonuniform"), np.append(rule[::-1] + 1, 0))
    for steps in range(1, 9):
        grid = fast_ddpm(steps, "nonuniform")
        assert grid[0] == 1000 and len(grid) == steps + 1


def test_churn_rises_by_edms_factor():
    grid = karras(64)
    visited = churn(grid, s_churn=20.0, s_min=0.05, s_max=50.0)
    gamma = min(20 / 64, math.sqrt(2) - 1)
    inside = (grid[:-1] >= 0.05) & (grid[:-1] <= 50)
    assert len(visited) == len(grid) + inside.sum()
    risen = visited[1:][np.diff(visited) > 0]
    np.testing.assert_allclose(risen, grid[:-1][inside] * (1 + gamma), rtol=1e-14)
    np.testing.assert_array_equal(churn(grid, 0.0), grid)
    assert churn(karras(3), 1e3)[1] == pytest.approx(80 * math.sqrt(2))


def test_churn_on_another_process_rises_in_its_own_ratio():
    process = VP()
    grid = karras(6, process=process, sigma_max=20.0)
    visited = churn(grid, 1.2, process=process)
    up = np.flatnonzero(np.diff(visited) > 0)
    np.testing.assert_allclose(process.ratio(visited[up + 1]) / process.ratio(visited[up]), 1.2, rtol=1e-9)
    assert len(churn(trailing(5), 1.0, process=DDPM())) == 6 + 4  # no rise above T


def test_churned_heun_has_edms_final_spread():
    # contracts_measured row 4: n = 64, S_churn = 20, data std .5; variances propagated exactly.
    visited, variance = churn(karras(64), 20.0), 80.0**2 + 0.25
    slope = lambda t: t / (0.25 + t * t)
    for t, s in itertools.pairwise(visited):
        euler = 1 + (s - t) * slope(t)
        heun = 1 + 0.5 * (s - t) * (slope(t) + euler * slope(s))
        variance = variance + s**2 - t**2 if s > t else variance * (heun if s > 0 else euler) ** 2
    assert math.sqrt(variance) == pytest.approx(0.5082, abs=5e-5)


def test_resample_repeats_every_pair_but_the_last():
    np.testing.assert_array_equal(resample([3, 2, 1, 0], 2), [3, 2, 3, 2, 1, 2, 1, 0])
    np.testing.assert_array_equal(resample([2, 1, 0], 3), [2, 1, 2, 1, 2, 1, 0])
    np.testing.assert_array_equal(resample([2, 1, 0], 2, last=True), [2, 1, 2, 1, 0, 1, 0])
    np.testing.assert_array_equal(resample([3, 2, 0], 1), [3, 2, 0])


def test_voxelwise_scales_times():
    scale = np.array([[0.0, 0.5], [1.0, 0.25]])
    grid = voxelwise([4.0, 2.0, 0.0], scale)
    assert grid.shape == (3, 2, 2)
    np.testing.assert_array_equal(grid[:, 1, 0], [4, 2, 0])
    np.testing.assert_array_equal(grid[:, 0, 0], 0)


@pytest.mark.parametrize(
    "make, match",
    [
        (lambda: karras(0), "steps >= 1"),
        (lambda: karras(2.5), "steps >= 1"),
        (lambda: karras(4, sigma_min=80.0, sigma_max=1.0), "sigma_min < sigma_max"),
        (lambda: karras(4, sigma_max=math.nan), "sigma_min < sigma_max"),
        (lambda: karras(4, sigma_max=math.inf), "sigma_min < sigma_max"),
        (lambda: karras(8, sigma_max=1e5, process=DDPM()), "range of this process"),
        (lambda: karras(8, rho=0.0), "rho"),
        (lambda: linear(3, 0.0, 1.0), "falling"),
        (lambda: linear(3, math.inf), "finite"),
        (lambda: trailing(1001), "do not fit"),
        (lambda: subset([1.0]), "at least two"),
        (lambda: subset([0.0, 1.0]), "falling"),
        (lambda: subset([1.0, 1.0]), "falling"),
        (lambda: subset([1.0, -1.0]), "falling"),
        (lambda: subset([1.0, math.nan]), "finite"),
        (lambda: fast_ddpm(7), "divide"),
        (lambda: fast_ddpm(10, "cubic"), "spacing"),
        (lambda: fast_ddpm(600), "too many"),
        (lambda: churn([2.0, 0.0], -1.0), "s_churn"),
        (lambda: resample([2.0, 0.0], 0), "repeats"),
        (lambda: voxelwise([2.0, 0.0], np.array([1.5])), r"\[0, 1\]"),
        (lambda: voxelwise([2.0, 0.0], np.array([math.nan])), r"\[0, 1\]"),
        (lambda: ncsn_levels(0.001, 10), "sigma_min"),
        (lambda: ncsn_step_size([1.0, 2.0], 5), "falling"),
        (lambda: level_ratio(0), "size"),
    ],
)
def test_refusals(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_schedules_reference_numbers():
    abar = lambda process, t: float(process.alpha(t)) ** 2
    chain = DDPM()
    assert abar(chain, 1) == pytest.approx(0.9999, abs=1e-12)
    assert abar(chain, 500) == pytest.approx(0.078587, abs=5e-7)
    assert abar(chain, 1000) == pytest.approx(4.03583e-5, rel=1e-6)
    assert chain.ratio(1000) == pytest.approx(157.407, abs=5e-4)
    cosine = DDPM(cosine_betas())
    assert cosine_betas()[0] == pytest.approx(4.128422e-5, rel=1e-6)
    assert abar(cosine, 500) == pytest.approx(0.493844, abs=5e-7)
    assert abar(cosine, 1000) == pytest.approx(2.428767e-9, rel=1e-6)
    latent = DDPM(scaled_linear_betas())
    assert abar(latent, 1000) == pytest.approx(0.004660, abs=5e-7)
    assert latent.ratio(1) == pytest.approx(0.0292, abs=5e-5)
    assert latent.ratio(1000) == pytest.approx(14.6146, abs=5e-5)


def test_terminal_signal_table():
    # generation_analysis.md section 2, three digits.
    assert float(DDPM(scaled_linear_betas(1000, 0.0015, 0.0295)).alpha(1000)) ** 2 == pytest.approx(
        3.2e-6, rel=0.02
    )
    assert float(DDPM(np.linspace(1e-4, 0.02, 10)).alpha(10)) ** 2 == pytest.approx(0.904, abs=5e-4)


def test_ncsn_levels_solve_technique_2():
    normal = lambda u: 0.5 * (1 + math.erf(u / math.sqrt(2)))
    for size in (64, 3072, 65536):
        g, root = level_ratio(size), math.sqrt(2 * size)
        overlap = normal(root * (g - 1) + 3 * g) - normal(root * (g - 1) - 3 * g)
        assert abs(overlap - 0.5) < 1e-10
    levels = ncsn_levels(50.0, 3072)
    assert levels[0] == pytest.approx(50) and levels[-1] == pytest.approx(0.01)
    ratios = levels[:-1] / levels[1:]
    assert np.ptp(ratios) < 1e-10 and level_ratio(3072) * 0.999 < ratios[0] <= level_ratio(3072)


def test_ncsn_step_size_is_the_published_one():
    # CIFAR-10: 232 levels from 50 to 0.01, 5 steps a level, eps = 6.2e-6.
    assert ncsn_step_size(np.geomspace(50, 0.01, 232), 5) == pytest.approx(6.2e-6, rel=0.01)


def test_largest_distance(key):
    data = np.random.default_rng(0).normal(size=(40, 6, 5)) + 1e4
    brute = max(np.linalg.norm(a - b) for a in data for b in data)
    assert largest_distance(data) == pytest.approx(brute, rel=1e-10)
    assert largest_distance(np.array([[0.0 + 0j], [3.0 + 4j]])) == pytest.approx(5.0)


@pytest.mark.parametrize("process", [EDM(), VP()], ids=["EDM", "VP"])
@pytest.mark.parametrize("sigma_max", [20.0, 0.3])
def test_few_step_levels_are_even_in_their_cube_root(process, sigma_max):
    for steps in (1, 2, 5, 16):
        grid = few_step_grid(process, steps, sigma_max, sigma_min=0.005)
        assert grid.dtype == np.float64 and len(grid) == steps + 1 and grid[-1] == 0
        roots = np.cbrt([*process.ratio(grid[:-1]), 0.005])
        np.testing.assert_allclose(np.diff(roots), (np.cbrt(0.005) - np.cbrt(sigma_max)) / steps, rtol=1e-5)
        np.testing.assert_allclose(roots[0], np.cbrt(sigma_max), rtol=1e-6)


@pytest.mark.parametrize(
    "changes, match",
    [
        ({"steps": 0}, "steps >= 1"),
        ({"sigma_max": 0.005}, "sigma_min < sigma_max"),
        ({"rho": 0.0}, "rho > 0"),
    ],
)
def test_few_step_grids_that_are_none(changes, match):
    with pytest.raises(ValueError, match=match):
        few_step_grid(**{"process": EDM(), "steps": 2, "sigma_max": 20.0, "sigma_min": 0.005} | changes)

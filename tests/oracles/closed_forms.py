"""Closed forms in numpy and scipy, independent of the package: the numbers that the tests compare with."""

import numpy as np
import scipy.optimize
import scipy.special
import scipy.stats

ATOMS, WEIGHTS = np.array([-1.0, 0.2, 1.5]), np.array([0.2, 0.5, 0.3])


def linear_denoiser(process, std):
    """The posterior mean of N(0, std^2 I) under Normal noise: `alpha std^2 / (alpha^2 std^2 + sigma^2) x`."""

    def denoise(x_t, t, cond=None):
        alpha, sigma = process.alpha(t), process.sigma(t)
        return alpha * std**2 / (alpha**2 * std**2 + sigma**2) * x_t

    return denoise


def kernel_cdf(df):
    """The cdf of a unit draw in one dimension, t_D or normal."""
    return scipy.stats.norm.cdf if np.isinf(df) else scipy.stats.t(df).cdf


def atoms_cdf(df, sigma):
    """The cdf of the three atoms under the kernel (foundations O10)."""
    cdf = kernel_cdf(df)
    return lambda x: float(np.sum(WEIGHTS * cdf((x - ATOMS) / sigma)))


def quantile_flow(df, x, t, s):
    """The exact flow map in one dimension: the quantile of x at level t, taken at level s."""
    target, end = atoms_cdf(df, t)(x), atoms_cdf(df, s)
    return scipy.optimize.brentq(lambda u: end(u) - target, -1e4, 1e4, xtol=1e-14, rtol=1e-14)


def radius_law(size, df):
    """The law of `R^2 / r^2`, r = sigma sqrt(D), for N components: BetaPrime(N / 2, D / 2)."""
    return scipy.stats.betaprime(size / 2, df / 2)


def log_sphere(size):
    """Log of the area of the unit sphere in R^N."""
    return np.log(2) + 0.5 * size * np.log(np.pi) - scipy.special.gammaln(0.5 * size)


def churned_heun_variance(std, grid, gamma, start):
    """EDM's Algorithm 2 with S_noise = 1 on N(0, std^2): the scalar recursion of the variance."""
    rate = lambda level: 1 - std**2 / (std**2 + level**2)
    var = start
    for t, s in zip(grid[:-1], grid[1:], strict=True):
        high = t * (1 + gamma)
        var += high**2 - t**2
        slope = rate(high) / high
        euler = 1 + (s - high) * slope
        factor = euler if s == 0 else 1 + 0.5 * (s - high) * (slope + rate(s) / s * euler)
        var *= factor**2
    return var

"""One linear Gaussian problem with its exact posterior: N = 8 unknowns, M = 4 data."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from pgm_jax.operators import GaussianLikelihood, Matrix
from pgm_jax.priors import GaussianPrior


class Problem(NamedTuple):
    """A Gaussian prior, a likelihood and their posterior, with the plain arrays beside."""

    prior: Any
    likelihood: Any
    posterior: Any
    matrix: np.ndarray
    noise_std: float


def gaussian_problem(size=8, data=4, noise_std=0.3, seed=0):
    """Builds the problem in the dtype that is the default when it is called."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(size, size))
    mean, cov = rng.normal(size=size), root @ root.T / size + 0.1 * np.eye(size)
    matrix = rng.normal(size=(data, size)) / np.sqrt(size)
    truth = rng.multivariate_normal(mean, cov)
    y = matrix @ truth + noise_std * rng.normal(size=data)
    # By the normal equations in numpy, so that the package's own posterior is tested too.
    precision = np.linalg.inv(cov) + matrix.T @ matrix / noise_std**2
    post_cov = np.linalg.inv(precision)
    post_mean = post_cov @ (np.linalg.solve(cov, mean) + matrix.T @ y / noise_std**2)
    return Problem(
        GaussianPrior(jnp.asarray(mean), jnp.asarray(cov)),
        GaussianLikelihood.create(Matrix(jnp.asarray(matrix)), jnp.asarray(y), noise_std),
        GaussianPrior(jnp.asarray(post_mean), jnp.asarray(post_cov)),
        matrix,
        noise_std,
    )


def marginal(prior, process, t):
    """Returns the mean and covariance of x_t under a Gaussian prior and Normal noise."""
    alpha, sigma = process.alpha(t), process.sigma(t)
    return alpha * prior.mean, alpha**2 * prior.cov + sigma**2 * jnp.eye(prior.mean.size)

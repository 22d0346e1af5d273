"""The exact mean and covariance of a sampler on Gaussian data: no samples, no statistical error.

With a Gaussian prior every denoiser, guidance and step is affine in the state and in the noise that it draws,
so a Gaussian state stays Gaussian and its moments follow from two Jacobians a step.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from pgm_jax.core import State, lift
from pgm_jax.processes import Normal


class GivenNoise(Normal):
    """The Normal law with its draws replaced by a given array, so that a step is an affine map of it.

    Attributes:
        noise: array that every call of `sample` returns, of the shape of the image.
    """

    noise: Any = struct.field(default=None)

    def sample(self, key, shape, dtype=jnp.float32):
        """Returns the given noise in place of a draw."""
        return self.noise.astype(dtype).reshape(shape)


def gaussian_moments(sampler, denoise, process, grid, mean, cov, guidance=None):
    """Propagates the mean and covariance of a Gaussian start through a sampler, exactly.

    A step is `x_s = F x_t + G z + c`: `mean' = step(mean, 0)`, `C' = F C F^T + G G^T`.

    Args:
        sampler: a sampler that draws noise at most once a step, and carries no memory.
        denoise: affine denoiser, that of a Gaussian prior.
        process: affine process with Normal noise.
        grid: falling times, (n + 1,).
        mean: (N,) mean of the state at the first time.
        cov: (N, N) its covariance.
        guidance: guidance under which the estimate stays affine, without state.

    Returns:
        `(mean, cov)` of the state at the last time.

    Raises:
        ValueError: if the sampler carries memory.
    """
    if jax.tree.leaves(sampler.init(mean)):
        raise ValueError("gaussian_moments follows samplers without memory: dpmpp_2m has one.")
    key = jax.random.key(0)
    times = jnp.asarray(np.asarray(grid), mean.dtype)

    def move(x, noise, t, s):
        forced = process.replace(law=GivenNoise(noise))
        estimator = lift(forced, denoise)
        estimator = estimator if guidance is None else guidance(estimator)
        estimate = functools.partial(_estimate, estimator)
        state = State(x, estimator.init(x), ())
        return sampler.step(key, forced, estimate, state, t, s).x

    def body(carry, pair):
        mean, cov = carry
        zero = jnp.zeros_like(mean)
        to_state, to_noise = jax.jacfwd(move, argnums=(0, 1))(mean, zero, *pair)
        return (move(mean, zero, *pair), to_state @ cov @ to_state.T + to_noise @ to_noise.T), None

    return jax.lax.scan(body, (mean, cov), (times[:-1], times[1:]))[0]


def _estimate(estimator, key, x_t, t, guidance, s=None):
    return estimator.apply(key, x_t, t, guidance, s=s)


def moment_errors(mean, cov, prior):
    """Returns the errors of a mean and a covariance against an exact Gaussian.

    Args:
        mean: (N,) mean.
        cov: (N, N) covariance.
        prior: `GaussianPrior`, the truth.

    Returns:
        `(mean_err, cov_err)`: `|mean - m| / sqrt(tr C)` and `|cov - C|_F / |C|_F`.
    """
    truth = prior.cov
    mean_err = jnp.linalg.norm(mean - prior.mean) / jnp.sqrt(jnp.trace(truth))
    return mean_err, jnp.linalg.norm(cov - truth) / jnp.linalg.norm(truth)

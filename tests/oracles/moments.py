"""Exact propagation of mean and covariance through a sampler: no samples, no statistical error.

With an affine denoiser and Normal noise every step is an affine map `x_s = F x_t + G z + c` of the sampler's
state and of the noise that it draws. The map is found by forward differentiation of the step itself, so that
the figure belongs to the code under test and not to a formula about it:

    C' = F C F^T + G G^T,    mean' = step(mean, 0).

The state is the whole `State` (image, guidance's state, sampler's memory), flattened: multistep methods and
guidance with affine state are followed too. Rising pairs of a grid go through `process.renoise`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.flatten_util import ravel_pytree

from pgm_jax.core import State, lift
from pgm_jax.processes import Normal


class GivenNoise(Normal):
    """The Normal law whose draws are rows of a given array, in the order in which they are asked for.

    Attributes:
        noise: (draws, *image).
        taken: list of the rows already handed out; one law serves one trace of one step.
    """

    noise: Any = None
    taken: Any = struct.field(pytree_node=False, default=None)

    def _next(self, shape, dtype):
        index = len(self.taken)
        if index >= self.noise.shape[0]:
            raise ValueError(f"The step draws more than {index} times: give `draws`.")
        self.taken.append(index)
        return self.noise[index].reshape(shape).astype(dtype)

    def sample(self, key, shape, dtype=jnp.float32):
        return self._next(shape, dtype)

    def widen(self, key, shape, dtype, small, large):
        return jnp.sqrt(jnp.maximum((large - small) * (large + small), 0.0)) * self._next(shape, dtype)


class Moments:
    """A sampler on one problem, as the affine map of its state; one compiled step for every grid.

    Args:
        sampler: sampler under test.
        denoise: denoiser, affine in x_t (for `mean` alone it may be anything deterministic).
        process: affine process with Normal noise.
        guidance: guidance under which the estimate stays affine.
        cond: condition of the denoiser.
        draws: number of times that one step draws noise.
        x1: end point of a bridge.
    """

    def __init__(self, sampler, denoise, process, guidance=None, cond=None, draws=1, x1=None):
        self.sampler, self.process, self.draws = sampler, process, draws
        self._denoise, self._guidance, self._cond, self._x1 = denoise, guidance, cond, x1
        self._down, self._up = jax.jit(self._affine(False)), jax.jit(self._affine(True))
        self._moved = jax.jit(
            lambda flat, t, s, like: self._move(flat, jnp.zeros((draws, *like.shape)), t, s, like, False)
        )

    def _estimator(self, process):
        estimator = lift(process, self._denoise, self._x1)
        return estimator if self._guidance is None else self._guidance(estimator)

    def _start(self, x):
        return State(x, self._estimator(self.process).init(x), self.sampler.init(x))

    def _move(self, flat, noise, t, s, like, rises):
        process = self.process.replace(law=GivenNoise(noise, []))
        state = ravel_pytree(self._start(like))[1](flat)
        key = jax.random.key(0)
        if rises:
            return ravel_pytree(state._replace(x=process.renoise(key, state.x, t, s)))[0]
        estimator = self._estimator(process)

        def estimate(key, x_t, t, guidance, s=None):
            return estimator.apply(key, x_t, t, guidance, cond=self._cond, s=s)

        return ravel_pytree(self.sampler.step(key, process, estimate, state, t, s))[0]

    def _affine(self, rises):
        def step(mean, cov, t, s, like):
            zero = jnp.zeros((self.draws, *like.shape), like.dtype)
            move = lambda flat, noise: self._move(flat, noise, t, s, like, rises)
            by_state, by_noise = jax.jacfwd(move, argnums=(0, 1))(mean, zero)
            by_noise = by_noise.reshape(mean.size, -1)
            return move(mean, zero), by_state @ cov @ by_state.T + by_noise @ by_noise.T

        return step

    def __call__(self, grid, mean, cov):
        """Returns `(mean, cov)` of the image at the last time; `mean` (*image), `cov` (N, N) at the first."""
        flat, _ = ravel_pytree(self._start(mean))
        whole = jnp.zeros((flat.size, flat.size), mean.dtype).at[: mean.size, : mean.size].set(cov)
        for t, s in zip(grid[:-1], grid[1:], strict=True):
            step = self._up if s > t else self._down
            flat, whole = step(flat, whole, jnp.asarray(t, mean.dtype), jnp.asarray(s, mean.dtype), mean)
        return flat[: mean.size].reshape(mean.shape), whole[: mean.size, : mean.size]

    def path(self, grid, x):
        """Returns the end of the noise-free path from x: the ODE solution of a deterministic sampler."""
        flat, _ = ravel_pytree(self._start(x))
        for t, s in zip(grid[:-1], grid[1:], strict=True):
            flat = self._moved(flat, jnp.asarray(t, x.dtype), jnp.asarray(s, x.dtype), x)
        return flat[: x.size].reshape(x.shape)


def variance(moments, grid, start):
    """Propagates a scalar variance: `moments` of a one-component image, from variance `start`."""
    mean, cov = moments(np.asarray(grid), jnp.zeros(1), jnp.full((1, 1), start, float))
    return float(cov[0, 0])


def relative_error(cov, truth):
    """Returns `|cov - truth|_F / |truth|_F`."""
    return float(np.linalg.norm(np.asarray(cov) - np.asarray(truth)) / np.linalg.norm(np.asarray(truth)))

"""The Normal noise law: diffusion models."""

import jax
import jax.numpy as jnp
from flax import struct

from pgm_jax.core import real_size, squared_norm


def unit_normal(key, shape, dtype=jnp.float32):
    """Draws standard normal noise per real component.

    Args:
        key: PRNG key.
        shape: shape of the image.
        dtype: real or complex dtype; a complex draw has E|n|^2 = 2.

    Returns:
        Array of the given shape and dtype.
    """
    if not jnp.issubdtype(dtype, jnp.complexfloating):
        return jax.random.normal(key, shape, dtype)
    real = jax.random.normal(key, (2, *shape), jnp.finfo(dtype).dtype)
    return jax.lax.complex(real[0], real[1])


class Normal(struct.PyTreeNode):
    """Standard normal noise: `log p(n) = -|n|^2 / 2 - (N / 2) log(2 pi)`, N real components."""

    def sample(self, key, shape, dtype=jnp.float32):
        """Draws unit noise; see `unit_normal`."""
        return unit_normal(key, shape, dtype)

    def log_prob(self, noise):
        """Returns the log density of one unit draw, a real scalar."""
        return -0.5 * squared_norm(noise) - 0.5 * real_size(noise) * jnp.log(2 * jnp.pi)

    def refresh(self, noise, fresh, r):
        """Mixes old and fresh noise so that the law is kept: `sqrt(1 - r^2) noise + r fresh`.

        Args:
            noise: unit noise of the state.
            fresh: independent unit noise of the same shape.
            r: fraction in [0, 1], a scalar or an array that broadcasts (a mask renews a region).

        Returns:
            Unit noise of the same shape.
        """
        if isinstance(r, (int, float)) and r in (0, 1):
            return fresh if r else noise
        return jnp.sqrt(1 - r**2) * noise + r * fresh

    def widen(self, key, shape, dtype, small, large):
        """Draws the noise that turns noise of scale `small` into noise of scale `large`.

        `small n + widen ~ large n`, so widen is Normal with variance `large^2 - small^2`.
        """
        variance = (large - small) * (large + small)
        return jnp.sqrt(jnp.maximum(variance, 0.0)) * unit_normal(key, shape, dtype)

    def score(self, noise, sigma):
        """Returns the score of the perturbed density, `-noise / sigma`, per real component."""
        return -noise / sigma

    def gain(self, sigma, residual_sq, size):
        """Returns the factor from a likelihood gradient to a displacement, `sigma^2`."""
        return sigma**2

    def tilt(self, noise, sigma, grad, dsigma, gain):
        """Returns the noise of the posterior: `noise - sigma grad`; see `StudentT.tilt`."""
        return noise - sigma * grad

    def covariance(self, sigma, residual, tangents, key=None):
        """Returns `v -> Cov[x0 | x_t] v = sigma^2 J^T v` (Tweedie), in the frame where alpha is 1.

        The Jacobian of a posterior mean is symmetric. A network's is so only approximately; derivatives taken
        through a solve with this covariance then err by as much.
        """
        return lambda v: sigma**2 * tangents.pullback(v)

    def marginalise(self, conditional, power=0.0, size=None):
        """Averages over the variance multiplier of the law, which is 1; see `StudentT.marginalise`."""
        return conditional(jnp.ones(()))

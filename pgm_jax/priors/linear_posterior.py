"""The posterior of a stationary Gaussian prior under any linear operator: CG and perturb-and-MAP."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from pgm_jax.operators import solve_positive_definite
from pgm_jax.priors.dense import noise_variances
from pgm_jax.processes.normal import unit_normal


class LinearPosterior(struct.PyTreeNode):
    """The Gaussian posterior of `y = A x + noise_std n`, x from a prior with a cheap covariance S.

    With `K = S A^H (A S A^H + R)^-1`, applied by conjugate gradients in the space of the data: the mean is
    `m + K (y - A m)`, and perturb-and-MAP `x + K (y - A x - n)`, x and n fresh draws, is an exact draw
    (reconstruction.md 5.8). Made by `StationaryGaussianPrior.posterior`; crosses `jit`; vmap over keys.

    Attributes:
        prior: `StationaryGaussianPrior`.
        operator: linear map with an adjoint.
        y: measurement, an array or a tuple of arrays.
        noise_std: standard deviation per real component of y: a number, or arrays that broadcast.
        rtol: relative residual at which CG stops.
        max_steps: most CG steps, static; a prior of wide range and little noise takes a thousand.
    """

    prior: Any
    operator: Any
    y: Any
    noise_std: Any
    rtol: Any = 1e-5
    max_steps: int = struct.field(pytree_node=False, default=2000)

    def mean(self):
        """Computes the posterior mean by one CG solve.

        Returns:
            Array of the image's shape.
        """
        prior_mean = self.prior.mean_image
        return self._update(prior_mean, self._subtract(self.y, self.operator(prior_mean)))

    def sample(self, key):
        """Draws one image by perturb-and-MAP, at the cost of one CG solve.

        Args:
            key: PRNG key.

        Returns:
            Array of the image's shape.
        """
        key_image, key_noise = jax.random.split(key)
        x = self.prior.sample(key_image)
        leaves, tree = jax.tree.flatten(self.operator(x))
        keys = jax.random.split(key_noise, len(leaves))
        noise = tree.unflatten(
            [unit_normal(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)]
        )
        return self.perturbed(x, noise)

    def perturbed(self, x, noise):
        """Computes `x + K (y - A x - noise_std noise)`: the draw made from given unit draws.

        Args:
            x: draw of the prior; the prior mean with zero noise gives the posterior mean.
            noise: unit noise, an array or tuple like y.

        Returns:
            Array of the image's shape.
        """
        scaled = jax.tree.map(lambda n, v: jnp.sqrt(v) * n, noise, self._variances())
        return self._update(x, self._subtract(self._subtract(self.y, self.operator(x)), scaled))

    def gain(self, data):
        """Applies `K = S A^H (A S A^H + R)^-1`.

        Args:
            data: array or tuple like y.

        Returns:
            Array of the image's shape.
        """
        variances = self._variances()

        def matvec(u):
            back = self.operator(self._back(u))
            return jax.tree.map(lambda a, v, b: a + v * b, back, variances, u)

        return self._back(solve_positive_definite(matvec, data, rtol=self.rtol, max_steps=self.max_steps))

    def _back(self, u):
        """`S Re A^H u`: over real components the adjoint of a map from real images takes the real part."""
        image = self.operator.adjoint(u)
        return self.prior.covariance(self.prior.real_part(image))

    def _update(self, x, residual):
        return (x + self.gain(residual)).astype(x.dtype)

    def _variances(self):
        return noise_variances(self.noise_std, self.y, self.prior.power.dtype)

    def _subtract(self, a, b):
        return jax.tree.map(lambda left, right: left - right, a, b)

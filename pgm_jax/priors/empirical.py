"""The empirical distribution of a set of images: the exact model of a training set."""

from typing import Any

import jax
import jax.numpy as jnp

from pgm_jax.core import inner, real_size, squared_norm
from pgm_jax.priors.base import Prior, normal_log_density, one_number, working_dtype
from pgm_jax.priors.dense import noise_variances


class EmpiricalPrior(Prior):
    """Point masses `sum_i w_i delta(x - points_i)`, `EmpiricalPrior(points, weights=None)`.

    Every average is a softmax over the points, log-weights `log w_i + law.log_prob((x - alpha p_i) / sigma)`,
    without quadrature, for any noise law (foundations O6).

    Attributes:
        points: (K, *image), real or complex.
        weights: (K,) positive weights, equal by default; divided by their sum.
    """

    points: Any
    weights: Any = None

    @property
    def log_weights(self):
        """(K,) logs of the weights, normalised."""
        points = jnp.asarray(self.points)
        count = points.shape[0]
        if self.weights is None:
            return -jnp.log(jnp.full((count,), count, working_dtype(points)))
        weights = jnp.asarray(self.weights)
        return jnp.log(weights) - jnp.log(jnp.sum(weights))

    def observe(self, x, alpha):
        """See `Prior.observe`: the statistics are the posterior probabilities of the points.

        Args:
            x: state of the image's shape.
            alpha: scale of the clean image, a scalar.

        Returns:
            `(given, combine, offset)`.

        Raises:
            ValueError: for voxel-wise alpha, or if x does not have the shape of a point.
        """
        energies = jax.vmap(squared_norm)(self._residuals(x, alpha))
        size = real_size(x)

        def given(variance):
            one_number("the noise variance", variance, "EmpiricalPrior")
            logs = jnp.broadcast_to(jnp.log(variance), (size,))
            log_densities = jax.vmap(lambda energy: normal_log_density(energy / variance, logs))(energies)
            log_joint = self.log_weights + log_densities
            return jax.nn.logsumexp(log_joint), jax.nn.softmax(log_joint)

        return given, self._mean, 0.0

    def log_prob(self, x):
        """Refuses: point masses have no density.

        Args:
            x: clean image.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "EmpiricalPrior has no density at sigma = 0: ask log_marginal at a noise level above 0."
        )

    def sample(self, key):
        """Draws one of the points.

        Args:
            key: PRNG key.

        Returns:
            Array of the image's shape.
        """
        return jnp.asarray(self.points)[jax.random.categorical(key, self.log_weights)]

    def posterior(self, operator, y, noise_std):
        """Conditions on `y = A x + noise_std n`: the same points, weighted by their likelihood.

        Args:
            operator: linear map of an image.
            y: measurement, an array or a tuple of arrays.
            noise_std: standard deviation per real component of y.

        Returns:
            `EmpiricalPrior`.
        """
        points = jnp.asarray(self.points)
        y = jax.tree.map(jnp.asarray, y)
        variances = noise_variances(noise_std, y, working_dtype(points))

        def log_likelihood(point):
            gap = jax.tree.map(lambda a, b: a - b, y, operator(point))
            terms = jax.tree.map(lambda r, v: inner(r, r / v), gap, variances)
            return -0.5 * sum(jax.tree.leaves(terms))

        log_joint = self.log_weights + jax.vmap(log_likelihood)(points)
        return EmpiricalPrior(points, jax.nn.softmax(log_joint))

    def _residuals(self, x, alpha):
        points = jnp.asarray(self.points)
        if x.shape != points.shape[1:]:
            raise ValueError(
                f"EmpiricalPrior: the image is {x.shape}, but its points are {points.shape[1:]}."
            )
        return x[None] - one_number("alpha", alpha, "EmpiricalPrior") * points

    def _mean(self, shares):
        return jnp.tensordot(shares, jnp.asarray(self.points), axes=1)

    def _log_joint(self, process, x_t, alpha, sigma):
        sigma = one_number("sigma", sigma, "EmpiricalPrior")
        scaled = self._residuals(x_t, alpha) / sigma
        return self.log_weights + jax.vmap(process.law.log_prob)(scaled) - real_size(x_t) * jnp.log(sigma)

    def _multipliers(self, process, x_t, alpha, sigma):
        """`E[v | x_t, point]`, which is the law's gain for the distance to the point."""
        if getattr(process.law, "event_axes", None) is not None:
            raise ValueError("The noise variance of a sample needs one radius per sample: event_axes=None.")
        gain = lambda residual: process.law.gain(sigma, squared_norm(residual), real_size(x_t))
        return jax.vmap(gain)(self._residuals(x_t, alpha)) / sigma**2

    def _posterior_mean(self, process, x_t, alpha, sigma):
        return self._mean(jax.nn.softmax(self._log_joint(process, x_t, alpha, sigma)))

    def _log_integral(self, process, x_t, alpha, sigma, power):
        log_joint = self._log_joint(process, x_t, alpha, sigma)
        if power:
            log_joint = log_joint + power * jnp.log(self._multipliers(process, x_t, alpha, sigma))
        return jax.nn.logsumexp(log_joint)

    def _mean_multiplier(self, process, x_t, alpha, sigma):
        shares = jax.nn.softmax(self._log_joint(process, x_t, alpha, sigma))
        return jnp.sum(shares * self._multipliers(process, x_t, alpha, sigma))

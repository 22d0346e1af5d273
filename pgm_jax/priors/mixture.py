"""A mixture of Gaussians over small images, with everything in closed form."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax.core import real_size
from pgm_jax.priors.base import Prior, levels, working_dtype
from pgm_jax.priors.dense import condition, from_real, measurement, to_real
from pgm_jax.priors.gaussian import GaussianPrior, eigensystem, is_array


class MixturePrior(Prior):
    """The mixture `sum_k w_k N(mean_k, cov_k)`, `MixturePrior(weights, means, covs)`.

    Attributes:
        weights: (K,) positive weights; divided by their sum.
        means: (K, *image), real or complex.
        covs: (K, N, N) covariances of the real components; see `GaussianPrior`.
        values: (K, N) eigenvalues, computed once when the prior is built.
        vectors: (K, N, N) eigenvectors.

    Raises:
        ValueError: for weights that are not at least 0 with a positive sum, where their numbers are known.
    """

    weights: Any
    means: Any
    covs: Any
    values: Any = None
    vectors: Any = None

    def __post_init__(self):
        _require_weights(self.weights)
        if self.values is None and is_array(self.covs):
            values, vectors = eigensystem(self.covs)
            object.__setattr__(self, "values", values)
            object.__setattr__(self, "vectors", vectors)

    @property
    def components(self):
        """The components, one `GaussianPrior` with a leading axis on every leaf."""
        return GaussianPrior(jnp.asarray(self.means), self.covs, self.values, self.vectors)

    @property
    def log_weights(self):
        """(K,) logs of the weights, normalised."""
        weights = jnp.asarray(self.weights)
        return jnp.log(weights) - jnp.log(jnp.sum(weights))

    def observe(self, x, alpha):
        """See `Prior.observe`: the components' statistics, weighted by responsibility.

        Args:
            x: state of the image's shape.
            alpha: scale of the clean image: a scalar, or an array that broadcasts against the image.

        Returns:
            `(given, combine, offset)`.
        """
        components = self.components

        def given(variance):
            one = lambda component: component.observe(x, alpha)[0](variance)
            log_densities, statistics = jax.vmap(one)(components)
            log_joint = log_densities + self.log_weights
            share = jax.nn.softmax(log_joint)
            weighted = jax.tree.map(lambda s: jax.vmap(jnp.multiply)(share, s), statistics)
            return jax.nn.logsumexp(log_joint), weighted

        def combine(statistics):
            one = lambda component, part: component.observe(x, alpha)[1](part)
            return jnp.sum(jax.vmap(one)(components, statistics), axis=0)

        return given, combine, 0.0

    def responsibilities(self, process, x_t, t):
        """Computes the posterior probability of each component given a noised image.

        Args:
            process: affine process with any noise law.
            x_t: state.
            t: time with sigma(t) > 0, or any time where the covariances are positive definite.

        Returns:
            (K,) probabilities.
        """
        alpha, sigma = levels(process, x_t, t)
        given, _, _ = self.observe(x_t, alpha)

        def share(v):
            log_density, (shares, _) = given(sigma**2 * v)
            return log_density, shares

        return process.law.marginalise(share, size=real_size(x_t))[1]

    def sample(self, key):
        """Draws a component, then an image of it.

        Args:
            key: PRNG key.

        Returns:
            Array of the image's shape.
        """
        key_component, key_image = jax.random.split(key)
        k = jax.random.categorical(key_component, self.log_weights)
        return jax.tree.map(lambda leaf: leaf[k], self.components).sample(key_image)

    def posterior(self, operator, y, noise_std):
        """Conditions on `y = A x + noise_std n`: each component's posterior, weights updated by evidence.

        `w_k' ~ w_k N(y; A m_k, A S_k A^H + s^2)`.

        Args:
            operator: linear map of an image; its dense matrix is built.
            y: measurement.
            noise_std: standard deviation per real component of y.

        Returns:
            `MixturePrior`.

        Raises:
            ValueError: if y does not have the shape of A(x).
        """
        means = jnp.asarray(self.means)
        shape, is_complex = means.shape[1:], jnp.iscomplexobj(means)
        matrix, data, variance = measurement(operator, y, noise_std, shape, is_complex, working_dtype(means))
        update = lambda mean, cov: condition(to_real(mean), cov, matrix, data, variance)
        new_means, covs, log_evidence = jax.vmap(update)(means, self.covs)
        new_means = jax.vmap(lambda vector: from_real(vector, shape, is_complex))(new_means)
        return MixturePrior(jax.nn.softmax(self.log_weights + log_evidence), new_means, covs)


def _require_weights(weights):
    if not is_array(weights) or isinstance(weights, jax.core.Tracer):
        return
    weights = np.asarray(weights)
    if weights.dtype != object and not (np.all(weights >= 0) and weights.sum() > 0):
        raise ValueError(f"MixturePrior needs weights >= 0 with a positive sum, got {weights.tolist()}")

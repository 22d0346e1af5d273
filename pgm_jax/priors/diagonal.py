"""The Gaussian prior of independent coefficients: exact for per-voxel and per-frequency times at any size."""

from typing import Any

import jax.numpy as jnp

from pgm_jax.core import safe_divide
from pgm_jax.priors.base import Prior, normal_log_density, working_dtype
from pgm_jax.priors.dense import to_real
from pgm_jax.priors.gaussian import GaussianPrior
from pgm_jax.processes.normal import unit_normal


class DiagonalGaussianPrior(Prior):
    """The Gaussian `N(mean, diag(variance))` in the coordinates of the state itself.

    In Hartley coordinates every stationary real image is of this kind (see
    `StationaryGaussianPrior.in_hartley`), and Fourier diffusion, with one alpha and sigma a frequency, has
    this exact denoiser.

    Attributes:
        mean: array of the image's shape, real or complex.
        variance: real array of the image's shape, per real component.
    """

    mean: Any
    variance: Any

    def observe(self, x, alpha):
        """See `Prior.observe`: gain `alpha v / (alpha^2 v + variance)` for each coefficient.

        Args:
            x: state of the image's shape.
            alpha: scale of the clean image: a scalar, or an array of the image's rank.

        Returns:
            `(given, combine, offset)`; the variance may be an array too.

        Raises:
            ValueError: if x does not have the shape of the mean.
        """
        mean = jnp.asarray(self.mean)
        if x.shape != mean.shape or jnp.iscomplexobj(x) != jnp.iscomplexobj(mean):
            raise ValueError(
                f"DiagonalGaussianPrior: image {x.shape} {x.dtype}, but mean {mean.shape} {mean.dtype}."
            )
        prior_variance = jnp.broadcast_to(jnp.asarray(self.variance, working_dtype(x)), x.shape)
        residual = x - alpha * mean
        energy = jnp.abs(residual) ** 2

        def given(variance):
            total = alpha**2 * prior_variance + variance
            log_total = jnp.log(total)
            logs = jnp.concatenate([to_real(log_total)] * (2 if jnp.iscomplexobj(x) else 1))
            log_density = normal_log_density(jnp.sum(safe_divide(energy, total)), logs)
            return log_density, (jnp.ones_like(log_density), safe_divide(alpha * prior_variance, total))

        def combine(statistics):
            share, gain = statistics
            return share * mean + gain * residual

        return given, combine, 0.0

    def sample(self, key):
        """Draws one image, `mean + sqrt(variance) z`.

        Args:
            key: PRNG key.

        Returns:
            Array of the shape and dtype of the mean.
        """
        mean = jnp.asarray(self.mean)
        return mean + jnp.sqrt(self.variance) * unit_normal(key, mean.shape, mean.dtype)

    def posterior(self, operator, y, noise_std):
        """Conditions on `y = A x + noise_std n` through the dense `GaussianPrior`, for small images.

        Args:
            operator: linear map of an image.
            y: measurement.
            noise_std: standard deviation per real component of y.

        Returns:
            `GaussianPrior`.

        Raises:
            ValueError: if y does not have the shape of A(x).
        """
        mean = jnp.asarray(self.mean)
        variance = to_real(jnp.broadcast_to(self.variance, mean.shape))
        variance = jnp.concatenate([variance] * (2 if jnp.iscomplexobj(mean) else 1))
        return GaussianPrior(mean, jnp.diag(variance)).posterior(operator, y, noise_std)

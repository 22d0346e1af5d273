"""The Gaussian prior with a dense covariance: the oracle of small problems."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax.core import safe_divide
from pgm_jax.priors.base import Prior, normal_log_density, working_dtype
from pgm_jax.priors.dense import HIGHEST, condition, from_real, measurement, spread, to_real
from pgm_jax.processes.normal import unit_normal


def eigensystem(cov):
    """Returns the eigenvalues (clipped at 0) and eigenvectors of a covariance.

    Args:
        cov: (..., N, N) covariance; leading axes are a batch.

    Returns:
        `(values, vectors)` of shapes (..., N) and (..., N, N), the vectors in columns.
    """
    cov = jnp.asarray(cov)
    values, vectors = jnp.linalg.eigh(0.5 * (cov + jnp.swapaxes(cov, -1, -2)))
    return jnp.maximum(values, 0.0), vectors


def is_array(value) -> bool:
    """Tells an array (or tracer) from the placeholders that JAX puts into pytrees.

    Args:
        value: leaf of a pytree.

    Returns:
        Whether it is an array.
    """
    return isinstance(value, (jax.Array, np.ndarray))


class GaussianPrior(Prior):
    """The Gaussian `N(mean, cov)` over small images, `GaussianPrior(mean, cov)`.

    The eigendecomposition of the covariance is computed once, when the prior is built from arrays, and kept
    as leaves: each noise level costs two matrix-vector products. Voxel-wise times are exact too, by one
    Cholesky factorisation a level.

    Attributes:
        mean: array of the image's shape, real or complex.
        cov: (N, N) covariance of the real components, row-major; `[Re; Im]` for complex images.
        values: (N,) eigenvalues of the covariance.
        vectors: (N, N) eigenvectors, in columns.
    """

    mean: Any
    cov: Any
    values: Any = None
    vectors: Any = None

    def __post_init__(self):
        if self.values is None and is_array(self.cov):
            values, vectors = eigensystem(self.cov)
            object.__setattr__(self, "values", values)
            object.__setattr__(self, "vectors", vectors)

    def _check(self, x):
        mean = jnp.asarray(self.mean)
        size = mean.size * (2 if jnp.iscomplexobj(mean) else 1)
        if self.cov.shape != (size, size):
            raise ValueError(
                f"GaussianPrior: a mean of {size} real components needs cov ({size}, {size}), "
                f"got {self.cov.shape}."
            )
        if x.shape != mean.shape or jnp.iscomplexobj(x) != jnp.iscomplexobj(mean):
            raise ValueError(
                f"GaussianPrior: the image is {x.shape} {x.dtype}, but the mean is {mean.shape} {mean.dtype}."
            )

    def _image(self, vector):
        return from_real(vector, self.mean.shape, jnp.iscomplexobj(self.mean))

    def observe(self, x, alpha):
        """See `Prior.observe`: coordinates `V^T (x - alpha mean)`, gain `alpha l / (alpha^2 l + variance)`.

        Args:
            x: state of the image's shape.
            alpha: scale of the clean image: a scalar, or an array that broadcasts against the image.

        Returns:
            `(given, combine, offset)`; the variance may be an array too.
        """
        self._check(x)
        alpha = jnp.asarray(alpha, working_dtype(x))
        residual = to_real(x - alpha * self.mean)

        def given(variance):
            if alpha.ndim or jnp.ndim(variance):
                return self._voxelwise(x, alpha, variance)
            coordinates = jnp.matmul(self.vectors.T, residual, precision=HIGHEST)
            total = alpha**2 * self.values + variance
            log_density = normal_log_density(jnp.sum(safe_divide(coordinates**2, total)), jnp.log(total))
            gain = safe_divide(alpha * self.values, total)
            return log_density, (jnp.ones_like(log_density), gain * coordinates)

        def combine(statistics):
            share, shift = statistics
            return share * self.mean + self._image(jnp.matmul(self.vectors, shift, precision=HIGHEST))

        return given, combine, 0.0

    def _voxelwise(self, x, alpha, variance):
        is_complex, dtype = jnp.iscomplexobj(x), working_dtype(x)
        a, v = (spread(value, x.shape, is_complex, dtype) for value in (alpha, variance))
        mean = to_real(self.mean)
        x0, _, log_density = condition(mean, self.cov, jnp.diag(a), to_real(x), v)
        shift = jnp.matmul(self.vectors.T, x0 - mean, precision=HIGHEST)
        return log_density, (jnp.ones_like(log_density), shift)

    def sample(self, key):
        """Draws one image, `mean + V sqrt(l) z`.

        Args:
            key: PRNG key.

        Returns:
            Array of the shape and dtype of the mean.
        """
        z = unit_normal(key, self.values.shape, self.values.dtype)
        drawn = jnp.matmul(self.vectors, jnp.sqrt(self.values) * z, precision=HIGHEST)
        return self.mean + self._image(drawn)

    def posterior(self, operator, y, noise_std):
        """Conditions on `y = A x + noise_std n` in closed form (reconstruction.md 5.8).

        `K = S A^H (A S A^H + s^2)^-1`, mean `m + K (y - A m)`, covariance `S - K A S` (Joseph's form), over
        real components: real images with complex data need no care.

        Args:
            operator: linear map of an image; its dense matrix is built, N columns.
            y: measurement, an array or a tuple of arrays.
            noise_std: standard deviation per real component of y: a number or an array that broadcasts.

        Returns:
            `GaussianPrior`; its `.cov` is the posterior covariance.

        Raises:
            ValueError: if y does not have the shape of A(x).
        """
        mean = jnp.asarray(self.mean)
        is_complex, dtype = jnp.iscomplexobj(mean), working_dtype(mean)
        parts = measurement(operator, y, noise_std, mean.shape, is_complex, dtype)
        new_mean, cov, _ = condition(to_real(mean), self.cov, *parts)
        return GaussianPrior(self._image(new_mean), cov)

"""Differences of fractional order, after Grunwald and Letnikov."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from pgm_jax.operators.difference import BOUNDARIES, difference_steps
from pgm_jax.operators.operator import LinearOperator, require_shape


class FractionalDifference(LinearOperator):
    """Differences of order q along each axis, `(A x)_a[i] = -h_a^-q sum_k c_k x[i + k e_a]`.

    With `c_0 = 1, c_k = c_(k - 1) (1 - (q + 1) / k)`, whose sum is 0. For q = 1 this is `FiniteDifference`, whose
    boundaries it takes: past the far border the image repeats its last voxel ("neumann"), wraps around
    ("periodic", the spectral derivative `-(1 - exp(i w))^q`) or is 0 ("zero"). The difference reaches to the end
    of the line, so along each axis A is a dense matrix, computed on the host. Real or complex images.

    Source: I. Podlubny, Fractional differential equations (1999), section 2.2; as a prior of images, J. Zhang
    and Z. Wei, A class of fractional-order multi-scale variational models (2011).

    Attributes:
        matrices: one matrix (n_a, n_a) an axis, from `create`.
        shape: shape of the image, such as (height, width, channel).
        axes: differentiated axes.
        bound: norm of A.
    """

    matrices: Any
    shape: tuple = struct.field(pytree_node=False)
    axes: tuple = struct.field(pytree_node=False)
    bound: float = struct.field(pytree_node=False)

    _signed = True

    @classmethod
    def create(cls, shape, order, axes=None, spacing=None, boundary="neumann") -> "FractionalDifference":
        """Builds the matrices.

        Args:
            shape: shape of the image, such as (height, width, channel).
            order: q > 0, a Python number; between 1 and 2 as a rule.
            axes: differentiated axes; all but the last (channel) axis by default.
            spacing: voxel size h_a along each axis; 1 by default.
            boundary: "neumann", "periodic" or "zero".

        Returns:
            `FractionalDifference`.

        Raises:
            ValueError: if the order is not above 0, or for what `FiniteDifference` refuses.
        """
        if not order > 0:
            raise ValueError(f"the order of FractionalDifference must be above 0, got {order}")
        steps = difference_steps("FractionalDifference", shape, axes, spacing, boundary, BOUNDARIES)
        matrices = [_matrix(shape[axis], order, boundary) / h**order for axis, h in steps]
        # The grams of different axes commute, so that their largest eigenvalues add.
        bound = np.sqrt(sum(np.linalg.norm(matrix, 2) ** 2 for matrix in matrices))
        leaves = tuple(jnp.asarray(matrix, jnp.result_type(float)) for matrix in matrices)
        return cls(leaves, tuple(shape), tuple(axis for axis, _ in steps), float(bound))

    def __call__(self, x):
        """Computes the differences, an array (axes, *shape), in units of x per unit of spacing to the q."""
        require_shape(x, self.domain, self, "image")
        return jnp.stack([_along(m, x, axis) for m, axis in zip(self.matrices, self.axes, strict=True)])

    def adjoint(self, y):
        """Computes `A^H y` of y (axes, *shape)."""
        require_shape(y, self.range, self, "gradient")
        lines = zip(self.matrices, y, self.axes, strict=True)
        return sum(_along(m.T, part, axis) for m, part, axis in lines)

    def norm(self, *, steps: int = 50, key=None):
        """Returns the norm, exactly."""
        return jnp.asarray(self.bound, jnp.result_type(float))

    @property
    def domain(self):
        return jax.ShapeDtypeStruct(tuple(self.shape), jnp.result_type(float))

    @property
    def range(self):
        return jax.ShapeDtypeStruct((len(self.axes), *self.shape), jnp.result_type(float))


def _along(matrix, x, axis):
    product = jnp.tensordot(matrix, x, axes=(1, axis), precision=jax.lax.Precision.HIGHEST)
    return jnp.moveaxis(product, 0, axis)


def _coefficients(count, order):
    """Returns `c_k = (-1)^k binomial(q, k)` for k < count."""
    factors = 1 - (order + 1) / np.arange(1, count)
    return np.concatenate([[1.0], np.cumprod(factors)])


def _matrix(size, order, boundary):
    """Returns the difference of one line, a dense float64 matrix."""
    if boundary == "periodic":
        symbol = -((1 - np.exp(2j * np.pi * np.fft.fftfreq(size))) ** order)
        # Row i holds, at column i + k, the sum of the coefficients k, k + size, ...
        kernel = np.real(np.fft.fft(symbol)) / size
        return np.stack([np.roll(kernel, i) for i in range(size)])
    lags = np.arange(size)[None] - np.arange(size)[:, None]
    matrix = np.where(lags >= 0, -_coefficients(size, order)[np.maximum(lags, 0)], 0.0)
    if boundary == "neumann":
        # All coefficients sum to 0, so what the image repeats past its border adds minus the sum so far.
        matrix[:, -1] -= matrix.sum(axis=1)
    return matrix

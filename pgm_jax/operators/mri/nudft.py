"""The exact non-uniform discrete Fourier transform by matrix products."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from pgm_jax.operators.mri.checks import require_trajectory
from pgm_jax.operators.operator import LinearOperator, require_shape

_HIGHEST = jax.lax.Precision.HIGHEST


class NUDFT(LinearOperator):
    """Evaluates the sum that `NUFFT` approximates, exactly, at O(samples x voxels) cost.

    `y_m = N^(-1/2) sum_n x_n exp(-2 pi i sum_a k_ma (n_a - c_a) / N_a)`, c_a = N_a // 2. The exponential factors
    over the axes, so a chunk of samples is one matrix product along the last axis and one weighted sum along
    each other. Differentiable in the trajectory, forward and reverse; the trajectory may be traced.

    Attributes:
        trajectory: (..., d) points in cycles per field of view along the d image axes.
        shape: shape of the image without its channel.
        chunk: samples of one matrix product.
    """

    trajectory: Any
    shape: tuple = struct.field(pytree_node=False)
    chunk: int = struct.field(pytree_node=False, default=1024)

    @classmethod
    def create(cls, trajectory, shape) -> "NUDFT":
        """Checks the trajectory on the host and casts it to the default precision.

        Args:
            trajectory: (..., d) points in cycles per field of view, |k_a| <= N_a / 2.
            shape: d sizes of the image.

        Raises:
            ValueError: as for `NUFFT.create`.
        """
        shape = tuple(int(n) for n in shape)
        return cls(jnp.asarray(require_trajectory(trajectory, shape), jnp.result_type(float)), shape)

    def __call__(self, x):
        """Computes the samples (*points,) of an image (*shape, 1)."""
        require_shape(x, self.domain, self, "image")
        image = jnp.asarray(x[..., 0], self.domain.dtype)
        samples = jax.lax.map(lambda k: _evaluate(image, _factors(k, self.shape)), self._chunks)
        return samples.reshape(-1)[: self._count].reshape(self._points)

    def adjoint(self, y):
        """Computes `A^H y`, an image (*shape, 1), of samples (*points,)."""
        require_shape(y, self.range, self, "k-space")
        chunks = self._chunks
        samples = jnp.pad(jnp.ravel(y), (0, chunks.shape[0] * chunks.shape[1] - self._count))

        def add(image, part):
            k, values = part
            return image + _accumulate(values, _factors(k, self.shape)), None

        start = jnp.zeros(self.shape, self.domain.dtype)
        parts = chunks, samples.reshape(chunks.shape[:2]).astype(start.dtype)
        return jax.lax.scan(add, start, parts)[0][..., None]

    @property
    def domain(self):
        return jax.ShapeDtypeStruct((*self.shape, 1), jnp.result_type(self.trajectory, jnp.complex64))

    @property
    def range(self):
        return jax.ShapeDtypeStruct(self._points, self.domain.dtype)

    @property
    def _points(self):
        return jnp.shape(self.trajectory)[:-1]

    @property
    def _count(self):
        return int(np.prod(self._points))

    @property
    def _chunks(self):
        """The trajectory as (chunks, chunk, d), padded with zeros."""
        chunk = min(self.chunk, self._count)
        flat = jnp.reshape(self.trajectory, (self._count, -1))
        return jnp.pad(flat, [(0, -self._count % chunk), (0, 0)]).reshape(-1, chunk, flat.shape[1])


def _factors(k, shape):
    """Returns for each axis `exp(-2 pi i k (n - c) / N) / sqrt(N)`, (samples, N)."""
    return [_factor(k[:, a], n) for a, n in enumerate(shape)]


def _factor(k, n):
    # Whole cycles of the integer part of k cancel exactly; in float32 they would cost four digits.
    whole = jax.lax.stop_gradient(jnp.round(k))
    index = jnp.arange(n, dtype=jnp.int32) - n // 2
    cycles = whole.astype(jnp.int32)[:, None] * index[None] % n
    turns = cycles.astype(k.dtype) + (k - whole)[:, None] * index.astype(k.dtype)[None]
    phase = (-2 * np.pi / n) * turns
    return jax.lax.complex(jnp.cos(phase), jnp.sin(phase)) / np.sqrt(n).astype(k.dtype)


def _evaluate(image, factors):
    last = factors[-1]
    partial = jnp.matmul(last, jnp.moveaxis(image, -1, 0).reshape(last.shape[1], -1), precision=_HIGHEST)
    partial = partial.reshape(-1, *image.shape[:-1])
    for factor in reversed(factors[:-1]):
        partial = jnp.einsum("m...n,mn->m...", partial, factor, precision=_HIGHEST)
    return partial


def _accumulate(values, factors):
    partial = values[:, None]
    for factor in factors[:-1]:
        partial = (partial[:, :, None] * jnp.conj(factor)[:, None]).reshape(len(values), -1)
    image = jnp.matmul(partial.T, jnp.conj(factors[-1]), precision=_HIGHEST)
    return image.reshape([factor.shape[1] for factor in factors])

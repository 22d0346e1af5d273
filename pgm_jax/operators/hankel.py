"""Structured low-rank modelling of k-space: block Hankel matrices and the projection on low rank."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from pgm_jax.operators.operator import LinearOperator, require_shape


class Hankel(LinearOperator):
    """Lists every window of a multi-coil k-space as a row: the block Hankel matrix of SAKE and its kin.

    `(A y)_(position, (coil, offset)) = y_(coil, position + offset)`, over all positions at which the window lies
    inside. The k-space of an image of s points in any number of coils has rank s; short support, smooth phase and
    correlated coils all lower it.

    Source: P. Shin et al., Calibrationless parallel imaging reconstruction based on structured low-rank matrix
    completion (SAKE), MRM 72 (2014).

    Attributes:
        shape: shape of the k-space, (coils, *grid), with one to three grid axes.
        window: size of the window along each grid axis.
    """

    shape: tuple = struct.field(pytree_node=False)
    window: tuple = struct.field(pytree_node=False)

    def __call__(self, y):
        """Computes the matrix (positions, coils times window) of a k-space."""
        require_shape(y, self.domain, self, "k-space")
        columns = [y[(slice(None), *offset)].reshape(self.shape[0], -1) for offset in self._offsets]
        return jnp.stack(columns, axis=1).reshape(self.range.shape[::-1]).T

    def adjoint(self, y):
        """Computes `A^H y`: every entry of the matrix is added where it came from."""
        require_shape(y, self.range, self, "matrix")
        coils, positions = self.shape[0], self._positions
        columns = y.T.reshape(coils, math.prod(self.window), *positions)
        total = jnp.zeros(self.shape, y.dtype)
        for i, offset in enumerate(self._offsets):
            total = total.at[(slice(None), *offset)].add(columns[:, i])
        return total

    def gram(self, x):
        require_shape(x, self.domain, self, "k-space")
        return self.counts() * x

    def norm(self, *, steps: int = 50, key=None):
        """Returns the norm, exactly: the root of the largest count."""
        return jnp.sqrt(jnp.max(self.counts()))

    def counts(self):
        """Counts the windows that hold each entry.

        Returns:
            Real array (1, *grid).
        """
        counts = np.ones(1)
        for window, size in zip(self.window, self.shape[1:], strict=True):
            line = np.convolve(np.ones(size - window + 1), np.ones(window))
            counts = np.multiply.outer(counts, line)
        return jnp.asarray(counts, jnp.result_type(float))

    @property
    def domain(self):
        return jax.ShapeDtypeStruct(tuple(self.shape), jnp.result_type(complex))

    @property
    def range(self):
        columns = self.shape[0] * math.prod(self.window)
        return jax.ShapeDtypeStruct((math.prod(self._positions), columns), jnp.result_type(complex))

    @property
    def _positions(self):
        grid = tuple(self.shape[1:])
        if len(self.window) != len(grid) or any(
            not 1 <= w <= n for w, n in zip(self.window, grid, strict=False)
        ):
            raise ValueError(
                f"Hankel needs a window that fits into the grid {grid}, got {tuple(self.window)}"
            )
        return tuple(n - w + 1 for n, w in zip(grid, self.window, strict=True))

    @property
    def _offsets(self):
        """Slices of the grid, one for each entry of the window, in C order."""
        positions = self._positions
        starts = itertools.product(*[range(w) for w in self.window])
        return [tuple(slice(s, s + n) for s, n in zip(start, positions, strict=True)) for start in starts]


def low_rank_hankel(kspace, window, rank: int):
    """Takes a k-space to the nearest block Hankel matrix of low rank and back, one step of SAKE.

    The matrix is projected on its `rank` strongest right singular vectors, and the entries that stand for one
    sample are averaged. A k-space whose matrix has that rank, or less, is returned as it is. The singular vectors
    are those of `M^H M`, whose size does not grow with the image: singular values below about 3e-4 of the
    largest are rounding in single precision.

    Source: P. Shin et al., SAKE, MRM 72 (2014), its projections on low rank and on the Hankel structure; its
    threshold is the rank over the size of the window.

    Args:
        kspace: complex array (coils, *grid).
        window: size of the window along each grid axis, such as (6, 6).
        rank: number of singular values kept.

    Returns:
        Array like kspace.

    Raises:
        ValueError: if the rank exceeds the number of columns, coils times window.
    """
    hankel = Hankel(jnp.shape(kspace), tuple(window))
    columns = hankel.range.shape[1]
    if not 1 <= rank <= columns:
        raise ValueError(f"the rank must lie in [1, {columns}] for coils times window, got {rank}")
    matrix = hankel(kspace)
    multiply = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    # Eigenvalues come in rising order.
    strongest = jnp.linalg.eigh(multiply(jnp.conj(matrix.T), matrix))[1][:, columns - rank :]
    projected = multiply(multiply(matrix, strongest), jnp.conj(strongest.T))
    return hankel.adjoint(projected) / hankel.counts()

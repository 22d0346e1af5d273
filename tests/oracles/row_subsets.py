"""A dense operator with interleaved subsets of its rows: a projector with subsets, without its compile time."""

import jax
import numpy as np
from flax import struct

from pgm_jax.operators import Matrix


class RowSubsets(Matrix):
    """`Matrix` whose subset i holds rows i, i + count, i + 2 count, ..."""

    count: int = struct.field(pytree_node=False, default=1)

    @property
    def subsets(self):
        return self.count

    def restrict(self, y, i):
        parts = y.reshape(-1, self.count, *y.shape[1:])
        return jax.lax.dynamic_index_in_dim(parts, i, axis=1, keepdims=False)

    def subset(self, i):
        return Matrix(self.restrict(self.values, i), self.image_shape)


def positive_system(rows=12, size=6, seed=0):
    """Returns a random matrix (rows, size) of positive numbers with some zeros."""
    rng = np.random.default_rng(seed)
    return rng.uniform(0.1, 1.0, (rows, size)) * (rng.uniform(size=(rows, size)) > 0.3)

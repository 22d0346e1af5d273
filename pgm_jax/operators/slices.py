"""A volume seen slice by slice: one operator of slices for all of them."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from pgm_jax.operators.operator import LinearOperator
from pgm_jax.operators.spaces import require_shape


class EachSlice(LinearOperator):
    """Applies one operator to every slice of a volume, `y_i = A x_i`: multi-slice MRI, parallel-beam CT.

    The slices share every weight: a projector's batching rule joins them. `subset(i)` is that of the slices.

    Attributes:
        operator: the operator A of a slice with one array as its measurement.
        count: number of slices n, from 1.

    Raises:
        ValueError: for fewer than 1 slice, or an operator of several images or measurements.
    """

    operator: Any
    count: int = struct.field(pytree_node=False)

    def __post_init__(self):
        if self.count < 1:
            raise ValueError(f"EachSlice needs at least 1 slice, got {self.count}")
        if isinstance(self.operator, LinearOperator) and (
            isinstance(self.operator.domain, tuple) or isinstance(self.operator.range, tuple)
        ):
            raise ValueError("EachSlice needs an operator from one array to one array: use one of its parts")

    @property
    def _signed(self):
        return self.operator._signed

    def __call__(self, x):
        require_shape(x, self.domain, self, "volume")
        return jax.vmap(self.operator)(x)

    def adjoint(self, y):
        require_shape(y, self.range, self, "measurement")
        return jax.vmap(self.operator.adjoint)(y)

    def gram(self, x):
        return jax.vmap(self.operator.gram)(x)

    def norm(self, *, steps: int = 50, key=None):
        return self.operator.norm(steps=steps, key=key)

    def row_sums(self):
        return self._repeat(self.operator.row_sums())

    def column_sums(self):
        return self._repeat(self.operator.column_sums())

    @property
    def domain(self):
        return self._stack(self.operator.domain)

    @property
    def range(self):
        return self._stack(self.operator.range)

    @property
    def subsets(self):
        return self.operator.subsets

    def subset(self, i):
        return EachSlice(self.operator.subset(i), self.count)

    def restrict(self, y, i):
        return jax.vmap(lambda part: self.operator.restrict(part, i))(y)

    def _stack(self, space):
        return jax.ShapeDtypeStruct((self.count, *space.shape), space.dtype)

    def _repeat(self, array):
        return jnp.broadcast_to(array, (self.count, *array.shape))

"""The symmetrised gradient of a vector field, the second difference of total generalised variation."""

import itertools
import math

import jax
import jax.numpy as jnp
from flax import struct

from pgm_jax.operators.difference import (
    FiniteDifference,
    difference_adjoint,
    difference_steps,
    forward_difference,
    zero_last,
)
from pgm_jax.operators.operator import LinearOperator, require_shape


class SymmetrisedGradient(LinearOperator):
    """The symmetric part of the derivative of a vector field, `(E p)_ab = (D_a p_b + D_b p_a) / 2`.

    The field lives where `FiniteDifference` of an image does: component a between voxel i and i + e_a. With the
    boundary "neumann" the entries of p past the far border are not read, and the differences that would need
    them are 0; so E vanishes exactly on every constant field, and E of the gradient of an affine image too.

    The range lists the diagonal components and then those above the diagonal, times sqrt(2): the Euclidean
    length of the components at a voxel is the Frobenius norm of the symmetric matrix.

    Source: K. Bredies, K. Kunisch and T. Pock, Total generalized variation (2010), its second order.

    Attributes:
        shape: shape of an image, such as (height, width, channel).
        axes: differentiated axes; all but the last (channel) axis by default.
        spacing: voxel size along each axis; 1 by default.
        boundary: "neumann" or "periodic".
    """

    shape: tuple = struct.field(pytree_node=False)
    axes: tuple | None = struct.field(pytree_node=False, default=None)
    spacing: tuple | None = struct.field(pytree_node=False, default=None)
    boundary: str = struct.field(pytree_node=False, default="neumann")

    _signed = True

    def __call__(self, p):
        """Computes E p, an array (components, *shape), of a field p (axes, *shape)."""
        require_shape(p, self.domain, self, "vector field")
        p = self.keep(p)
        diagonal = [self._difference(p[i], i, i) for i in range(len(self._steps))]
        mixed = [
            (self._difference(p[j], i, j) + self._difference(p[i], j, i)) / math.sqrt(2)
            for i, j in self._pairs
        ]
        return jnp.stack(diagonal + mixed)

    def adjoint(self, y):
        """Computes the field `E^H y`, minus the divergence of the symmetric matrices y."""
        require_shape(y, self.range, self, "field of symmetric matrices")
        count = len(self._steps)
        parts = [self._difference_adjoint(y[i], i, i) for i in range(count)]
        for k, (i, j) in enumerate(self._pairs):
            mixed = y[count + k] / math.sqrt(2)
            parts[j] = parts[j] + self._difference_adjoint(mixed, i, j)
            parts[i] = parts[i] + self._difference_adjoint(mixed, j, i)
        return self.keep(jnp.stack(parts))

    def keep(self, p):
        """Sets the entries of a field that lie past the far border to 0, those that E does not read.

        Args:
            p: field (axes, *shape).

        Returns:
            Field like p.
        """
        if self.boundary == "periodic":
            return p
        return jnp.stack([zero_last(p[i], axis) for i, (axis, _) in enumerate(self._steps)])

    def norm(self, *, steps: int = 50, key=None):
        """Returns an upper bound, the norm of the gradient: `|E p| <= |grad p|`, component by component."""
        return FiniteDifference(self.shape, self.axes, self.spacing, self.boundary).norm()

    @property
    def domain(self):
        return jax.ShapeDtypeStruct((len(self._steps), *self.shape), jnp.result_type(float))

    @property
    def range(self):
        count = len(self._steps)
        return jax.ShapeDtypeStruct((count * (count + 1) // 2, *self.shape), jnp.result_type(float))

    @property
    def _steps(self):
        given = self.shape, self.axes, self.spacing, self.boundary
        return difference_steps("SymmetrisedGradient", *given, ("neumann", "periodic"))

    @property
    def _pairs(self):
        return tuple(itertools.combinations(range(len(self._steps)), 2))

    def _difference(self, component, along, of):
        """D_along of component `of`; along its own axis the last two differences would leave the field."""
        axis, h = self._steps[along]
        difference = forward_difference(component, axis, self.boundary)
        return self._inside(difference, axis, along == of) / h

    def _difference_adjoint(self, y, along, of):
        axis, h = self._steps[along]
        return difference_adjoint(self._inside(y, axis, along == of), axis, self.boundary) / h

    def _inside(self, y, axis, is_own):
        return zero_last(y, axis, 2) if is_own and self.boundary == "neumann" else y

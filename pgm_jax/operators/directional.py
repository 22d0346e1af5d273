"""Differences of an image along given directions, for anisotropic total variation."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from pgm_jax.operators.difference import FiniteDifference
from pgm_jax.operators.operator import LinearOperator, require_shape


class DirectionalDifference(LinearOperator):
    """Differences along given directions, `(A x)_k = sum_a u_ka (x[i + e_a] - x[i]) / h_a`.

    At the far border, where a difference is missing, it counts 0. Real or complex images.

    Attributes:
        shape: shape of the image, such as (height, width, channel).
        directions: tuple of vectors u_k, each a tuple with one number an axis; unit vectors, as a rule.
        axes: differentiated axes; all but the last (channel) axis by default.
        spacing: voxel size along each axis; 1 by default.
        boundary: as in `FiniteDifference`.
    """

    shape: tuple = struct.field(pytree_node=False)
    directions: tuple = struct.field(pytree_node=False)
    axes: tuple | None = struct.field(pytree_node=False, default=None)
    spacing: tuple | None = struct.field(pytree_node=False, default=None)
    boundary: str = struct.field(pytree_node=False, default="neumann")

    _signed = True

    @classmethod
    def at_angles(cls, shape, angles, **options) -> "DirectionalDifference":
        """Builds the derivatives along (cos, sin) of angles in the (x, y) plane of 2-D images.

        Args:
            shape: (height, width, channel); y is axis 0 and x axis 1.
            angles: angles in radians; the direction in which a parallel beam of that angle measures detail.
            **options: further attributes.

        Returns:
            `DirectionalDifference`.
        """
        directions = tuple((float(np.sin(angle)), float(np.cos(angle))) for angle in np.asarray(angles))
        return cls(tuple(shape), directions, **options)

    def __call__(self, x):
        """Computes the differences, an array (directions, *shape)."""
        gradient = self._gradient(x)
        return jnp.stack(
            [sum(u * part for u, part in zip(d, gradient, strict=True)) for d in self._directions]
        )

    def adjoint(self, y):
        """Computes `A^H y` of y (directions, *shape)."""
        require_shape(y, self.range, self, "set of differences")
        columns = zip(*self._directions, strict=True)
        return self._gradient.adjoint(
            jnp.stack([sum(u * part for u, part in zip(column, y, strict=True)) for column in columns])
        )

    def norm(self, *, steps: int = 50, key=None):
        """Returns an upper bound, the norm of the gradient times that of the matrix of directions."""
        return self._gradient.norm() * float(np.linalg.norm(np.asarray(self._directions), 2))

    @property
    def domain(self):
        return self._gradient.domain

    @property
    def range(self):
        return jax.ShapeDtypeStruct((len(self.directions), *self.shape), jnp.result_type(float))

    @property
    def _gradient(self):
        return FiniteDifference(self.shape, self.axes, self.spacing, self.boundary)

    @property
    def _directions(self):
        count = self._gradient.range.shape[0]
        lengths = {len(direction) for direction in self.directions}
        if lengths != {count}:
            raise ValueError(
                f"DirectionalDifference needs vectors of {count} numbers, one an axis, "
                f"got lengths {sorted(lengths)}"
            )
        return self.directions

"""Finite differences of an image: the gradient of total variation and of ADMM splittings."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from pgm_jax.operators.operator import LinearOperator, require_shape


class FiniteDifference(LinearOperator):
    """Stacked forward differences, `(A x)_a = (x[i + e_a] - x[i]) / h_a` for each axis a.

    At the far border the difference is 0 ("neumann") or wraps around ("periodic"). Real or complex images.

    Attributes:
        shape: shape of the image, such as (height, width, channel).
        axes: differentiated axes; all but the last (channel) axis by default.
        spacing: voxel size h_a along each axis (mm, or 1 for differences); 1 by default.
        boundary: "neumann" or "periodic".
    """

    shape: tuple = struct.field(pytree_node=False)
    axes: tuple | None = struct.field(pytree_node=False, default=None)
    spacing: tuple | None = struct.field(pytree_node=False, default=None)
    boundary: str = struct.field(pytree_node=False, default="neumann")

    def __call__(self, x):
        """Computes the differences, an array (axes, *shape), in units of x per unit of spacing."""
        require_shape(x, self.domain, self, "image")
        return jnp.stack([self._forward(x, axis) / h for axis, h in self._steps])

    def adjoint(self, y):
        """Computes `A^H y`, minus the discrete divergence of y (axes, *shape)."""
        require_shape(y, self.range, self, "gradient")
        return sum(self._backward(y[i], axis) / h for i, (axis, h) in enumerate(self._steps))

    def norm(self, *, steps: int = 50, key=None):
        """Returns the exact norm, `||A||^2 = sum_a (2 + 2 cos(pi / n_a)) / h_a^2 <= sum_a 4 / h_a^2`.

        A periodic axis of even length has 4 in place of `2 + 2 cos(pi / n_a)`.
        """
        total = 0.0
        for axis, h in self._steps:
            n = self.shape[axis]
            even_circle = self.boundary == "periodic" and n % 2 == 0
            total += (4.0 if even_circle else 2 + 2 * np.cos(np.pi / n)) / h**2
        return jnp.asarray(np.sqrt(max(total, 0.0)), jnp.result_type(float))

    @property
    def domain(self):
        return jax.ShapeDtypeStruct(tuple(self.shape), jnp.result_type(float))

    @property
    def range(self):
        return jax.ShapeDtypeStruct((len(self._steps), *self.shape), jnp.result_type(float))

    @property
    def _steps(self):
        axes = tuple(range(len(self.shape) - 1)) if self.axes is None else tuple(self.axes)
        spacing = (1.0,) * len(axes) if self.spacing is None else tuple(self.spacing)
        if len(spacing) != len(axes):
            raise ValueError(
                f"FiniteDifference got {len(spacing)} spacings for axes {axes}: give one for each"
            )
        if self.boundary not in ("neumann", "periodic"):
            raise ValueError(f'boundary must be "neumann" or "periodic", got {self.boundary!r}')
        return tuple(zip(axes, spacing, strict=True))

    def _forward(self, x, axis):
        difference = jnp.roll(x, -1, axis) - x
        return difference if self.boundary == "periodic" else _zero_last(difference, axis)

    def _backward(self, y, axis):
        inside = y if self.boundary == "periodic" else _zero_last(y, axis)
        return jnp.roll(inside, 1, axis) - inside


def _zero_last(x, axis):
    n = x.shape[axis]
    kept = jax.lax.slice_in_dim(x, 0, n - 1, axis=axis)
    return jnp.pad(kept, [(0, 1 if a == axis % x.ndim else 0) for a in range(x.ndim)])

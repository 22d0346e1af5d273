"""Finite differences of an image: the gradient of total variation and of ADMM splittings."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from pgm_jax.operators.operator import LinearOperator, require_shape

BOUNDARIES = ("neumann", "periodic", "zero")


class FiniteDifference(LinearOperator):
    """Stacked forward differences, `(A x)_a = (x[i + e_a] - x[i]) / h_a` for each axis a.

    What lies past the far border is named: "neumann" repeats the last voxel, so the difference there is 0,
    "periodic" wraps around, "zero" takes 0. Real or complex images.

    Attributes:
        shape: shape of the image, such as (height, width, channel).
        axes: differentiated axes; all but the last (channel) axis by default.
        spacing: voxel size h_a along each axis (mm, or 1 for differences); 1 by default.
        boundary: "neumann", "periodic" or "zero".
    """

    shape: tuple = struct.field(pytree_node=False)
    axes: tuple | None = struct.field(pytree_node=False, default=None)
    spacing: tuple | None = struct.field(pytree_node=False, default=None)
    boundary: str = struct.field(pytree_node=False, default="neumann")

    _signed = True

    def __call__(self, x):
        """Computes the differences, an array (axes, *shape), in units of x per unit of spacing."""
        require_shape(x, self.domain, self, "image")
        return jnp.stack([forward_difference(x, axis, self.boundary) / h for axis, h in self._steps])

    def adjoint(self, y):
        """Computes `A^H y`, minus the discrete divergence of y (axes, *shape)."""
        require_shape(y, self.range, self, "gradient")
        return sum(
            difference_adjoint(y[i], axis, self.boundary) / h for i, (axis, h) in enumerate(self._steps)
        )

    def norm(self, *, steps: int = 50, key=None):
        """Returns the exact norm, `||A||^2 = sum_a (2 + 2 cos(pi / n_a)) / h_a^2 <= sum_a 4 / h_a^2`.

        A periodic axis of even length has 4 in place of `2 + 2 cos(pi / n_a)`, a "zero" border
        `2 + 2 cos(2 pi / (2 n_a + 1))`.
        """
        total = 0.0
        for axis, h in self._steps:
            n = self.shape[axis]
            angle = {
                "neumann": np.pi / n,
                "periodic": 0.0 if n % 2 == 0 else np.pi / n,
                "zero": 2 * np.pi / (2 * n + 1),
            }[self.boundary]
            total += (2 + 2 * np.cos(angle)) / h**2
        return jnp.asarray(np.sqrt(max(total, 0.0)), jnp.result_type(float))

    def row_sums(self):
        return jnp.stack(
            [self._spread(_magnitude_sums(n, self.boundary)[0], axis, h) for axis, h, n in self._sizes]
        )

    def column_sums(self):
        return sum(self._spread(_magnitude_sums(n, self.boundary)[1], axis, h) for axis, h, n in self._sizes)

    @property
    def domain(self):
        return jax.ShapeDtypeStruct(tuple(self.shape), jnp.result_type(float))

    @property
    def range(self):
        return jax.ShapeDtypeStruct((len(self._steps), *self.shape), jnp.result_type(float))

    @property
    def _steps(self):
        given = self.shape, self.axes, self.spacing, self.boundary
        return difference_steps("FiniteDifference", *given, BOUNDARIES)

    @property
    def _sizes(self):
        return tuple((axis, h, self.shape[axis]) for axis, h in self._steps)

    def _spread(self, sums, axis, h):
        line = np.expand_dims(sums / h, [a for a in range(len(self.shape)) if a != axis % len(self.shape)])
        return jnp.asarray(np.broadcast_to(line, self.shape), jnp.result_type(float))


def difference_steps(name: str, shape, axes, spacing, boundary, boundaries) -> tuple:
    """Checks the axes, spacing and boundary of a difference operator.

    Args:
        name: name of the operator, for the message.
        shape: shape of the image.
        axes: differentiated axes; all but the last if None.
        spacing: voxel size along each; 1 if None.
        boundary: name of the boundary.
        boundaries: names that the operator knows.

    Returns:
        Tuple of (axis, voxel size along it).

    Raises:
        ValueError: if the number of spacings is not that of the axes, or the boundary is unknown.
    """
    axes = tuple(range(len(shape) - 1)) if axes is None else tuple(axes)
    spacing = (1.0,) * len(axes) if spacing is None else tuple(spacing)
    if len(spacing) != len(axes):
        raise ValueError(f"{name} got {len(spacing)} spacings for axes {axes}: give one for each")
    if boundary not in boundaries:
        known = " or ".join(f'"{boundary}"' for boundary in boundaries)
        raise ValueError(f"{name} needs the boundary {known}, got {boundary!r}")
    return tuple(zip(axes, spacing, strict=True))


def forward_difference(x, axis: int, boundary: str):
    """Computes `x[i + 1] - x[i]` along an axis.

    Args:
        x: array, real or complex.
        axis: axis to differentiate.
        boundary: "neumann", "periodic" or "zero", what lies past the last entry; see `FiniteDifference`.

    Returns:
        Array of the shape of x.
    """
    if boundary == "zero":
        return _shift_down(x, axis) - x
    difference = jnp.roll(x, -1, axis) - x
    return difference if boundary == "periodic" else zero_last(difference, axis)


def difference_adjoint(y, axis: int, boundary: str):
    """Computes the adjoint of `forward_difference`, `y[i - 1] - y[i]` inside.

    Args:
        y: array, real or complex.
        axis: axis of the difference.
        boundary: as in `forward_difference`.

    Returns:
        Array of the shape of y.
    """
    if boundary == "zero":
        return _shift_up(y, axis) - y
    inside = y if boundary == "periodic" else zero_last(y, axis)
    return jnp.roll(inside, 1, axis) - inside


def zero_last(x, axis: int, count: int = 1):
    """Sets the last entries of an array along an axis to 0.

    Args:
        x: array.
        axis: the axis.
        count: number of entries to set.

    Returns:
        Array of the shape of x.
    """
    count = min(count, x.shape[axis])
    kept = jax.lax.slice_in_dim(x, 0, x.shape[axis] - count, axis=axis)
    return jnp.pad(kept, _padding(x, axis, 0, count))


def _shift_down(x, axis):
    """Returns `x[i + 1]`, 0 past the end."""
    return jnp.pad(jax.lax.slice_in_dim(x, 1, x.shape[axis], axis=axis), _padding(x, axis, 0, 1))


def _shift_up(x, axis):
    """Returns `x[i - 1]`, 0 before the start."""
    return jnp.pad(jax.lax.slice_in_dim(x, 0, x.shape[axis] - 1, axis=axis), _padding(x, axis, 1, 0))


def _padding(x, axis, before, after):
    return [(before, after) if a == axis % x.ndim else (0, 0) for a in range(x.ndim)]


def _magnitude_sums(n, boundary):
    """Returns the sums of the magnitudes of the rows, and of the columns, of the difference of n samples."""
    rows, columns = np.full(n, 2.0), np.full(n, 2.0)
    if boundary == "neumann":
        rows[-1] = 0
        columns[0] -= 1
        columns[-1] -= 1
    elif boundary == "zero":
        rows[-1] = columns[0] = 1
    elif n == 1:
        rows[:] = columns[:] = 0
    return rows, columns

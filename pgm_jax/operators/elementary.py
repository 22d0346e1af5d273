"""Elementary operators: identity, diagonal, dense matrix, several measurements, real images."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from pgm_jax.operators.operator import LinearOperator, require_shape


class Identity(LinearOperator):
    """The identity on images of one shape, real or complex.

    Attributes:
        shape: shape of an image, such as (height, width, channel).
    """

    shape: tuple = struct.field(pytree_node=False)

    def __call__(self, x):
        require_shape(x, self.domain, self, "image")
        return jnp.asarray(x)

    def adjoint(self, y):
        return self(y)

    def norm(self, *, steps: int = 50, key=None):
        """Returns 1, exactly."""
        return jnp.ones(())

    @property
    def domain(self):
        return jax.ShapeDtypeStruct(tuple(self.shape), jnp.result_type(float))

    @property
    def range(self):
        return self.domain


class Diagonal(LinearOperator):
    """Multiplies voxel by voxel, `(A x)_i = d_i x_i`.

    Attributes:
        values: d, real or complex, of the shape of the image.
    """

    values: Any

    def __call__(self, x):
        require_shape(x, self.domain, self, "image")
        return self.values * x

    def adjoint(self, y):
        require_shape(y, self.range, self, "measurement")
        return jnp.conj(self.values) * y

    def gram(self, x):
        return jnp.abs(self.values) ** 2 * x

    def norm(self, *, steps: int = 50, key=None):
        """Returns `max |d_i|`, exactly."""
        return jnp.max(jnp.abs(self.values))

    def row_sums(self):
        return jnp.abs(self.values)

    def column_sums(self):
        return jnp.abs(self.values)

    @property
    def domain(self):
        return jax.ShapeDtypeStruct(jnp.shape(self.values), jnp.result_type(self.values))

    @property
    def range(self):
        return self.domain


class Matrix(LinearOperator):
    """A dense matrix between an image and a measurement of given shapes, flattened in C order.

    Attributes:
        values: matrix (size of the measurement, size of the image), real or complex.
        image_shape: shape of the image; flat by default.
        data_shape: shape of the measurement; flat by default.
    """

    values: Any
    image_shape: tuple | None = struct.field(pytree_node=False, default=None)
    data_shape: tuple | None = struct.field(pytree_node=False, default=None)

    def __call__(self, x):
        require_shape(x, self.domain, self, "image")
        product = jnp.matmul(self.values, jnp.ravel(x), precision=jax.lax.Precision.HIGHEST)
        return product.reshape(self.range.shape)

    def adjoint(self, y):
        require_shape(y, self.range, self, "measurement")
        product = jnp.matmul(jnp.conj(self.values).T, jnp.ravel(y), precision=jax.lax.Precision.HIGHEST)
        return product.reshape(self.domain.shape)

    def row_sums(self):
        return jnp.sum(jnp.abs(self.values), axis=1).reshape(self.range.shape)

    def column_sums(self):
        return jnp.sum(jnp.abs(self.values), axis=0).reshape(self.domain.shape)

    @property
    def domain(self):
        return self._space(1, self.image_shape, "image_shape")

    @property
    def range(self):
        return self._space(0, self.data_shape, "data_shape")

    def _space(self, axis, shape, name):
        size = self.values.shape[axis]
        shape = (size,) if shape is None else tuple(shape)
        if int(np.prod(shape)) != size:
            raise ValueError(
                f"Matrix of shape {self.values.shape} has {size} entries along axis {axis}, "
                f"but {name} is {shape}: give a shape of that size"
            )
        return jax.ShapeDtypeStruct(shape, jnp.result_type(self.values))


class Stacked(LinearOperator):
    """Several measurements of one image: `A x = (A_1 x, A_2 x, ...)`, adjoint `sum_k A_k^H y_k`.

    Build it with `stack`. The measurement is a tuple, so parts may differ in shape and kind; subset i is
    operator i (a Python number, since the shapes differ).

    Attributes:
        operators: tuple of operators on the same domain.
    """

    operators: tuple

    def __call__(self, x):
        return tuple(operator(x) for operator in self.operators)

    def adjoint(self, y):
        if len(y) != len(self.operators):
            raise ValueError(
                f"Stacked of {len(self.operators)} operators got {len(y)} measurements: give one for each"
            )
        return sum(operator.adjoint(part) for operator, part in zip(self.operators, y, strict=True))

    def gram(self, x):
        return sum(operator.gram(x) for operator in self.operators)

    def row_sums(self):
        return tuple(operator.row_sums() for operator in self.operators)

    def column_sums(self):
        return sum(operator.column_sums() for operator in self.operators)

    @property
    def domain(self):
        dtypes = [operator.domain.dtype for operator in self.operators]
        return jax.ShapeDtypeStruct(self.operators[0].domain.shape, jnp.result_type(*dtypes))

    @property
    def range(self):
        return tuple(operator.range for operator in self.operators)

    @property
    def subsets(self):
        return len(self.operators)

    def subset(self, i):
        return self.operators[i]

    def restrict(self, y, i):
        return y[i]


def stack(*operators) -> Stacked:
    """Stacks operators that act on the same image into one with a tuple of measurements.

    Args:
        *operators: operators with equal domain shapes.

    Returns:
        The `Stacked` operator.

    Raises:
        ValueError: if there is none, or if their domains differ.
    """
    shapes = [operator.domain.shape for operator in operators]
    if len(set(shapes)) != 1:
        raise ValueError(
            f"stack needs operators on one image, got domains {shapes}: build them for the same image"
        )
    return Stacked(tuple(operators))


class RealImage(LinearOperator):
    """Restricts an operator to real images: `x -> A x` for real x, adjoint `y -> Re(A^H y)`.

    Wrap a complex operator such as `Sense` in it where the prior or the solver works on real images. The
    adjoint is exact for the real inner product `Re <a, b>`, which conjugate gradients use.

    Attributes:
        operator: operator whose domain may be complex.
    """

    operator: Any

    def __call__(self, x):
        require_shape(x, self.domain, self, "image", allow_complex=False)
        return self.operator(x)

    def adjoint(self, y):
        return jnp.real(self.operator.adjoint(y))

    def gram(self, x):
        return jnp.real(self.operator.gram(x))

    @property
    def domain(self):
        space = self.operator.domain
        return jax.ShapeDtypeStruct(space.shape, jnp.zeros((), space.dtype).real.dtype)

    @property
    def range(self):
        return self.operator.range

    @property
    def subsets(self):
        return self.operator.subsets

    def subset(self, i):
        return RealImage(self.operator.subset(i))

    def restrict(self, y, i):
        return self.operator.restrict(y, i)

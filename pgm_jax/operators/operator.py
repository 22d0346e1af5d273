"""Linear operators with exact adjoints, and the algebra that keeps them so.

One image in, one measurement out: no batch axis (`jax.vmap` adds one). Inner products are Hermitian,
`<a, b> = sum conj(a) b`, so `<A x, y> = <x, A^H y>`. An adjoint is not an inverse.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from pgm_jax.core import safe_divide, squared_norm
from pgm_jax.operators.trees import tree_conj


class LinearOperator(struct.PyTreeNode):
    """Base of every linear map: a subclass gives `__call__`, `adjoint`, `domain` and `range`.

    Parameters (maps, masks, angles, weights) are leaves, so an operator crosses `jit`, `vmap` and `grad`;
    what chooses a shape or a code path is static.
    """

    def __init_subclass__(cls, **options):
        # Compared and hashed by identity, since arrays have no hash: `jax.jit(A)` needs one.
        super().__init_subclass__(**{"eq": False, **options})

    # Without this numpy scalars would turn `c * A` into an object array.
    __array_ufunc__ = None

    def __call__(self, x):
        """Computes `A x`.

        Args:
            x: image of the shape of `domain`.

        Returns:
            Measurement of the shape of `range`.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define __call__")

    def adjoint(self, y):
        """Computes `A^H y`.

        Args:
            y: measurement of the shape of `range`.

        Returns:
            Image of the shape of `domain`.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define adjoint")

    @property
    def domain(self):
        """Shape and dtype of an image, a `jax.ShapeDtypeStruct`."""
        raise NotImplementedError(f"{type(self).__name__} does not define domain")

    @property
    def range(self):
        """Shape and dtype of a measurement, a `jax.ShapeDtypeStruct` or a tuple of them."""
        raise NotImplementedError(f"{type(self).__name__} does not define range")

    def gram(self, x):
        """Computes `A^H A x`, an image like x; subclasses override it where a shorter way exists."""
        return self.adjoint(self(x))

    def norm(self, *, steps: int = 50, key=None):
        """Estimates the largest singular value `||A||` by power iteration on `A^H A`.

        The estimate comes from below; 50 steps reach about 1e-3 of it for typical imaging operators.

        Args:
            steps: number of applications of `gram`.
            key: key of the random start; a fixed key by default.

        Returns:
            Real scalar.
        """
        key = jax.random.key(0) if key is None else key
        start = jax.random.normal(key, self.domain.shape, self.domain.dtype)

        def iterate(_, carry):
            unit = safe_divide(carry, jnp.sqrt(squared_norm(carry)))
            return self.gram(unit)

        return jnp.sqrt(jnp.sqrt(squared_norm(jax.lax.fori_loop(0, steps, iterate, start))))

    def subset(self, i) -> "LinearOperator":
        """Returns the operator of subset i of the measurement; see `restrict`.

        Raises:
            ValueError: if this operator has no subsets.
        """
        raise ValueError(f"{type(self).__name__} has no subsets: use all of it, or stack() of parts")

    def restrict(self, y, i):
        """Returns the part of the measurement y that belongs to `subset(i)`.

        Raises:
            ValueError: if this operator has no subsets.
        """
        raise ValueError(f"{type(self).__name__} has no subsets, so y has no parts: use all of y")

    def matrix(self):
        """Builds the dense matrix of A column by column; for tiny sizes.

        Returns:
            Array (size of the measurement, size of the image), complex where A is; the parts of a tuple
            of measurements follow each other.
        """
        shape, dtype = self.domain.shape, self.domain.dtype
        size = self.domain.size
        columns = jax.vmap(self)(jnp.eye(size, dtype=dtype).reshape(size, *shape))
        flat = [leaf.reshape(size, -1) for leaf in jax.tree.leaves(columns)]
        return jnp.concatenate(flat, axis=1).T

    @property
    def H(self) -> "LinearOperator":
        """The adjoint operator `A^H`."""
        return Adjoint(self)

    @property
    def T(self) -> "LinearOperator":
        """The plain transpose, `A^T y = conj(A^H conj(y))`; equal to `A.H` for a real operator."""
        kinds = jax.tree.leaves((self.domain, self.range))
        return Transpose(self) if any(jnp.issubdtype(k.dtype, jnp.complexfloating) for k in kinds) else self.H

    def __matmul__(self, other):
        if not isinstance(other, LinearOperator):
            return NotImplemented
        _require_equal("A @ B", "the domain of A", self.domain, "the range of B", other.range)
        return Composed(self, other)

    def __add__(self, other):
        if not isinstance(other, LinearOperator):
            return NotImplemented
        _require_equal("A + B", "the domain of A", self.domain, "the domain of B", other.domain)
        _require_equal("A + B", "the range of A", self.range, "the range of B", other.range)
        return Sum(self, other)

    def __sub__(self, other):
        return self + (-other)

    def __neg__(self):
        return -1 * self

    def __mul__(self, scale):
        if isinstance(scale, LinearOperator) or jnp.ndim(scale) != 0:
            raise ValueError(
                f"c * A needs one number c, got {type(scale).__name__}: "
                "use A @ B to compose, Diagonal(c) for an array"
            )
        return Scaled(self, scale)

    __rmul__ = __mul__

    def __truediv__(self, scale):
        return self * (1 / scale)


def _shapes(space):
    return jax.tree.map(lambda leaf: leaf.shape, space)


def _require_equal(expression, left, left_space, right, right_space):
    if _shapes(left_space) != _shapes(right_space):
        raise ValueError(
            f"{expression}: {left} is {_shapes(left_space)} but {right} is {_shapes(right_space)}; "
            "build both for the same image and detector"
        )


def require_shape(x, space, operator, role: str, allow_complex: bool = True) -> None:
    """Checks at trace time that x is one image or measurement of an operator.

    Args:
        x: array to check.
        space: `jax.ShapeDtypeStruct` that it must match in shape.
        operator: the operator, named in the message.
        role: what x is, such as "image".
        allow_complex: False if the operator is linear over the reals only.

    Raises:
        ValueError: with the shape given, the shape needed and how to mend it.
    """
    name, shape = type(operator).__name__, jnp.shape(x)
    if shape != space.shape:
        batched = shape[1:] == space.shape
        mend = "wrap the call in jax.vmap for a batch" if batched else "reshape it, or rebuild the operator"
        raise ValueError(f"{name} needs one {role} of shape {space.shape}, got {shape}: {mend}")
    if not allow_complex and jnp.iscomplexobj(x):
        raise ValueError(f"{name} needs a real {role}, got {jnp.result_type(x)}: pass its parts apart")


class Adjoint(LinearOperator):
    """The operator `A^H`; `A.H.H` is A itself."""

    operator: Any

    def __call__(self, y):
        return self.operator.adjoint(y)

    def adjoint(self, x):
        return self.operator(x)

    @property
    def domain(self):
        return self.operator.range

    @property
    def range(self):
        return self.operator.domain

    @property
    def H(self):
        return self.operator

    def norm(self, *, steps: int = 50, key=None):
        return self.operator.norm(steps=steps, key=key)


class Transpose(Adjoint):
    """The operator `A^T y = conj(A^H conj(y))` without conjugation of its elements."""

    def __call__(self, y):
        return tree_conj(self.operator.adjoint(tree_conj(y)))

    def adjoint(self, x):
        return tree_conj(self.operator(tree_conj(x)))

    @property
    def T(self):
        return self.operator

    @property
    def H(self):
        return Adjoint(self)


class Composed(LinearOperator):
    """The product `outer inner`, with adjoint `inner^H outer^H`."""

    outer: Any
    inner: Any

    def __call__(self, x):
        return self.outer(self.inner(x))

    def adjoint(self, y):
        return self.inner.adjoint(self.outer.adjoint(y))

    def gram(self, x):
        return self.inner.adjoint(self.outer.gram(self.inner(x)))

    @property
    def domain(self):
        return self.inner.domain

    @property
    def range(self):
        return self.outer.range

    def subset(self, i):
        return Composed(self.outer.subset(i), self.inner)

    def restrict(self, y, i):
        return self.outer.restrict(y, i)


class Sum(LinearOperator):
    """The sum `left + right` of two operators between the same spaces."""

    left: Any
    right: Any

    def __call__(self, x):
        return jax.tree.map(jnp.add, self.left(x), self.right(x))

    def adjoint(self, y):
        return self.left.adjoint(y) + self.right.adjoint(y)

    @property
    def domain(self):
        return _wider(self.left.domain, self.right.domain)

    @property
    def range(self):
        return jax.tree.map(_wider, self.left.range, self.right.range)

    def subset(self, i):
        return Sum(self.left.subset(i), self.right.subset(i))

    def restrict(self, y, i):
        return self.left.restrict(y, i)


class Scaled(LinearOperator):
    """The operator `scale A` with a real or complex number, adjoint `conj(scale) A^H`."""

    operator: Any
    scale: Any

    def __call__(self, x):
        return jax.tree.map(lambda leaf: self.scale * leaf, self.operator(x))

    def adjoint(self, y):
        return jnp.conj(self.scale) * self.operator.adjoint(y)

    def gram(self, x):
        return jnp.abs(self.scale) ** 2 * self.operator.gram(x)

    def norm(self, *, steps: int = 50, key=None):
        return jnp.abs(self.scale) * self.operator.norm(steps=steps, key=key)

    @property
    def domain(self):
        return self.operator.domain

    @property
    def range(self):
        return self.operator.range

    def subset(self, i):
        return Scaled(self.operator.subset(i), self.scale)

    def restrict(self, y, i):
        return self.operator.restrict(y, i)


def _wider(left, right):
    return jax.ShapeDtypeStruct(left.shape, jnp.promote_types(left.dtype, right.dtype))

"""Linear operators with exact adjoints, and the algebra that keeps them so.

One image in, one measurement out: no batch axis (`jax.vmap` adds one). Inner products are Hermitian,
`<a, b> = sum conj(a) b`, so `<A x, y> = <x, A^H y>`. An adjoint is not an inverse.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from pgm_jax.core import safe_divide
from pgm_jax.operators.spaces import (
    normal_like,
    ones_like,
    require_equal,
    require_shape as require_shape,
    tree_norm,
    unit_columns,
    wider,
)
from pgm_jax.operators.trees import tree_conj


class LinearOperator(struct.PyTreeNode):
    """Base of every linear map: a subclass gives `__call__`, `adjoint`, `domain` and `range`.

    Parameters (maps, masks, angles, weights) are leaves, so an operator crosses `jit`, `vmap` and `grad`;
    what chooses a shape or a code path is static.
    """

    def __init_subclass__(cls, **options):
        # Compared and hashed by identity, since arrays have no hash: `jax.jit(A)` needs one.
        super().__init_subclass__(**{"eq": False, **options})

    # This class itself is a dataclass without fields, whose own equality would hold for any two of a kind.
    __eq__, __hash__ = object.__eq__, object.__hash__

    # True in subclasses with entries of both signs, where A 1 is not the row sums.
    _signed = False

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
        start = normal_like(key, self.domain)

        def iterate(_, carry):
            size = tree_norm(carry)
            return self.gram(jax.tree.map(lambda leaf: safe_divide(leaf, size), carry))

        return jnp.sqrt(tree_norm(jax.lax.fori_loop(0, steps, iterate, start)))

    def row_sums(self):
        """Computes `sum_j |a_ij|` of every row, a measurement; the weights of SIRT and of preconditioning.

        This default is `A 1`, which is right where no entry is negative (projectors, blurs, masks). An operator
        with entries of both signs overrides it, or refuses.

        Raises:
            ValueError: for a complex operator, or one known to have negative entries.
        """
        _require_positive(self, "row_sums")
        return self(ones_like(self.domain))

    def column_sums(self):
        """Computes `sum_i |a_ij|` of every column, an image; the sensitivity of SIRT, SART and EM.

        This default is `A^H 1`; see `row_sums` for where it is right and what it raises.
        """
        _require_positive(self, "column_sums")
        return self.adjoint(ones_like(self.range))

    @property
    def subsets(self) -> int:
        """Number of subsets of equal weight that `subset` and `restrict` know; 1 for an operator without."""
        return 1

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
            of measurements, or of images, follow each other.
        """
        columns = jax.vmap(self)(unit_columns(self.domain))
        size = sum(leaf.size for leaf in jax.tree.leaves(self.domain))
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
        require_equal("A @ B", "the domain of A", self.domain, "the range of B", other.range)
        return Composed(self, other)

    def __add__(self, other):
        if not isinstance(other, LinearOperator):
            return NotImplemented
        require_equal("A + B", "the domain of A", self.domain, "the domain of B", other.domain)
        require_equal("A + B", "the range of A", self.range, "the range of B", other.range)
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


def _require_positive(operator, name):
    kinds = jax.tree.leaves((operator.domain, operator.range))
    is_complex = any(jnp.issubdtype(kind.dtype, jnp.complexfloating) for kind in kinds)
    if is_complex or operator._signed:
        raise ValueError(
            f"{name} of {type(operator).__name__} is not A applied to ones, for it has complex or negative "
            "entries: use norm() for step sizes, or a solver without row and column weights"
        )


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

    def row_sums(self):
        return self.operator.column_sums()

    def column_sums(self):
        return self.operator.row_sums()


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

    @property
    def subsets(self):
        return self.outer.subsets

    @property
    def _signed(self):
        return self.outer._signed or self.inner._signed

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
        return jax.tree.map(jnp.add, self.left.adjoint(y), self.right.adjoint(y))

    @property
    def domain(self):
        return wider(self.left.domain, self.right.domain)

    @property
    def range(self):
        return wider(self.left.range, self.right.range)

    @property
    def subsets(self):
        return self.left.subsets

    @property
    def _signed(self):
        return self.left._signed or self.right._signed

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
        return jax.tree.map(lambda leaf: jnp.conj(self.scale) * leaf, self.operator.adjoint(y))

    def gram(self, x):
        return jax.tree.map(lambda leaf: jnp.abs(self.scale) ** 2 * leaf, self.operator.gram(x))

    def norm(self, *, steps: int = 50, key=None):
        return jnp.abs(self.scale) * self.operator.norm(steps=steps, key=key)

    def row_sums(self):
        return jax.tree.map(lambda leaf: jnp.abs(self.scale) * leaf, self.operator.row_sums())

    def column_sums(self):
        return jax.tree.map(lambda leaf: jnp.abs(self.scale) * leaf, self.operator.column_sums())

    @property
    def domain(self):
        return self.operator.domain

    @property
    def range(self):
        return self.operator.range

    @property
    def subsets(self):
        return self.operator.subsets

    def subset(self, i):
        return Scaled(self.operator.subset(i), self.scale)

    def restrict(self, y, i):
        return self.operator.restrict(y, i)

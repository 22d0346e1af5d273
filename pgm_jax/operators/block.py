"""A matrix of operators: several images to several measurements."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from pgm_jax.operators.operator import LinearOperator


def _add(a, b):
    return jax.tree.map(jnp.add, a, b)


def _total(terms):
    """Sums arrays, or tuples of them, of equal structure."""
    return functools.reduce(_add, terms)


class Block(LinearOperator):
    """A matrix of operators, `(A x)_i = sum_j A_ij x_j`, adjoint `(A^H y)_j = sum_i A_ij^H y_i`.

    Build it with `block`. Images and measurements are tuples, one part a column and a row. Subset i is row i,
    a `Block` of one row.

    Attributes:
        rows: tuple of rows, each a tuple of operators, None for 0.
    """

    rows: tuple[tuple[Any, ...], ...]

    def __call__(self, x):
        self._require_parts(x, len(self.rows[0]), "images")
        return tuple(
            _total([entry(part) for entry, part in zip(row, x, strict=True) if entry is not None])
            for row in self.rows
        )

    def adjoint(self, y):
        self._require_parts(y, len(self.rows), "measurements")
        return tuple(
            _total([entry.adjoint(part) for entry, part in zip(column, y, strict=True) if entry is not None])
            for column in self._columns
        )

    def row_sums(self):
        return tuple(_total([entry.row_sums() for entry in row if entry is not None]) for row in self.rows)

    def column_sums(self):
        return tuple(
            _total([entry.column_sums() for entry in column if entry is not None]) for column in self._columns
        )

    @property
    def domain(self):
        return tuple(self._space(column, "domain") for column in self._columns)

    @property
    def range(self):
        return tuple(self._space(row, "range") for row in self.rows)

    @property
    def subsets(self):
        return len(self.rows)

    def subset(self, i):
        return Block((self.rows[i],))

    def restrict(self, y, i):
        return (y[i],)

    @property
    def _columns(self):
        return tuple(zip(*self.rows, strict=True))

    def _space(self, entries, side):
        """The space of a row or column, in the widest dtype of the whole: one complex entry makes all complex."""
        known = [entry for row in self.rows for entry in row if entry is not None]
        spaces = jax.tree.leaves([(entry.domain, entry.range) for entry in known])
        dtype = jnp.result_type(*[space.dtype for space in spaces])
        space = getattr(next(entry for entry in entries if entry is not None), side)
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), space)

    def _require_parts(self, parts, count, role):
        if not isinstance(parts, (tuple, list)) or len(parts) != count:
            given = len(parts) if isinstance(parts, (tuple, list)) else type(parts).__name__
            raise ValueError(
                f"Block of {len(self.rows)} x {len(self.rows[0])} operators needs a tuple of {count} {role}, "
                f"got {given}: give one for each"
            )


def block(rows) -> Block:
    """Builds a matrix of operators.

    Args:
        rows: rows of operators, such as `((A, B), (None, C))`; None stands for 0. Operators of one column act on
            the same image, those of one row give the same measurement, and none is empty.

    Returns:
        The `Block` operator.

    Raises:
        ValueError: if the rows differ in length, a row or column is all None, or the spaces do not fit.
    """
    rows = tuple(tuple(row) for row in rows)
    lengths = sorted({len(row) for row in rows})
    if len(lengths) != 1 or lengths == [0]:
        raise ValueError(
            f"block needs rows of one length, got {[len(row) for row in rows]}: fill up with None"
        )
    for kind, lines, space in (("row", rows, "range"), ("column", zip(*rows, strict=True), "domain")):
        for index, line in enumerate(lines):
            shapes = [
                jax.tree.map(lambda leaf: leaf.shape, getattr(entry, space))
                for entry in line
                if entry is not None
            ]
            if not shapes:
                raise ValueError(f"{kind} {index} of block is all None: leave it out, or give it an operator")
            if any(shape != shapes[0] for shape in shapes):
                raise ValueError(
                    f"the operators of {kind} {index} of block have {space}s {shapes}: they must agree"
                )
    return Block(rows)

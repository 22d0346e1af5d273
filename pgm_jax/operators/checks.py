"""Measures of how exact an adjoint is: the dot test and the element test."""

import jax
import jax.numpy as jnp

from pgm_jax.operators.trees import tree_inner


def _normal_like(key, space):
    leaves, tree = jax.tree.flatten(space)
    keys = jax.random.split(key, len(leaves))
    draws = [jax.random.normal(k, s.shape, s.dtype) for k, s in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, draws)


def _is_complex(space):
    return all(jnp.issubdtype(leaf.dtype, jnp.complexfloating) for leaf in jax.tree.leaves(space))


def adjoint_gap(operator, key):
    """Computes the dot test `|<A x, y> - <x, A^H y>| / (||A x|| ||y||)` for random normal x and y.

    The gap is divided by the product of norms, since `<A x, y>` itself may be near 0. Between complex spaces
    the complex inner product is compared, which also catches a missing conjugation.

    Args:
        operator: linear operator.
        key: key of the random x and y.

    Returns:
        Real scalar; about 1e-7 in float32 for an exact adjoint.
    """
    key_x, key_y = jax.random.split(key)
    x, y = _normal_like(key_x, operator.domain), _normal_like(key_y, operator.range)
    forward, backward = operator(x), operator.adjoint(y)
    gap = jnp.abs(tree_inner(forward, y) - tree_inner(x, backward))
    if _is_complex(operator.domain) and _is_complex(operator.range):
        turned = jax.tree.map(lambda leaf: 1j * leaf, y)
        gap = jnp.hypot(gap, tree_inner(forward, turned) - tree_inner(x, operator.adjoint(turned)))
    return gap / jnp.sqrt(tree_inner(forward, forward) * tree_inner(y, y))


def element_gap(operator):
    """Computes the largest element of `M(A) - M(A^H)^H`, the two dense matrices built column by column.

    A dot test alone hides errors that average out; for tiny sizes only.

    Args:
        operator: linear operator; complex-linear, with one array as its measurement.

    Returns:
        Real scalar.
    """
    return jnp.max(jnp.abs(operator.matrix() - jnp.conj(operator.H.matrix()).T))

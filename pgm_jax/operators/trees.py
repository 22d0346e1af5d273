"""Vector-space arithmetic of measurements that may be one array or a tuple of arrays."""

import jax
import jax.numpy as jnp

from pgm_jax.core import inner


def tree_inner(a, b):
    """Computes `Re sum(conj(a) b)` over every entry of two pytrees of equal structure.

    Args:
        a: array or pytree of arrays, real or complex.
        b: pytree with the same structure and shapes.

    Returns:
        Real scalar.
    """
    return sum(inner(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def tree_axpy(scale, x, y):
    """Computes `y + scale x` leaf by leaf, in the dtype of `y`.

    Args:
        scale: real scalar.
        x: array or pytree of arrays.
        y: pytree with the same structure and shapes.

    Returns:
        Pytree like `y`.
    """
    return jax.tree.map(lambda p, q: q + scale.astype(jnp.real(q).dtype) * p, x, y)


def tree_conj(a):
    """Computes the complex conjugate of every leaf; real leaves are returned as they are."""
    return jax.tree.map(lambda x: jnp.conj(x) if jnp.iscomplexobj(x) else x, a)


def as_kind(value, like):
    """Projects `value` on the real numbers if `like` is real, and leaves it alone if `like` is complex.

    The gradient of a function of a real image is the real part of the complex gradient.

    Args:
        value: real or complex array.
        like: array whose dtype says of which kind the image is.

    Returns:
        Array of the shape of `value`.
    """
    return jnp.real(value) if jnp.iscomplexobj(value) and not jnp.iscomplexobj(like) else value

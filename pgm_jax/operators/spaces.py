"""Shapes of images and measurements: checks of them, and arrays that fit.

A space is a `jax.ShapeDtypeStruct` or, for several images or measurements, a tuple of them.
"""

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax.core import squared_norm


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


def require_equal(expression: str, left: str, left_space, right: str, right_space) -> None:
    """Checks that two spaces have the same shapes.

    Args:
        expression: what is being built, such as "A @ B".
        left: name of the first space, such as "the domain of A".
        left_space: the space.
        right: name of the second.
        right_space: the space.

    Raises:
        ValueError: if they differ.
    """
    shapes = [jax.tree.map(lambda leaf: leaf.shape, space) for space in (left_space, right_space)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"{expression}: {left} is {shapes[0]} but {right} is {shapes[1]}; "
            "build both for the same image and detector"
        )


def normal_like(key, space):
    """Draws normal numbers.

    Args:
        key: PRNG key.
        space: the space.

    Returns:
        Arrays of its structure.
    """
    leaves, tree = jax.tree.flatten(space)
    # The first part takes the key itself, so that an operator on one image starts from the same numbers.
    keys = [key if i == 0 else jax.random.fold_in(key, i) for i in range(len(leaves))]
    draws = [jax.random.normal(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, draws)


def ones_like(space):
    """Returns arrays of ones.

    Args:
        space: the space.
    """
    return jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), space)


def unit_columns(space):
    """Returns the unit vectors of a space along a leading axis, to be mapped one by one.

    Args:
        space: the space.
    """
    leaves, tree = jax.tree.flatten(space)
    sizes = [leaf.size for leaf in leaves]
    parts = jnp.split(jnp.eye(sum(sizes)), np.cumsum(sizes)[:-1], axis=1)
    units = [p.astype(leaf.dtype).reshape(-1, *leaf.shape) for p, leaf in zip(parts, leaves, strict=True)]
    return jax.tree.unflatten(tree, units)


def tree_norm(x):
    """Computes the Euclidean norm of all entries of a tree, a real scalar.

    Args:
        x: array or tree of arrays.
    """
    return jnp.sqrt(sum(squared_norm(leaf) for leaf in jax.tree.leaves(x)))


def wider(left, right):
    """Returns a space of the shapes of `left` in the wider dtype of each pair of parts.

    Args:
        left: the space.
        right: a space of the same shapes.
    """

    def promote(a, b):
        return jax.ShapeDtypeStruct(a.shape, jnp.promote_types(a.dtype, b.dtype))

    return jax.tree.map(promote, left, right)

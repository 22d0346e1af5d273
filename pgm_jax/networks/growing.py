"""Larger networks that start as a smaller one: parameters kept, the new ones zero."""

import jax
import jax.numpy as jnp


def grow(shapes, given, places: int = 1):
    """Returns parameters of a network that computes what the given ones compute, whatever its new conditions say.

    New leaves are zero. A kernel with more inputs than the given one, such as the stem of a network that also reads
    an image, has zeros for them; they stand behind the old inputs at each of `places` places.

    Args:
        shapes: parameters of the larger network, or their `ShapeDtypeStruct`s, as nested dicts.
        given: parameters of the smaller one.
        places: pixels that a space-to-depth stem joins, `patch^dims`.

    Returns:
        Parameters of the shapes of `shapes`.

    Raises:
        ValueError: if a given leaf is absent from the larger network or fits nowhere, with its name.
    """

    def merge(shapes, given, path):
        if not isinstance(shapes, dict):
            return _widened(shapes, given, places, path)
        unknown = set(given) - set(shapes)
        if unknown:
            raise ValueError(
                f"grow: the larger network has no {'/'.join((*path, min(unknown)))}: build it with the options of "
                "the smaller one and more conditions"
            )
        zeros = lambda leaf: jnp.zeros(leaf.shape, leaf.dtype)
        return {
            name: merge(leaf, given[name], (*path, name)) if name in given else jax.tree.map(zeros, leaf)
            for name, leaf in shapes.items()
        }

    return merge(shapes, given, ())


def _widened(shape, given, places, path):
    if shape.shape == given.shape:
        return jnp.asarray(given, shape.dtype)
    old, new = given.shape, shape.shape
    fits = (
        len(old) == len(new) > 1
        and (*old[:-2], old[-1]) == (*new[:-2], new[-1])
        and new[-2] > old[-2]
        and new[-2] % places == old[-2] % places == 0
    )
    if not fits:
        raise ValueError(
            f"grow: {'/'.join(path)} has shape {old} and the larger network needs {new}: only inputs may be more"
        )
    split = given.reshape(*old[:-2], places, old[-2] // places, old[-1])
    padding = [(0, 0)] * (split.ndim - 2) + [(0, (new[-2] - old[-2]) // places), (0, 0)]
    return jnp.pad(split, padding).reshape(new).astype(shape.dtype)

"""Interleaved subsets of equal size along the leading axis of a measurement."""

import jax


def require_subsets(name: str, size: int, subsets: int) -> None:
    """Refuses subsets of unequal size.

    Args:
        name: what the leading axis holds, such as "views".
        size: its length.
        subsets: number of subsets.

    Raises:
        ValueError: if the number is not positive or does not divide the size.
    """
    if subsets < 1 or size % subsets:
        divisors = [n for n in range(1, min(size, 64) + 1) if size % n == 0]
        raise ValueError(
            f"{subsets} subsets do not divide {size} {name} into equal parts: use one of {divisors}, or leave "
            f"{name} out until they do"
        )


def interleaved(values, i, subsets: int):
    """Takes entries i, i + subsets, i + 2 subsets, ... along the leading axis of every array.

    Args:
        values: array or pytree of arrays with equal leading axes.
        i: number of the subset, may be traced.
        subsets: number of subsets; it divides the leading axes.

    Returns:
        Pytree like values, with leading axes shorter by `subsets`.
    """

    def take(array):
        parts = array.reshape(array.shape[0] // subsets, subsets, *array.shape[1:])
        return jax.lax.dynamic_index_in_dim(parts, i, axis=1, keepdims=False)

    return jax.tree.map(take, values)

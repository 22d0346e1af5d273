"""Ordered subsets of a likelihood, visited one after another while the levels of a sampler go by."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from pgm_jax.operators.subset_order import subset_order


class Parts(NamedTuple):
    """The subsets of a likelihood in the order of Herman and Meyer.

    Attributes:
        count: number of subsets S, static.
        pick: `(position) -> likelihood`, the subset that is visited at this position, which counts on and on and
            may be traced; the whole likelihood where S is 1.
    """

    count: int
    pick: Callable


def parts(likelihood) -> Parts:
    """Lists the subsets of a likelihood: those of its operator, or the whole where it has no single operator.

    Neighbours in the order, `operators.subset_order`, lie far apart in angle.

    Args:
        likelihood: likelihood of an operator built with `subsets`, or any other one.

    Returns:
        `Parts`.
    """
    count = getattr(getattr(likelihood, "operator", None), "subsets", 1)
    if count == 1:
        return Parts(1, lambda position: likelihood)
    order = jnp.asarray(subset_order(count, "herman_meyer"))
    return Parts(count, lambda position: likelihood.subset(order[position % count]))


def first_position(x_t):
    """Returns the state of a guidance that has visited no subset yet."""
    return jnp.int32(0)

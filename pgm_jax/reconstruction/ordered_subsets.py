"""What the algebraic methods share: a pass over ordered subsets, and weights that are 0 where sums are."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pgm_jax.core import safe_divide
from pgm_jax.operators.proximal import root
from pgm_jax.operators.subset_order import subset_order
from pgm_jax.operators.trees import tree_inner
from pgm_jax.reconstruction.iteration import Iteration


class Algebraic(NamedTuple):
    """State of the algebraic methods.

    Attributes:
        x: image.
        product: `A x`; empty where it is not carried.
        objective: half the weighted squared misfit.
        square: squared misfit `||y - A x||^2`.
    """

    x: Any
    product: Any
    objective: Any
    square: Any


def algebraic_iteration(init, step) -> Iteration:
    """Builds an iteration of `Algebraic` states that measures the objective and `||y - A x||`.

    Args:
        init: `() -> state`.
        step: `state -> state`.

    Returns:
        `Iteration`.
    """
    return Iteration(init, step, lambda state: state.x, lambda s: (s.objective, root(s.square)))


def pass_iteration(operator, y, update, relax, x_init, order: str, keep_positive: bool) -> Iteration:
    """Builds an iteration whose step is one pass over the subsets of an operator.

    Args:
        operator: linear operator A with `subsets`.
        y: measurement.
        update: `(s, A_s, y_s - A_s x) -> (change of x, residual weighted as in the objective)`.
        relax: factor of the change.
        x_init: start, or None for 0.
        order: see `subset_order`.
        keep_positive: whether negative voxels are set to 0 after each subset.

    Returns:
        `Iteration` with state `Algebraic`, each subset measured at the image that met it during the pass.
    """
    indices = subset_order(operator.subsets, order)

    def visit(i, state):
        part = subset(operator, i)
        residual = jax.tree.map(jnp.subtract, restrict(operator, y, i), part(state.x))
        change, weighted = update(i, part, residual)
        x = state.x + relax * change
        return Algebraic(
            jnp.maximum(x, 0.0) if keep_positive else x,
            (),
            state.objective + 0.5 * tree_inner(residual, weighted),
            state.square + tree_inner(residual, residual),
        )

    def step(state):
        zero = jnp.zeros_like(state.objective)
        start = Algebraic(state.x, (), zero, zero)
        if has_unlike_parts(operator):
            for i in indices:
                start = visit(int(i), start)
            return start
        return jax.lax.scan(lambda s, i: (visit(i, s), None), start, indices)[0]

    def init():
        infinite = jnp.full((), jnp.inf, operator.domain.dtype)
        return Algebraic(start_image(operator, x_init), (), infinite, infinite)

    return algebraic_iteration(init, step)


def has_unlike_parts(operator) -> bool:
    """Says whether the subsets differ in shape, as those of a stack do; then a pass over them is unrolled.

    Args:
        operator: linear operator.
    """
    return isinstance(operator.range, tuple)


def subset(operator, i):
    """Returns `operator.subset(i)`, or the operator itself where it has one subset.

    Args:
        operator: linear operator.
        i: index of the subset.
    """
    return operator if operator.subsets == 1 else operator.subset(i)


def restrict(operator, y, i):
    """Returns `operator.restrict(y, i)`, or y itself where the operator has one subset.

    Args:
        operator: linear operator.
        y: measurement.
        i: index of the subset.
    """
    return y if operator.subsets == 1 else operator.restrict(y, i)


def start_image(operator, x_init):
    """Returns the start of an iteration, 0 if x_init is None.

    Args:
        operator: linear operator.
        x_init: image or None.
    """
    zero = jnp.zeros(operator.domain.shape, operator.domain.dtype)
    return zero if x_init is None else jnp.asarray(x_init, zero.dtype)


def divided(values, sums):
    """Divides values by sums, entry by entry of two trees, with 0 where a sum is 0.

    Args:
        values: array or tree.
        sums: array or tree like it.
    """
    return jax.tree.map(safe_divide, values, sums)

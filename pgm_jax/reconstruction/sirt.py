"""The simultaneous iterative reconstruction technique, SIRT."""

from typing import Any

import jax
import jax.numpy as jnp

from pgm_jax.operators.trees import tree_inner
from pgm_jax.reconstruction.iteration import Iteration, run
from pgm_jax.reconstruction.ordered_subsets import Algebraic, algebraic_iteration, divided, start_image


def sirt(
    operator, y, steps: int = 50, relax=1.0, x_init=None, *, keep_positive: bool = False, rtol: Any = 0.0
):
    """Reconstructs by the simultaneous iterative reconstruction technique, all rays at once.

        x <- x + relax C A^H R (y - A x),   R = 1 / (A 1),   C = 1 / (A^H 1)

    with 0 in place of 1 / 0, so voxels that no ray meets keep their start. It minimises
    `||y - A x||_R^2 / 2` for 0 < relax < 2, since `||C^(1/2) A^H R^(1/2)|| <= 1`, and diverges above.

    Source: J. Gregor and T. Benson, Computational analysis and improvement of SIRT, IEEE TMI 27 (2008).

    Args:
        operator: linear operator A without negative entries.
        y: measurement of the shape of `operator.range`.
        steps: number of iterations, each one A and one A^H.
        relax: relaxation, in (0, 2); a number or an array that broadcasts against the image.
        x_init: start; 0 by default.
        keep_positive: whether negative voxels are set to 0 after each step.
        rtol: tolerance of the stopping rule of `run`, or 0 for all steps.

    Returns:
        (image, `Trace`): objective as above, residual `||y - A x||`.
    """
    return run(sirt_iteration(operator, y, relax, x_init, keep_positive=keep_positive), steps, rtol=rtol)


def sirt_iteration(operator, y, relax=1.0, x_init=None, *, keep_positive: bool = False) -> Iteration:
    """Builds the iteration of `sirt`.

    Args:
        operator: as in `sirt`.
        y: as in `sirt`.
        relax: as in `sirt`.
        x_init: as in `sirt`.
        keep_positive: as in `sirt`.

    Returns:
        `Iteration` with state `Algebraic`.
    """
    rows, columns = operator.row_sums(), operator.column_sums()

    def misfit(x):
        product = operator(x)
        residual = jax.tree.map(jnp.subtract, y, product)
        return product, 0.5 * tree_inner(residual, divided(residual, rows)), tree_inner(residual, residual)

    def init():
        x = start_image(operator, x_init)
        return Algebraic(x, *misfit(x))

    def step(state):
        residual = jax.tree.map(jnp.subtract, y, state.product)
        x = state.x + relax * divided(operator.adjoint(divided(residual, rows)), columns)
        x = jnp.maximum(x, 0.0) if keep_positive else x
        return Algebraic(x, *misfit(x))

    return algebraic_iteration(init, step)

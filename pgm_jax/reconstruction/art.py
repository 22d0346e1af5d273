"""The algebraic reconstruction technique by blocks, ART."""

from typing import Any

import jax
import jax.numpy as jnp

from pgm_jax.reconstruction.iteration import Iteration, run
from pgm_jax.reconstruction.ordered_subsets import divided, has_unlike_parts, pass_iteration, subset


def art(
    operator,
    y,
    steps: int = 10,
    relax=1.0,
    x_init=None,
    *,
    order: str = "golden",
    keep_positive: bool = False,
    rtol: Any = 0.0,
):
    """Reconstructs by the algebraic reconstruction technique (Kaczmarz), the rays of a subset together.

    For every subset s of the scan, in turn,

        x <- x + relax A_s^H ((y_s - A_s x) / (A_s A_s^H 1))

    with 0 in place of 1 / 0. Where the rays of a subset meet no common voxel, `A_s A_s^H 1` are their squared
    norms `||a_i||^2` and this is Kaczmarz's method ray by ray, in any order. Where they do, as neighbouring
    rays of a view, it is larger by just what keeps the simultaneous step from overshooting.

    Source: R. Gordon, R. Bender and G. T. Herman, Algebraic reconstruction techniques (1970), by blocks as in
    P. P. B. Eggermont, G. T. Herman and A. Lent (1981).

    Args:
        operator: linear operator A without negative entries and with `subsets`, as many as views.
        y: measurement of the shape of `operator.range`.
        steps: number of passes over all subsets, each one A and one A^H.
        relax: relaxation, in (0, 2).
        x_init: start; 0 by default, which leads to the shortest solution of consistent data.
        order: order of the subsets in a pass, see `subset_order`.
        keep_positive: whether negative voxels are set to 0 after each subset.
        rtol: tolerance of the stopping rule of `run`, or 0 for all steps.

    Returns:
        (image, `Trace`): objective `sum_s ||y_s - A_s x||^2 / 2` with weights `1 / (A_s A_s^H 1)` and residual
        `||y - A x||`, each subset at the image that met it during the pass.
    """
    iteration = art_iteration(operator, y, relax, x_init, order=order, keep_positive=keep_positive)
    return run(iteration, steps, rtol=rtol)


def art_iteration(
    operator, y, relax=1.0, x_init=None, *, order: str = "golden", keep_positive: bool = False
) -> Iteration:
    """Builds the iteration of `art`, of which a step is one pass.

    Args:
        operator: as in `art`.
        y: as in `art`.
        relax: as in `art`.
        x_init: as in `art`.
        order: as in `art`.
        keep_positive: as in `art`.

    Returns:
        `Iteration` with state `Algebraic`.
    """
    weights = _ray_weights(operator)

    def update(i, part, residual):
        weighted = divided(residual, weights(i))
        return part.adjoint(weighted), weighted

    return pass_iteration(operator, y, update, relax, x_init, order, keep_positive)


def _ray_weights(operator):
    """Returns the function that looks up `A_s A_s^H 1`, together as large as one measurement."""

    def weight(i):
        part = subset(operator, i)
        return part(part.column_sums())

    if has_unlike_parts(operator):
        table = [weight(i) for i in range(operator.subsets)]
        return lambda i: table[i]
    table = jax.lax.map(weight, jnp.arange(operator.subsets))
    return lambda i: table[i]

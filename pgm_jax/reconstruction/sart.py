"""The simultaneous algebraic reconstruction technique with ordered subsets, SART and OS-SART."""

from typing import Any

from pgm_jax.reconstruction.iteration import Iteration, run
from pgm_jax.reconstruction.ordered_subsets import divided, pass_iteration, restrict


def sart(
    operator,
    y,
    steps: int = 10,
    relax=0.5,
    x_init=None,
    *,
    order: str = "golden",
    keep_positive: bool = False,
    rtol: Any = 0.0,
):
    """Reconstructs by the simultaneous algebraic reconstruction technique, subset by subset.

    For every subset s of the scan, in turn,

        x <- x + relax A_s^H ((y_s - A_s x) / (A_s 1)) / (A_s^H 1)

    with 0 in place of 1 / 0. The subsets are those of the operator: as many as views for SART, fewer for
    OS-SART, one for SIRT. On inconsistent data a constant relaxation ends in a cycle around the solution.

    Source: A. H. Andersen and A. C. Kak, Simultaneous algebraic reconstruction technique, Ultrasonic Imaging 6
    (1984); its ordered subsets, G. Wang and M. Jiang, J. X-ray Sci. Tech. 12 (2004).

    Args:
        operator: linear operator A without negative entries and with `subsets`.
        y: measurement of the shape of `operator.range`.
        steps: number of passes over all subsets. A pass costs one A and two A^H, since the column sums of the
            subsets are not stored: there is an image of them for each.
        relax: relaxation, in (0, 2), usually 0.1 to 1.
        x_init: start; 0 by default.
        order: order of the subsets in a pass, see `subset_order`.
        keep_positive: whether negative voxels are set to 0 after each subset.
        rtol: tolerance of the stopping rule of `run`, or 0 for all steps.

    Returns:
        (image, `Trace`): objective `sum_s ||y_s - A_s x||^2 / 2` with weights `1 / (A_s 1)` and residual
        `||y - A x||`, each subset at the image that met it during the pass.
    """
    iteration = sart_iteration(operator, y, relax, x_init, order=order, keep_positive=keep_positive)
    return run(iteration, steps, rtol=rtol)


def sart_iteration(
    operator, y, relax=0.5, x_init=None, *, order: str = "golden", keep_positive: bool = False
) -> Iteration:
    """Builds the iteration of `sart`, of which a step is one pass.

    Args:
        operator: as in `sart`.
        y: as in `sart`.
        relax: as in `sart`.
        x_init: as in `sart`.
        order: as in `sart`.
        keep_positive: as in `sart`.

    Returns:
        `Iteration` with state `Algebraic`.
    """
    rows = operator.row_sums()

    def update(i, part, residual):
        weighted = divided(residual, restrict(operator, rows, i))
        return divided(part.adjoint(weighted), part.column_sums()), weighted

    return pass_iteration(operator, y, update, relax, x_init, order, keep_positive)

"""Total variation of fractional order, by the primal-dual hybrid gradient method."""

from typing import Any

from pgm_jax.operators.fractional import FractionalDifference
from pgm_jax.reconstruction.tv import tv


def fractional_tv(
    operator,
    y,
    weight,
    order=1.4,
    steps: int = 300,
    x_init=None,
    norm=None,
    balance=None,
    *,
    spacing=None,
    boundary: str = "neumann",
    keep_positive: bool = False,
    rtol: Any = 0.0,
):
    """Computes `argmin_x ||A x - y||^2 / 2 + weight sum ||grad^q x||_2`, with differences of order q.

    Orders between 1 and 2 smooth ramps without the stairs of total variation, and keep edges better than second
    differences. At q = 1 it is `tv`.

    Source: J. Zhang and Z. Wei, A class of fractional-order multi-scale variational models and alternating
    projection algorithm for image denoising, Appl. Math. Modelling 35 (2011).

    Args:
        operator: linear operator A with one array as its measurement; in `RealImage` for a real image.
        y: measurement of the shape of `operator.range`.
        weight: weight >= 0 as in `tv`, in units of y^2 over those of the difference.
        order: q > 0, a Python number.
        steps: number of iterations, each one A and one A^H.
        x_init: start; `A^H y / ||A||^2` by default.
        norm: `operator.norm()`, if known.
        balance: ratio of the size of the image to that of the dual variables, as in `tv`.
        spacing: voxel size along each spatial axis; 1 by default.
        boundary: boundary of `FractionalDifference`.
        keep_positive: whether the image, a real one, is kept at or above 0.
        rtol: tolerance of the stopping rule of `run`, or 0 for all steps.

    Returns:
        (image, `Trace`): objective as above, residual `||A x - y||`.
    """
    gradient = FractionalDifference.create(operator.domain.shape, order, None, spacing, boundary)
    return tv(
        operator, y, weight, steps, x_init, norm, gradient, balance, keep_positive=keep_positive, rtol=rtol
    )

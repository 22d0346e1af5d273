"""Total generalised variation of second order, by the primal-dual hybrid gradient method."""

from typing import Any

import jax.numpy as jnp

from pgm_jax.core import safe_divide
from pgm_jax.operators import Diagonal, FiniteDifference
from pgm_jax.operators.block import block
from pgm_jax.operators.symmetrised import SymmetrisedGradient
from pgm_jax.reconstruction.functionals import length, non_negative, squared_distance, zero
from pgm_jax.reconstruction.iteration import Iteration, run
from pgm_jax.reconstruction.primal_dual import pdhg_iteration
from pgm_jax.reconstruction.tv import natural_balance, scaled_steps


def tgv(
    operator,
    y,
    weight,
    steps: int = 300,
    x_init=None,
    norm=None,
    gradient=None,
    balance=None,
    *,
    ratio=2.0,
    keep_positive: bool = False,
    rtol: Any = 0.0,
):
    """Computes `argmin_x min_p ||A x - y||^2 / 2 + weight (sum ||grad x - p||_2 + ratio sum ||E p||_F)`.

    E is the symmetrised gradient. Where total variation counts every slope and prefers stairs, this counts only
    bends and jumps: it is 0 on affine images, exactly so, for grad and E have no differences past the border.

    Source: K. Bredies, K. Kunisch and T. Pock, Total generalized variation, SIAM J. Imaging Sci. 3 (2010); for
    MRI, F. Knoll et al., Second order total generalized variation, MRM 65 (2011), Eq. 2 and its primal-dual method.

    Args:
        operator: linear operator A with one array as its measurement; in `RealImage` for a real image.
        y: measurement of the shape of `operator.range`.
        weight: weight >= 0 of the first order, as in `tv`.
        steps: number of iterations, each one A and one A^H.
        x_init: start; `A^H y / ||A||^2` by default.
        norm: `operator.norm()`, if known.
        gradient: `FiniteDifference` ("neumann" or "periodic"), whose axes and spacing E shares; over all but the
            channel axis by default.
        balance: ratio of the size of the image to that of the dual variables, as in `tv`.
        ratio: weight of the second order over that of the first, in units of the spacing.
        keep_positive: whether the image, a real one, is kept at or above 0.
        rtol: tolerance of the stopping rule of `run`, or 0 for all steps.

    Returns:
        (image, `Trace`): objective as above at the current p, residual `||A x - y||`.
    """
    iteration = tgv_iteration(
        operator, y, weight, x_init, norm, gradient, balance, ratio=ratio, keep_positive=keep_positive
    )
    return run(iteration, steps, rtol=rtol)


def tgv_iteration(
    operator,
    y,
    weight,
    x_init=None,
    norm=None,
    gradient=None,
    balance=None,
    *,
    ratio=2.0,
    keep_positive: bool = False,
) -> Iteration:
    """Builds the iteration of `tgv`; the images of its state are x and p.

    Args:
        operator: as in `tgv`.
        y: as in `tgv`.
        weight: as in `tgv`.
        x_init: as in `tgv`.
        norm: as in `tgv`.
        gradient: as in `tgv`.
        balance: as in `tgv`.
        ratio: as in `tgv`.
        keep_positive: as in `tgv`.

    Returns:
        `Iteration`.
    """
    gradient = FiniteDifference(operator.domain.shape) if gradient is None else gradient
    bend = SymmetrisedGradient(gradient.shape, gradient.axes, gradient.spacing, gradient.boundary)
    norm = operator.norm() if norm is None else norm
    x = safe_divide(operator.adjoint(y), norm**2) if x_init is None else x_init
    field = jnp.ones(bend.domain.shape, x.dtype)
    penalised = _norm_bound(gradient.norm(), bend.norm())
    balance = natural_balance(operator, y, weight) if balance is None else balance
    fit = squared_distance(y)
    terms = fit, length(weight), length(ratio * weight)
    iteration = pdhg_iteration(
        block(((operator, None), (gradient, Diagonal(-bend.keep(field))), (None, bend))),
        terms,
        (non_negative() if keep_positive else zero(), zero()),
        x_init=(x, 0 * field),
        step_sizes=scaled_steps(norm, penalised, balance, 2),
        optimality=False,
    )

    def measure(state):
        half, first, second = (term.value(part) for term, part in zip(terms, state.products, strict=True))
        return half + first + second, jnp.sqrt(2 * half)

    return iteration._replace(image=lambda state: state.x[0], measure=measure)


def _norm_bound(g, e):
    """Bounds the norm of `[[grad, -I], [0, E]]` by that of the matrix of the norms of its blocks."""
    top, bottom = g**2, 1 + e**2
    return jnp.sqrt(0.5 * (top + bottom + jnp.sqrt((top - bottom) ** 2 + 4 * g**2)))

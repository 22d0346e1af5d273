"""Least squares by conjugate gradients on A itself: CGLS."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pgm_jax.core import safe_divide
from pgm_jax.operators.trees import as_kind, tree_axpy, tree_inner
from pgm_jax.reconstruction.iteration import Iteration, run


class LeastSquares(NamedTuple):
    """State of `cgls`.

    Attributes:
        x: image.
        residual: `y - A x`.
        direction: search direction, an image.
        gradient: `A^H (y - A x) - weight x`.
        square: squared norm of the gradient.
    """

    x: Any
    residual: Any
    direction: Any
    gradient: Any
    square: Any


def cgls(operator, y, steps: int = 20, weight=0.0, x_init=None, *, rtol: Any = 0.0):
    """Computes `argmin_x ||A x - y||^2 / 2 + weight ||x||^2 / 2` by conjugate gradients on the least squares.

    The iterates are those of CG on the normal equations, but the residual `y - A x` is carried, not
    `A^H y - A^H A x`, which loses fewer digits. With weight 0 the number of steps regularises.

    Source: A. Bjorck, Numerical methods for least squares problems (1996), algorithm 7.4.1.

    Args:
        operator: linear operator A; its measurement may be a tuple.
        y: measurement of the shape of `operator.range`. For weights w pass `sqrt(w) y` and
            `Diagonal(sqrt(w)) @ A`.
        steps: number of steps, each one A and one A^H.
        weight: Tikhonov weight >= 0, in units of `A^H A`.
        x_init: start; 0 by default.
        rtol: tolerance of the stopping rule of `run`, or 0 for all steps.

    Returns:
        (image, `Trace`): objective as above, residual the norm of the gradient
        `||A^H (y - A x) - weight x||` over its value at x = 0.
    """
    return run(cgls_iteration(operator, y, weight, x_init), steps, rtol=rtol)


def cgls_iteration(operator, y, weight=0.0, x_init=None) -> Iteration:
    """Builds the iteration of `cgls`.

    Args:
        operator: as in `cgls`.
        y: as in `cgls`.
        weight: as in `cgls`.
        x_init: as in `cgls`.

    Returns:
        `Iteration` with state `LeastSquares`.
    """
    zero = jnp.zeros(operator.domain.shape, operator.domain.dtype)
    weight = jnp.asarray(weight, jnp.real(zero).dtype)
    right = operator.adjoint(y)
    first = tree_inner(right, right)
    # Below this the gradient is rounding: it is not followed, for its ratios are noise.
    floor = (10 * jnp.finfo(zero.dtype).eps) ** 2 * first

    def init():
        x = zero if x_init is None else jnp.asarray(x_init, zero.dtype)
        residual = jax.tree.map(jnp.subtract, y, operator(x))
        gradient = as_kind(operator.adjoint(residual), zero) - weight * x
        return LeastSquares(x, residual, gradient, gradient, tree_inner(gradient, gradient))

    def step(state):
        masked = lambda value: jnp.where(state.square > floor, value, 0.0)
        image = operator(state.direction)
        curvature = tree_inner(image, image) + weight * tree_inner(state.direction, state.direction)
        rate = safe_divide(masked(state.square), masked(curvature))
        x = tree_axpy(rate, state.direction, state.x)
        residual = tree_axpy(-rate, image, state.residual)
        gradient = as_kind(operator.adjoint(residual), zero) - weight * x
        square = tree_inner(gradient, gradient)
        again = safe_divide(masked(square), masked(state.square))
        return LeastSquares(x, residual, tree_axpy(again, state.direction, gradient), gradient, square)

    def measure(state):
        fit = tree_inner(state.residual, state.residual) + weight * tree_inner(state.x, state.x)
        return 0.5 * fit, jnp.sqrt(jax.lax.stop_gradient(safe_divide(state.square, first)))

    return Iteration(init, step, lambda state: state.x, measure)

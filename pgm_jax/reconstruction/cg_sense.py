"""Regularised least squares by conjugate gradients: CG-SENSE and the zero-filled image."""

from typing import Any

import jax.numpy as jnp

from pgm_jax.core import inner, safe_divide, squared_norm
from pgm_jax.operators.conjugate_gradient import conjugate_gradient_steps
from pgm_jax.reconstruction.iteration import Iteration, run


def zero_filled(operator, y):
    """Computes `A^H y`, the image of a scan whose unmeasured entries are taken as zero.

    Args:
        operator: linear operator A, such as `Sense`.
        y: measurement of the shape of `operator.range`.

    Returns:
        Image of the shape of `operator.domain`.
    """
    return operator.adjoint(y)


def cg_sense(operator, y, steps: int = 20, weight=0.0, *, rtol: Any = 0.0):
    """Solves `(A^H A + weight I) x = A^H y` by conjugate gradients from x = 0.

    The minimiser of `||A x - y||^2 / 2 + weight ||x||^2 / 2`. With weight 0 the number of steps regularises.

    Source: K. P. Pruessmann et al., Advances in sensitivity encoding with arbitrary k-space trajectories,
    MRM 46 (2001), its CG loop without intensity correction or density compensation.

    Args:
        operator: linear operator A, such as `Sense`.
        y: measurement of the shape of `operator.range`.
        steps: number of CG steps.
        weight: Tikhonov weight >= 0, in units of `A^H A`.
        rtol: tolerance of the stopping rule of `run`, or 0 for all steps.

    Returns:
        (image, `Trace`): objective as above, residual the norm of that of the normal equations over its value
        at x = 0.
    """
    return run(cg_sense_iteration(operator, y, weight), steps, rtol=rtol)


def cg_sense_iteration(operator, y, weight=0.0) -> Iteration:
    """Builds the iteration of `cg_sense`.

    Args:
        operator: as in `cg_sense`.
        y: as in `cg_sense`.
        weight: as in `cg_sense`.

    Returns:
        `Iteration`.
    """
    right = operator.adjoint(y)
    cg = conjugate_gradient_steps(lambda x: operator.gram(x) + weight * x, right)
    half, first = 0.5 * squared_norm(y), jnp.sqrt(squared_norm(right))

    def measure(state):
        # M x = b - r gives <x, M x> / 2 - <x, b> = -<x, b + r> / 2 without another product.
        objective = half - 0.5 * inner(cg.solution(state), right + cg.residual(state))
        return objective, safe_divide(cg.norm(state), first)

    return Iteration(lambda: cg.start, cg.step, cg.solution, measure)

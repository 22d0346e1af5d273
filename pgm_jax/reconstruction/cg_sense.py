"""Regularised least squares by conjugate gradients: CG-SENSE and the zero-filled image."""

import jax.numpy as jnp

from pgm_jax.core import safe_divide, squared_norm
from pgm_jax.operators import conjugate_gradient


def zero_filled(operator, y):
    """Computes `A^H y`, the image of a scan whose unmeasured entries are taken as zero.

    Args:
        operator: linear operator A, such as `Sense`.
        y: measurement of the shape of `operator.range`.

    Returns:
        Image of the shape of `operator.domain`.
    """
    return operator.adjoint(y)


def cg_sense(operator, y, steps: int = 20, weight=0.0):
    """Solves `(A^H A + weight I) x = A^H y` by conjugate gradients from x = 0.

    The minimiser of `||A x - y||^2 + weight ||x||^2`. With weight 0 the number of steps regularises.

    Source: K. P. Pruessmann et al., Advances in sensitivity encoding with arbitrary k-space trajectories,
    MRM 46 (2001), its CG loop without intensity correction or density compensation.

    Args:
        operator: linear operator A, such as `Sense`.
        y: measurement of the shape of `operator.range`.
        steps: number of CG steps.
        weight: Tikhonov weight >= 0, in units of `A^H A`.

    Returns:
        (image, trace): the image, and the residual norm of the normal equations over that at x = 0 after each
        step, real (steps,).
    """
    right = operator.adjoint(y)
    image, norms = conjugate_gradient(lambda x: operator.gram(x) + weight * x, right, steps=steps)
    return image, safe_divide(norms, jnp.sqrt(squared_norm(right)))

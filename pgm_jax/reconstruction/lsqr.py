"""Least squares by Golub-Kahan bidiagonalisation: LSQR."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pgm_jax.core import safe_divide
from pgm_jax.operators.proximal import root
from pgm_jax.operators.trees import as_kind, tree_axpy, tree_inner
from pgm_jax.reconstruction.iteration import Iteration, run


class Bidiagonal(NamedTuple):
    """State of `lsqr`, in the letters of the paper.

    Attributes:
        x: image.
        w: search direction, an image.
        u: left Lanczos vector, like y, of norm 1.
        v: right Lanczos vector, an image of norm 1.
        alpha: entry of the bidiagonal matrix.
        rho_bar: entry that the next rotation removes.
        phi_bar: norm of the damped residual `(y - A x, sqrt(weight) x)`, less what damping has added.
        added: squared norm that damping has added to it.
        gradient: `||A^H (y - A x) - weight x||`.
    """

    x: Any
    w: Any
    u: Any
    v: Any
    alpha: Any
    rho_bar: Any
    phi_bar: Any
    added: Any
    gradient: Any


def lsqr(operator, y, steps: int = 20, weight=0.0, *, rtol: Any = 0.0):
    """Computes `argmin_x ||A x - y||^2 / 2 + weight ||x||^2 / 2` by LSQR, from x = 0.

    The iterates are those of `cgls` in exact arithmetic, through orthonormal vectors instead of products of A:
    the better choice where A is ill conditioned. With weight 0 the number of steps regularises, and the limit
    is the shortest solution.

    Source: C. C. Paige and M. A. Saunders, LSQR: an algorithm for sparse linear equations and sparse least
    squares, ACM TOMS 8 (1982), section 4 and, for the weight, section 2.

    Args:
        operator: linear operator A; its measurement may be a tuple.
        y: measurement of the shape of `operator.range`.
        steps: number of steps, each one A and one A^H.
        weight: Tikhonov weight >= 0, the square of the paper's damping, in units of `A^H A`.
        rtol: tolerance of the stopping rule of `run`, or 0 for all steps.

    Returns:
        (image, `Trace`): objective as above, residual the norm of the gradient
        `||A^H (y - A x) - weight x||` over its value at x = 0; both from the recurrences.
    """
    return run(lsqr_iteration(operator, y, weight), steps, rtol=rtol)


def lsqr_iteration(operator, y, weight=0.0) -> Iteration:
    """Builds the iteration of `lsqr`.

    Args:
        operator: as in `lsqr`.
        y: as in `lsqr`.
        weight: as in `lsqr`.

    Returns:
        `Iteration` with state `Bidiagonal`.
    """
    zero = jnp.zeros(operator.domain.shape, operator.domain.dtype)
    weight = jnp.asarray(weight, jnp.real(zero).dtype)
    beta, u = _unit(y)
    alpha, v = _unit(as_kind(operator.adjoint(u), zero))
    first = alpha * beta
    # Past these the vectors are rounding, and the state stays where it is.
    eps = 10 * jnp.finfo(zero.dtype).eps

    def init():
        return Bidiagonal(zero, v, u, v, alpha, alpha, beta, jnp.zeros_like(beta), first)

    def step(state):
        beta, u = _unit(tree_axpy(-state.alpha, state.u, operator(state.v)))
        alpha, v = _unit(tree_axpy(-beta, state.v, as_kind(operator.adjoint(u), zero)))
        # First the weight is rotated out, then the entry beta below the diagonal.
        damped = root(state.rho_bar**2 + weight)
        phi_bar = safe_divide(state.rho_bar, damped) * state.phi_bar
        psi = safe_divide(root(weight), damped) * state.phi_bar
        rho = root(damped**2 + beta**2)
        cosine, sine = safe_divide(damped, rho), safe_divide(beta, rho)
        theta, phi = sine * alpha, cosine * phi_bar
        x = tree_axpy(safe_divide(phi, rho), state.w, state.x)
        w = tree_axpy(-safe_divide(theta, rho), state.w, v)
        new = Bidiagonal(
            x,
            w,
            u,
            v,
            alpha,
            rho_bar=-cosine * alpha,
            phi_bar=sine * phi_bar,
            added=state.added + psi**2,
            gradient=jnp.abs(sine * phi_bar * alpha * cosine),
        )
        live = state.gradient > eps * first
        return jax.tree.map(lambda a, b: jnp.where(live, a, b), new, state)

    def measure(state):
        return 0.5 * (state.phi_bar**2 + state.added), safe_divide(state.gradient, first)

    return Iteration(init, step, lambda state: state.x, measure)


def _unit(vector):
    """Returns the norm of a vector, and the vector in units of it (0 if it is 0)."""
    norm = root(tree_inner(vector, vector))
    return norm, jax.tree.map(lambda leaf: safe_divide(leaf, norm), vector)

"""Conjugate gradients for Hermitian positive definite systems `M x = b`, one system at a time.

Inner products are `Re <a, b>` and the step lengths real: the bilinear product of complex vectors, a common
mistake, makes the iteration diverge. Once the residual is rounding (10 eps of the right-hand side) an iterate
stays where it is: no 0 / 0, and on a singular but consistent system, such as least squares without a
regulariser, no growth along the null space.

Source: M. R. Hestenes and E. Stiefel, Methods of conjugate gradients (1952).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pgm_jax.core import safe_divide
from pgm_jax.operators.trees import tree_axpy, tree_inner


def _rounding(b):
    """Returns the squared residual norm below which the residual of `M x = b` is noise."""
    eps = max(float(jnp.finfo(leaf.dtype).eps) for leaf in jax.tree.leaves(b))
    return (10 * eps) ** 2 * tree_inner(b, b)


def _step(matvec, floor, carry):
    x, residual, direction, rr = carry
    image = matvec(direction)
    # Both parts of a ratio are masked: past convergence the square of a denominator underflows, and the
    # derivative of 0 / tiny is not a number.
    live = rr > floor
    masked = lambda value: jnp.where(live, value, 0.0)
    alpha = safe_divide(masked(rr), masked(tree_inner(direction, image)))
    x = tree_axpy(alpha, direction, x)
    residual = tree_axpy(-alpha, image, residual)
    rr_next = tree_inner(residual, residual)
    direction = tree_axpy(safe_divide(masked(rr_next), masked(rr)), direction, residual)
    return x, residual, direction, rr_next


class ConjugateGradients(NamedTuple):
    """Conjugate gradients on one system, a step at a time.

    Attributes:
        start: state before the first step.
        step: `state -> state`, one application of the map.
        solution: `state -> x`.
        residual: `state -> b - M x`.
        norm: `state -> ||b - M x||`, without derivative.
    """

    start: tuple
    step: Callable
    solution: Callable
    residual: Callable
    norm: Callable


def conjugate_gradient_steps(matvec, b, x_init=None, among=None) -> ConjugateGradients:
    """Prepares conjugate gradients on `M x = b` for a loop of the caller's; see `conjugate_gradient`.

    Args:
        matvec: Hermitian positive (semi)definite map, from and to arrays like b.
        b: right-hand side, a real or complex array or a pytree of them.
        x_init: start, like b; zero by default.
        among: what b is a difference of, like b: steps end at its rounding error, which b may be no more than.

    Returns:
        `ConjugateGradients`.
    """
    residual = b if x_init is None else jax.tree.map(jnp.subtract, b, matvec(x_init))
    x = jax.tree.map(jnp.zeros_like, b) if x_init is None else x_init
    # The system is solved in units of its first residual, so that squares in reverse mode stay in range.
    size = jax.lax.stop_gradient(jnp.sqrt(tree_inner(residual, residual)))
    size = jnp.where(size > 0, size, 1.0)
    floor = _rounding(b) if among is None else jnp.maximum(_rounding(b), _rounding(among))
    floor = jax.lax.stop_gradient(floor) / size**2
    residual = jax.tree.map(lambda leaf: leaf / size, residual)
    return ConjugateGradients(
        (jax.tree.map(jnp.zeros_like, residual), residual, residual, tree_inner(residual, residual)),
        lambda state: _step(matvec, floor, state),
        lambda state: tree_axpy(size, state[0], x),
        lambda state: jax.tree.map(lambda leaf: size * leaf, state[1]),
        # The square root of an exact zero has no derivative; the norm is a diagnostic.
        lambda state: size * jnp.sqrt(jax.lax.stop_gradient(state[3])),
    )


def conjugate_gradient(matvec, b, x_init=None, *, steps: int, among=None):
    """Runs a fixed number of conjugate gradient steps on `M x = b`.

    One `lax.scan`; reverse mode differentiates the steps themselves.

    Args:
        matvec: Hermitian positive (semi)definite map, from and to arrays like b.
        b: right-hand side, a real or complex array or a pytree of them.
        x_init: start, like b; zero by default.
        steps: number of applications of `matvec` (one more with `x_init`).
        among: as in `conjugate_gradient_steps`.

    Returns:
        (x, norms): the solution like b, and the residual norm `||b - M x||` after each step, real (steps,).
    """
    cg = conjugate_gradient_steps(matvec, b, x_init, among)

    def body(state, _):
        state = cg.step(state)
        return state, cg.norm(state)

    state, norms = jax.lax.scan(body, cg.start, length=steps)
    return cg.solution(state), norms


def _iterate(matvec, b, rtol, max_steps):
    floor = _rounding(b)
    bound = jnp.maximum(rtol**2 * tree_inner(b, b), floor)

    def unfinished(carry):
        step, (*_, rr) = carry
        return (step < max_steps) & (rr > bound)

    def body(carry):
        step, state = carry
        return step + 1, _step(matvec, floor, state)

    start = (jax.tree.map(jnp.zeros_like, b), b, b, tree_inner(b, b))
    return jax.lax.while_loop(unfinished, body, (0, start))[1][0]


def _split(x):
    return (jnp.real(x), jnp.imag(x)) if jnp.iscomplexobj(x) else x


def solve_positive_definite(matvec, b, *, rtol=1e-5, max_steps: int = 100):
    """Solves `M x = b` by conjugate gradients until `||b - M x|| <= rtol ||b||`, from x = 0.

    Differentiable in b and in whatever `matvec` closes over by the implicit function theorem,
    `dx = M^-1 (db - dM x)`: reverse mode costs one more solve and stores no iterates. The derivative is that
    of the exact solution, so it is as good as the solve. Under `vmap` each system stops at its own step.

    Complex systems are solved as real ones of twice the size, where a Hermitian map is symmetric; a map that
    is only linear over the reals (a real image seen by a complex operator) is allowed too.

    Args:
        matvec: Hermitian positive definite map, from and to arrays like b.
        b: right-hand side, a real or complex array or a pytree of them.
        rtol: relative residual at which to stop; may be traced.
        max_steps: steps after which the best x so far is returned, without a warning.

    Returns:
        x like b; zero if b is zero.
    """
    leaves, tree = jax.tree.flatten(b)

    def join(parts):
        return jax.tree.unflatten(tree, [jax.lax.complex(*p) if isinstance(p, tuple) else p for p in parts])

    def split(value):
        return [_split(leaf) for leaf in jax.tree.leaves(value)]

    def solve(real_matvec, right):
        return _iterate(real_matvec, right, rtol, max_steps)

    parts = jax.lax.custom_linear_solve(
        lambda parts: split(matvec(join(parts))), [_split(leaf) for leaf in leaves], solve, symmetric=True
    )
    return join(parts)

"""The alternating direction method of multipliers for `||A x - y||^2 / 2 + sum_i f_i((D x)_i)`."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pgm_jax.operators import LinearOperator, conjugate_gradient
from pgm_jax.operators.trees import as_kind, tree_inner
from pgm_jax.reconstruction.functionals import squared_distance, term_list
from pgm_jax.reconstruction.iteration import Iteration, run


class Admm(NamedTuple):
    """State of `admm`.

    Attributes:
        x: image.
        transformed: `D x`, a list with one part a term.
        split: z, the copy of D x that the terms see.
        dual: w, the scaled multiplier.
        gap: `||D x - z||` and `rho ||D^H (z - z_old)||` in one norm.
    """

    x: Any
    transformed: Any
    split: Any
    dual: Any
    gap: Any


def admm(
    operator,
    y,
    transform,
    terms,
    rho,
    steps: int = 50,
    inner_steps: int = 10,
    x_init=None,
    *,
    rtol: Any = 0.0,
):
    """Minimises `||A x - y||^2 / 2 + sum_i f_i((D x)_i)` by the alternating direction method of multipliers.

        x <- solution of (A^H A + rho D^H D) x = A^H y + rho D^H (z - w)      conjugate gradients from the last x
        z <- prox_{f / rho}(D x + w)
        w <- w + D x - z

    Any rho > 0 converges; a good one is about the weight over the size of D x. Non-negativity is one more term:
    `stack(D, Identity(shape))` with `(f, non_negative())`.

    Sources: S. Boyd et al., Distributed optimization and statistical learning via ADMM (2011), section 3.1.1;
    its case `D = grad`, the review's Eq. 31, with `D_z^T (z - w)` where that prints `D^T`.

    Args:
        operator: linear operator A with one array as its measurement.
        y: measurement of the shape of `operator.range`.
        transform: linear operator D on the same images; its measurement may be a tuple, as from `stack`.
        terms: `Functional` f, or a tuple of them, one a part of `transform.range`.
        rho: weight > 0 of the splitting, in units of `A^H A` over those of `D^H D`.
        steps: number of iterations.
        inner_steps: conjugate gradient steps of each x.
        x_init: start; 0 by default.
        rtol: tolerance of the stopping rule of `run`, or 0 for all steps.

    Returns:
        (image, `Trace`): objective as above at x; residual
        `sqrt(||D x - z||^2 + rho^2 ||D^H (z - z_old)||^2)`, the primal and dual residual, 0 at a minimum.
    """
    return run(admm_iteration(operator, y, transform, terms, rho, inner_steps, x_init), steps, rtol=rtol)


def admm_iteration(
    operator, y, transform: LinearOperator, terms, rho, inner_steps: int = 10, x_init=None
) -> Iteration:
    """Builds the iteration of `admm`; at a minimum `rho w` is the dual variable of the terms.

    Args:
        operator: as in `admm`.
        y: as in `admm`.
        transform: as in `admm`.
        terms: as in `admm`.
        rho: as in `admm`.
        inner_steps: as in `admm`.
        x_init: as in `admm`.

    Returns:
        `Iteration` with state `Admm`.
    """
    f = term_list(terms, transform.range, "transformed image")
    fit, right = squared_distance(y), operator.adjoint(y)
    structure = jax.tree.structure(transform.range)

    def apply(x):
        return jax.tree.leaves(transform(x))

    def back(parts, like):
        return as_kind(transform.adjoint(jax.tree.unflatten(structure, parts)), like)

    def normal(x):
        return as_kind(operator.gram(x) + rho * transform.gram(x), x)

    def init():
        x = jnp.zeros(operator.domain.shape, operator.domain.dtype) if x_init is None else x_init
        transformed = apply(x)
        infinite = jnp.full((), jnp.inf, jnp.real(x).dtype)
        return Admm(x, transformed, transformed, [0 * part for part in transformed], infinite)

    def step(state):
        target = [z - w for z, w in zip(state.split, state.dual, strict=True)]
        x, _ = conjugate_gradient(
            normal, as_kind(right, state.x) + rho * back(target, state.x), state.x, steps=inner_steps
        )
        transformed = apply(x)
        shifted = [d + w for d, w in zip(transformed, state.dual, strict=True)]
        split = [term.prox(part, 1 / rho) for term, part in zip(f, shifted, strict=True)]
        dual = [part - z for part, z in zip(shifted, split, strict=True)]
        primal = [d - z for d, z in zip(transformed, split, strict=True)]
        moved = back([z - old for z, old in zip(split, state.split, strict=True)], x)
        gap = jnp.sqrt(tree_inner(primal, primal) + rho**2 * tree_inner(moved, moved))
        return Admm(x, transformed, split, dual, gap)

    def measure(state):
        values = [term.value(part) for term, part in zip(f, state.transformed, strict=True)]
        return fit.value(operator(state.x)) + sum(values), state.gap

    return Iteration(init, step, lambda state: state.x, measure)

"""The primal-dual hybrid gradient method for `min_x sum_i f_i((K x)_i) + sum_j g_j(x_j)`."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pgm_jax.core import safe_divide, squared_norm
from pgm_jax.operators import LinearOperator
from pgm_jax.reconstruction.functionals import term_list
from pgm_jax.reconstruction.iteration import Iteration, run


class PrimalDual(NamedTuple):
    """State of the primal-dual iteration; a part is an array or a tuple of arrays, as in the operator's spaces.

    Attributes:
        x: image x.
        products: `K x`.
        bar: `2 K x - K x_old`, what the dual step sees.
        dual: dual variables p, like `K x`.
        back: `K^H p`, like x, where a duality gap exists; else empty.
        optimality: norm of the optimality residual where no gap exists; else empty.
    """

    x: Any
    products: Any
    bar: Any
    dual: Any
    back: Any
    optimality: Any


def pdhg(
    operator,
    terms,
    image_term=None,
    *,
    steps: int = 200,
    x_init=None,
    step_sizes=None,
    balance=1.0,
    rtol: Any = 0.0,
):
    """Minimises `sum_i f_i((K x)_i) + sum_j g_j(x_j)` by the primal-dual hybrid gradient method.

    With tau and sigma such that `tau sigma ||K||^2 < 1`, each step is

        p <- prox_{sigma f*}(p + sigma K x_bar)
        x <- prox_{tau g}(x - tau K^H p);  x_bar <- 2 x_new - x_old

    Products with K are carried along, so a step costs one K and one K^H and the objective is free.

    Source: A. Chambolle and T. Pock, A first-order primal-dual algorithm (2011), Algorithm 1.

    Args:
        operator: linear operator K; `stack` gives one image several terms, `block` several images.
        terms: `Functional` f of the measurement, or a tuple of them, one a part of `operator.range`.
        image_term: `Functional` g of the image, or a tuple of them, one a part of `operator.domain`; 0 by
            default.
        steps: number of iterations.
        x_init: start, zero by default.
        step_sizes: (tau, sigma), two numbers, or two trees of arrays like the image and the measurement such as
            `diagonal_steps` gives; by default `0.99 balance / ||K||` and `0.99 / (balance ||K||)`.
        balance: ratio of the size of the image to that of the dual variables; any positive number converges.
            Not used with step_sizes.
        rtol: tolerance of the stopping rule of `run`, or 0 for all steps.

    Returns:
        (image, `Trace`): objective is the sum of the terms; residual is the duality gap
        `f(K x) + g(x) + f*(p) + g*(-K^H p)` where it exists (every g is coercive, such as `box` or
        `squared_distance`), otherwise the norm of the optimality residual
        `((x_old - x) / tau, (p_old - p) / sigma - K (x - x_bar))`. Both tend to 0; the gap bounds the distance
        of the objective from its minimum, for images that meet the constraints.
    """
    iteration = pdhg_iteration(
        operator, terms, image_term, x_init=x_init, step_sizes=step_sizes, balance=balance
    )
    return run(iteration, steps, rtol=rtol)


def pdhg_iteration(
    operator, terms, image_term=None, *, x_init=None, step_sizes=None, balance=1.0, optimality: bool = True
) -> Iteration:
    """Builds the iteration of `pdhg`; `state.products` are K x for a caller's own measures.

    Args:
        operator: as in `pdhg`.
        terms: as in `pdhg`.
        image_term: as in `pdhg`.
        x_init: as in `pdhg`.
        step_sizes: as in `pdhg`.
        balance: as in `pdhg`.
        optimality: False leaves the optimality residual out, for callers with a `measure` of their own.

    Returns:
        `Iteration` with state `PrimalDual`.
    """
    f, g = term_list(terms, operator.range, "measurement"), term_list(image_term, operator.domain, "image")
    if step_sizes is None:
        step = 0.99 / operator.norm()
        step_sizes = balance * step, step / balance
    tau, sigma = (_spread(step, space) for step, space in zip(step_sizes, _spaces(operator), strict=True))
    has_gap = all(term.is_coercive for term in g)
    apply, back = _on_lists(operator), _on_lists(operator.H)

    def init():
        x = [jnp.zeros(s.shape, s.dtype) for s in jax.tree.leaves(operator.domain)]
        x = x if x_init is None else jax.tree.leaves(x_init)
        products = apply(x)
        dual = [jnp.zeros_like(part) for part in products]
        start = PrimalDual(x, products, products, dual, (), ())
        if has_gap:
            return start._replace(back=[jnp.zeros_like(part) for part in x])
        return start._replace(optimality=jnp.full((), jnp.inf, tau[0].dtype)) if optimality else start

    def step(state):
        ascended = [p + s * bar for p, s, bar in zip(state.dual, sigma, state.bar, strict=True)]
        dual = [term.dual_prox(p, s) for term, p, s in zip(f, ascended, sigma, strict=True)]
        gradient = back(dual)
        descended = [x - t * k for x, t, k in zip(state.x, tau, gradient, strict=True)]
        x = [term.prox(part, t) for term, part, t in zip(g, descended, tau, strict=True)]
        products = apply(x)
        bar = [2 * new - old for new, old in zip(products, state.products, strict=True)]
        new = PrimalDual(x, products, bar, dual, (), ())
        if has_gap:
            return new._replace(back=gradient)
        return new._replace(optimality=_optimality(state, new, tau, sigma)) if optimality else new

    def measure(state):
        objective = _sum(f, "value", state.products) + _sum(g, "value", state.x)
        if not has_gap:
            return objective, state.optimality
        below = [-part for part in state.back]
        return objective, objective + _sum(f, "conjugate", state.dual) + _sum(g, "conjugate", below)

    return Iteration(init, step, lambda state: _like(state.x, operator.domain), measure)


def diagonal_steps(operator: LinearOperator, balance=1.0):
    """Computes the step lengths of the preconditioned method, one a voxel and one a measured number.

    `tau_j = balance / sum_i |K_ij|` and `sigma_i = 1 / (balance sum_j |K_ij|)`, for which
    `||sigma^(1/2) K tau^(1/2)|| <= 1`. No norm is needed, and voxels that few rays see take long steps. Along the
    components of one vector of a `length` term the smallest sigma has to be taken for all.

    Source: T. Pock and A. Chambolle, Diagonal preconditioning for first order primal-dual algorithms (2011),
    Lemma 2 with alpha = 1.

    Args:
        operator: linear operator K with `row_sums` and `column_sums`.
        balance: ratio of the size of the image to that of the dual variables.

    Returns:
        (tau, sigma), trees like the image and the measurement; 1 for empty rows and columns.
    """
    tau = jax.tree.map(lambda s: safe_divide(balance, s, 1.0), operator.column_sums())
    sigma = jax.tree.map(lambda s: safe_divide(1 / balance, s, 1.0), operator.row_sums())
    return tau, sigma


def _spaces(operator):
    return operator.domain, operator.range


def _spread(step, space):
    """A list of step lengths, one a part, each a real number or array of the part's precision."""
    leaves, parts = jax.tree.leaves(step), jax.tree.leaves(space)
    leaves = leaves * len(parts) if len(leaves) == 1 else leaves
    real = [jnp.zeros((), part.dtype).real.dtype for part in parts]
    return [jnp.asarray(leaf, dtype) for leaf, dtype in zip(leaves, real, strict=True)]


def _like(parts, space):
    return jax.tree.unflatten(jax.tree.structure(space), parts)


def _on_lists(operator):
    """The operator between lists of parts."""
    return lambda parts: jax.tree.leaves(operator(_like(parts, operator.domain)))


def _sum(terms, name, parts):
    return sum(getattr(term, name)(part) for term, part in zip(terms, parts, strict=True))


def _optimality(old, new, tau, sigma):
    moves = [(a - b) / t for a, b, t in zip(old.x, new.x, tau, strict=True)]
    for p, q, s, bar, product in zip(old.dual, new.dual, sigma, old.bar, new.products, strict=True):
        moves.append((p - q) / s + bar - product)
    return jnp.sqrt(sum(squared_norm(move) for move in moves))

"""The fast iterative shrinkage-thresholding algorithm for `||A x - y||^2 / 2 + g(x)`."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from pgm_jax.core import safe_divide
from pgm_jax.operators.proximal import root
from pgm_jax.operators.trees import as_kind, tree_axpy, tree_inner
from pgm_jax.reconstruction.functionals import squared_distance
from pgm_jax.reconstruction.iteration import Iteration, run


class Fista(NamedTuple):
    """State of `fista`.

    Attributes:
        x: image.
        product: `A x`.
        ahead: extrapolated image z, from which the next step is taken.
        product_ahead: `A z`.
        momentum: t, which sets the extrapolation.
        objective: `||A x - y||^2 / 2 + g(x)`.
        slope: norm of the generalised gradient at z, `||z - prox(z - grad / L)|| L`.
    """

    x: Any
    product: Any
    ahead: Any
    product_ahead: Any
    momentum: Any
    objective: Any
    slope: Any


def fista(operator, y, term, steps: int = 100, x_init=None, norm=None, *, rtol: Any = 0.0):
    """Minimises `||A x - y||^2 / 2 + g(x)` by monotone FISTA with restarts.

    With `L = ||A||^2` and z the extrapolated image, each step is

        v <- prox_{g / L}(z - A^H (A z - y) / L);  x_new <- v if it is no worse than x, else x
        z <- x_new + t / t_new (v - x_new) + (t - 1) / t_new (x_new - x)

    The objective never rises after the first step. Where the step points against the momentum,
    `Re <z - v, v - x> > 0`, the momentum starts anew, which makes convergence linear on strongly convex
    problems. One A and one A^H a step.

    Sources: A. Beck and M. Teboulle, Fast gradient-based algorithms for constrained total variation image
    denoising and deblurring (2009), equations 5.1 to 5.3; B. O'Donoghue and E. Candes, Adaptive restart for
    accelerated gradient schemes (2015), its gradient scheme.

    Args:
        operator: linear operator A with one array as its measurement.
        y: measurement of the shape of `operator.range`.
        term: `Functional` g of the image, such as `non_negative()` or `absolute(weight)`.
        steps: number of iterations.
        x_init: start; `A^H y / ||A||^2` by default.
        norm: `operator.norm()`, if known; the power iteration's estimate from below is raised by 1 %.
        rtol: tolerance of the stopping rule of `run`, or 0 for all steps.

    Returns:
        (image, `Trace`): objective as above, residual the norm of the generalised gradient, 0 at a minimum.
    """
    return run(fista_iteration(operator, y, term, x_init, norm), steps, rtol=rtol)


def fista_iteration(operator, y, term, x_init=None, norm=None) -> Iteration:
    """Builds the iteration of `fista`.

    Args:
        operator: as in `fista`.
        y: as in `fista`.
        term: as in `fista`.
        x_init: as in `fista`.
        norm: as in `fista`.

    Returns:
        `Iteration` with state `Fista`.
    """
    lipschitz = 1.01 * operator.norm() ** 2 if norm is None else norm**2
    fit = squared_distance(y)

    def init():
        x = safe_divide(operator.adjoint(y), lipschitz) if x_init is None else x_init
        product = operator(x)
        one = jnp.ones((), jnp.real(x).dtype)
        # The first step is taken whatever it costs: the start may violate a constraint, which counts no cost.
        return Fista(x, product, x, product, one, one * jnp.inf, one * jnp.inf)

    def step(state):
        x, product, z = state.x, state.product, state.ahead
        gradient = as_kind(operator.adjoint(state.product_ahead - y), z)
        v = term.prox(z - gradient / lipschitz, 1 / lipschitz)
        product_v = operator(v)
        objective = fit.value(product_v) + term.value(v)
        better = objective <= state.objective
        choose = lambda new, old: jnp.where(better, new, old)
        x_new, product_new = choose(v, x), choose(product_v, product)
        restart = tree_inner(z - v, v - x) > 0
        t_old = jnp.where(restart, 1.0, state.momentum)
        t = 0.5 * (1 + jnp.sqrt(1 + 4 * t_old**2))

        def extrapolate(new, trial, old):
            ahead = tree_axpy(t_old / t, trial - new, new)
            return tree_axpy((t_old - 1) / t, new - old, ahead)

        return Fista(
            x_new,
            product_new,
            extrapolate(x_new, v, x),
            extrapolate(product_new, product_v, product),
            t,
            jnp.where(better, objective, state.objective),
            root(tree_inner(z - v, z - v)) * lipschitz,
        )

    return Iteration(init, step, lambda state: state.x, lambda state: (state.objective, state.slope))

"""Total variation reconstruction by the primal-dual hybrid gradient method."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from pgm_jax.core import safe_divide, squared_norm
from pgm_jax.operators import FiniteDifference


class TVTrace(NamedTuple):
    """Progress of `tv`, one number a step.

    Attributes:
        objective: `||A x - y||^2 / 2 + weight sum ||grad x||_2`, real (steps,).
        residual: `||A x - y||`, real (steps,).
    """

    objective: Array
    residual: Array


def _magnitude(gradient):
    """Computes `sqrt(sum_a |g_a|^2)` over the leading axis, with derivative 0 at 0."""
    square = jnp.sum(jnp.real(gradient) ** 2 + jnp.imag(gradient) ** 2, axis=0)
    positive = square > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1.0)), 0.0)


def tv(operator, y, weight, steps: int = 200, x_init=None, norm=None, gradient=None, balance=1.0):
    """Computes `argmin_x ||A x - y||^2 / 2 + weight sum ||grad x||_2` (isotropic TV).

    The magnitude is that of the gradient vector at each voxel, complex components included. With
    `K = (A; grad)`, `||K||^2 <= ||A||^2 + ||grad||^2`, tau = 0.99 balance / ||K||, sigma = 0.99 / (balance ||K||)
    and theta = 1, each step is

        p <- (p + sigma (A x_bar - y)) / (1 + sigma)             prox of the conjugate of ||. - y||^2 / 2
        q <- (q + sigma grad x_bar) / max(1, |.| / weight)       projection on the ball of radius weight
        x <- x - tau (A^H p + grad^H q);  x_bar <- 2 x_new - x_old

    Products with A and grad are carried along, so a step costs one A and one A^H and the objective is free.

    Source: A. Chambolle and T. Pock, A first-order primal-dual algorithm (2011), Algorithm 1.

    Args:
        operator: linear operator A with one array as its measurement; in `RealImage` for a real image.
        y: measurement of the shape of `operator.range`.
        weight: weight >= 0 of the total variation, in units of y^2 over those of the gradient; for noise of
            level s it is s^2 times the weight of the prior.
        steps: number of iterations.
        x_init: start; `A^H y / ||A||^2` by default.
        norm: `operator.norm()` where the caller has it already, as for a vmap over slices.
        gradient: gradient operator; `FiniteDifference` over all but the channel axis by default.
        balance: ratio of the size of the image to that of the dual variables, about intensity over weight; any
            positive number converges, a good one several times sooner.

    Returns:
        (image, `TVTrace`).
    """
    gradient = FiniteDifference(operator.domain.shape) if gradient is None else gradient
    norm = operator.norm() if norm is None else norm
    x = safe_divide(operator.adjoint(y), norm**2) if x_init is None else x_init
    step = (0.99 / jnp.sqrt(norm**2 + gradient.norm() ** 2)).astype(jnp.real(x).dtype)
    tau, sigma = balance * step, step / balance

    def body(carry, _):
        x, (ax, dx), (ax_bar, dx_bar), (p, q) = carry
        p = (p + sigma * (ax_bar - y)) / (1 + sigma)
        q = q + sigma * dx_bar
        q = q * safe_divide(weight, jnp.maximum(weight, _magnitude(q)))[None]
        x = x - tau * (operator.adjoint(p) + gradient.adjoint(q))
        ax_new, dx_new = operator(x), gradient(x)
        bar = 2 * ax_new - ax, 2 * dx_new - dx
        fit = squared_norm(ax_new - y)
        trace = TVTrace(0.5 * fit + weight * jnp.sum(_magnitude(dx_new)), jnp.sqrt(fit))
        return (x, (ax_new, dx_new), bar, (p, q)), trace

    products = operator(x), gradient(x)
    start = (x, products, products, jax.tree.map(jnp.zeros_like, products))
    (image, *_), trace = jax.lax.scan(body, start, length=steps)
    return image, trace

"""Closed convex functions with what primal-dual methods ask of them: value, proximal maps, conjugate.

The conjugate is `f*(z) = sup_v Re <v, z> - f(v)`; step lengths may be one number or one an entry.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pgm_jax.core import inner, squared_norm
from pgm_jax.operators.proximal import (
    group_shrink,
    magnitude,
    project_balls,
    project_discs,
    soft_threshold,
)


class Functional(NamedTuple):
    """A closed convex function f of one array.

    Attributes:
        value: `v -> f(v)`, a real scalar; a constraint counts 0, also where it is not met.
        prox: `(v, step) -> argmin_u f(u) + |u - v|^2 / (2 step)`.
        dual_prox: `(z, step) -> argmin_u f*(u) + |u - z|^2 / (2 step)`.
        conjugate: `z -> f*(z)`, a real scalar, finite for what `dual_prox` returns.
        is_coercive: whether the conjugate is finite for every z, so that a duality gap exists.
    """

    value: Callable
    prox: Callable
    dual_prox: Callable
    conjugate: Callable
    is_coercive: bool = False


def _indicator(inside):
    return jnp.where(jnp.all(inside), 0.0, jnp.inf)


def _weighted_sum(weight, v):
    # On the CPU a number inside the sum is spread over an array first.
    return weight * jnp.sum(v) if jnp.ndim(weight) == 0 else jnp.sum(weight * v)


def zero() -> Functional:
    """Returns `f(v) = 0`, no term at all; its conjugate is 0 at 0 and infinite elsewhere."""
    return Functional(
        lambda v: jnp.zeros((), jnp.real(v).dtype),
        lambda v, step: v,
        lambda z, step: jnp.zeros_like(z),
        lambda z: _indicator(z == 0),
    )


def non_negative() -> Functional:
    """Returns the constraint `v >= 0` of real arrays."""
    return Functional(
        lambda v: jnp.zeros((), v.dtype),
        lambda v, step: jnp.maximum(v, 0.0),
        lambda z, step: jnp.minimum(z, 0.0),
        lambda z: _indicator(z <= 0),
    )


def box(low, high) -> Functional:
    """Returns the constraint `low <= v <= high` of real arrays.

    Args:
        low: least value, a number or an array that broadcasts against v.
        high: largest value.
    """
    clip = lambda v: jnp.clip(v, low, high)
    return Functional(
        lambda v: jnp.zeros((), v.dtype),
        lambda v, step: clip(v),
        lambda z, step: z - step * clip(z / step),
        lambda z: jnp.sum(jnp.maximum(low * z, high * z)),
        True,
    )


def squared_distance(y) -> Functional:
    """Returns `f(v) = |v - y|^2 / 2`, with conjugate `|z|^2 / 2 + Re <z, y>`.

    For weights w the data are `sqrt(w) y` and the operator `Diagonal(sqrt(w)) @ A`.

    Args:
        y: real or complex array.
    """
    return Functional(
        lambda v: 0.5 * squared_norm(v - y),
        lambda v, step: (v + step * y) / (1 + step),
        lambda z, step: (z - step * y) / (1 + step),
        lambda z: 0.5 * squared_norm(z) + inner(z, y),
        True,
    )


# What rounding leaves outside a ball still counts as inside.
_MARGIN = 1e-4


def absolute(weight) -> Functional:
    """Returns `f(v) = sum weight |v|`, anisotropic total variation of a gradient and the l1 norm of coefficients.

    Args:
        weight: number >= 0, or array that broadcasts against v.
    """
    return Functional(
        lambda v: _weighted_sum(weight, magnitude(v)),
        lambda v, step: soft_threshold(v, step * weight),
        lambda z, step: project_discs(z, weight),
        lambda z: _indicator(magnitude(z) <= (1 + _MARGIN) * weight),
    )


def length(weight, axis: int = 0) -> Functional:
    """Returns `f(v) = sum weight ||v||_2` over vectors along one axis, isotropic total variation of a gradient.

    The step length must be the same for all components of a vector.

    Args:
        weight: number >= 0, or array that broadcasts against v without the axis.
        axis: axis of the components.
    """

    def shrink(v, step):
        step = jnp.squeeze(step, axis) if jnp.ndim(step) == jnp.ndim(v) else step
        return group_shrink(v, step * weight, axis)

    return Functional(
        lambda v: _weighted_sum(weight, magnitude(v, axis)),
        shrink,
        lambda z, step: project_balls(z, weight, axis),
        lambda z: _indicator(magnitude(z, axis) <= (1 + _MARGIN) * weight),
    )


def around(term: Functional, centre) -> Functional:
    """Returns `v -> f(v - centre)`, with conjugate `f*(z) + Re <z, centre>`.

    Args:
        term: `Functional` f.
        centre: array like v.
    """
    return Functional(
        lambda v: term.value(v - centre),
        lambda v, step: centre + term.prox(v - centre, step),
        lambda z, step: term.dual_prox(z - step * centre, step),
        lambda z: term.conjugate(z) + inner(z, centre),
        term.is_coercive,
    )


def term_list(terms, space, role: str) -> list:
    """Lists the terms of a sum, one for each part of an image or measurement.

    Args:
        terms: a `Functional`, a sequence of them, or None for no term at all.
        space: domain or range of the operator.
        role: what it is, such as "image", for the message.

    Returns:
        List of `Functional`.

    Raises:
        ValueError: if their number is not that of the parts.
    """
    parts = len(jax.tree.leaves(space))
    if terms is None:
        return [zero()] * parts
    terms = [terms] if isinstance(terms, Functional) else list(terms)
    if len(terms) != parts:
        raise ValueError(f"got {len(terms)} terms for the {parts} parts of the {role}: give one for each")
    return terms

"""Prior image constrained compressed sensing: total variation of what differs from a reference image."""

from typing import Any

import jax.numpy as jnp

from pgm_jax.operators import FiniteDifference, stack
from pgm_jax.reconstruction.functionals import around, length, non_negative, squared_distance
from pgm_jax.reconstruction.iteration import run
from pgm_jax.reconstruction.primal_dual import pdhg_iteration
from pgm_jax.reconstruction.tv import natural_balance, scaled_steps


def piccs(
    operator,
    y,
    reference,
    weight,
    share=0.5,
    steps: int = 200,
    x_init=None,
    norm=None,
    balance=None,
    *,
    keep_positive: bool = False,
    rtol: Any = 0.0,
):
    """Computes `argmin_x |A x - y|^2 / 2 + weight sum(share |grad(x - reference)| + (1 - share) |grad x|)`.

    The data correct the reference where they must, and what is not measured follows it up to a sparse difference:
    the image after a network's, for which a quadratic distance would keep all that no sample sees. `share = 0` is
    `tv`. Solved by the primal-dual iteration of `tv`, with a second gradient term.

    Source: G.-H. Chen, J. Tang and S. Leng, Prior image constrained compressed sensing (2008), Eq. 3, here with
    noise in the data.

    Args:
        operator: linear operator A with one array as its measurement; in `RealImage` for a real image.
        y: measurement of the shape of `operator.range`.
        reference: image of the shape of `operator.domain`, such as an earlier scan or a network's image.
        weight: weight >= 0 of the variation, in units of y^2 over those of the gradient.
        share: share of the difference from the reference, from 0 to 1.
        steps: number of iterations.
        x_init: start; the reference by default.
        norm: `operator.norm()`, if known.
        balance: as in `tv`; None is `natural_balance` of what the data add to the reference.
        keep_positive: whether the image, a real one, is kept at or above 0.
        rtol: tolerance of the stopping rule of `run`, or 0 for all steps.

    Returns:
        (image, `Trace`): objective as above, residual `|A x - y|`.

    Raises:
        ValueError: for a reference of another shape.
    """
    if jnp.shape(reference) != operator.domain.shape:
        raise ValueError(
            f"The reference has shape {jnp.shape(reference)} and the operator's images {operator.domain.shape}: "
            "resample it to their grid."
        )
    gradient = FiniteDifference(operator.domain.shape)
    norm = operator.norm() if norm is None else norm
    balance = natural_balance(operator, y - operator(reference), weight) if balance is None else balance
    fit = squared_distance(y)
    terms = fit, around(length(share * weight), gradient(reference)), length((1 - share) * weight)
    iteration = pdhg_iteration(
        stack(operator, gradient, gradient),
        terms,
        non_negative() if keep_positive else None,
        x_init=reference if x_init is None else x_init,
        step_sizes=scaled_steps(norm, 2**0.5 * gradient.norm(), balance, 2),
        optimality=False,
    )

    def measure(state):
        half, *penalties = (term.value(part) for term, part in zip(terms, state.products, strict=True))
        return half + sum(penalties), jnp.sqrt(2 * half)

    return run(iteration._replace(measure=measure), steps, rtol=rtol)

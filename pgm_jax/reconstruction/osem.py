"""Ordered-subsets expectation maximisation for emission data, binned or by list of events."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from pgm_jax.core import safe_divide
from pgm_jax.operators.poisson import PoissonEmission
from pgm_jax.operators.subset_order import subset_order
from pgm_jax.reconstruction.iteration import Iteration, run
from pgm_jax.reconstruction.mlem import emission_start


class _State(NamedTuple):
    """Image, and the counts that the last pass moved."""

    image: Array
    moved: Array


def balanced_subsets(operator) -> int:
    """Returns the number of ordered subsets of an operator.

    Args:
        operator: linear operator with one array as its measurement.

    Returns:
        Number of subsets.

    Raises:
        ValueError: if the subsets differ in size: their sensitivities would, and the image would cycle with them.
    """
    subsets, rows = operator.subsets, operator.range.shape[0]
    if rows % subsets:
        divisors = [n for n in range(1, min(rows, 64) + 1) if rows % n == 0]
        raise ValueError(
            f"{subsets} subsets of {rows} views or events differ in size: use one of {divisors} subsets"
        )
    return subsets


def osem_iteration(likelihood, x_init=None) -> Iteration:
    """Builds the OSEM iteration of an emission likelihood; one step is a pass over every subset.

    A pass costs one A and one A^T, and one more A for the objective.

    Args:
        likelihood: `PoissonEmission` or `ListModeEmission` of an operator with subsets.
        x_init: start, see `mlem`.

    Returns:
        `Iteration`.

    Raises:
        ValueError: if the subsets differ in size.
    """
    subsets = balanced_subsets(likelihood.operator)
    part = likelihood.subset if subsets > 1 else lambda i: likelihood
    order = jnp.asarray(subset_order(subsets, "herman_meyer"))
    sensitivity = likelihood.sensitivities()
    shares = jax.lax.map(lambda i: part(i).sensitivities(), order)

    def init():
        x = emission_start(likelihood, sensitivity, x_init)
        return _State(x, jnp.sum(sensitivity * x))

    def update(x, visit):
        i, share = visit
        # A voxel that this subset does not see waits for the next one that does.
        return jnp.where(share > 0, safe_divide(part(i).expectation(x), share), x), None

    def step(state):
        x, _ = jax.lax.scan(update, state.image, (order, shares))
        return _State(x, jnp.sum(sensitivity * jnp.abs(x - state.image)))

    def measure(state):
        return likelihood.log_prob(state.image), state.moved

    return Iteration(init, step, lambda state: state.image, measure)


def osem(operator, y, steps: int = 4, *, background=0.0, x_init=None, rtol=0.0):
    """Approaches the maximum of `ln p(y | x)` by EM steps on one subset of the views after another.

        x <- x / (A_i^T 1) A_i^T(y_i / (A_i x + b_i)),   i over the subsets of `operator`

    About as many times faster than `mlem` as there are subsets, in early passes; it ends in a cycle near the
    maximum, not at it. One subset is `mlem`. Each subset has its own sensitivity, kept for the whole run;
    they are visited in the order of Herman and Meyer.

    Source: H. M. Hudson and R. S. Larkin, Accelerated image reconstruction using ordered subsets of
    projection data, IEEE TMI 13 (1994).

    Args:
        operator: linear operator A without negative elements, built with `subsets`; they must be of one size.
        y: counts, of the shape of `operator.range`.
        steps: number of passes over all subsets, the largest one if rtol > 0.
        background: b, expected randoms and scatter, broadcasts to y.
        x_init: start, see `mlem`.
        rtol: tolerance of the stopping rule of `run`; 0 for none.

    Returns:
        (image, `Trace`) as for `mlem`, one entry a pass; the objective may fall.

    Raises:
        ValueError: if the subsets differ in size, or for wrong counts, see `PoissonEmission.create`.
    """
    balanced_subsets(operator)
    likelihood = PoissonEmission.create(operator, y, background)
    return run(osem_iteration(likelihood, x_init), steps, rtol=rtol)

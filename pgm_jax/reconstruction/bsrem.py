"""Penalised maximum likelihood for emission data: block-sequential regularised EM."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from pgm_jax.core import safe_divide
from pgm_jax.operators.poisson import PoissonEmission
from pgm_jax.operators.subset_order import subset_order
from pgm_jax.reconstruction.iteration import Iteration, run
from pgm_jax.reconstruction.mlem import emission_start
from pgm_jax.reconstruction.osem import balanced_subsets

# Voxels below this share of the largest start value step as if they were there, so that 0 is no trap.
_LOWEST = 1e-3


class _State(NamedTuple):
    """Image, number of passes done, and the counts that the last one moved."""

    image: Array
    passes: Array
    moved: Array


def bsrem_iteration(likelihood, prior, weight, relaxation=0.1, x_init=None) -> Iteration:
    """Builds the BSREM iteration; one step is a pass over every subset.

    Args:
        likelihood: `PoissonEmission` or `ListModeEmission`, of an operator with subsets or without.
        prior: roughness penalty with `value`, `grad` and `curvature`.
        weight: beta >= 0, see `bsrem`.
        relaxation: g >= 0, see `bsrem`.
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
    start = emission_start(likelihood, sensitivity, x_init)
    lowest = _LOWEST * jnp.max(start)

    def init():
        return _State(start, jnp.zeros((), start.dtype), jnp.sum(sensitivity * start))

    def step(state):
        length = 1 / (1 + relaxation * state.passes)

        def update(x, i):
            lifted = jnp.maximum(x, lowest)
            curvature = safe_divide(sensitivity, lifted) + weight * prior.curvature(lifted)
            gradient = subsets * part(i).grad(x) - weight * prior.grad(x)
            return jnp.maximum(x + length * safe_divide(gradient, curvature), 0.0), None

        x, _ = jax.lax.scan(update, state.image, order)
        return _State(x, state.passes + 1, jnp.sum(sensitivity * jnp.abs(x - state.image)))

    def measure(state):
        return likelihood.log_prob(state.image) - weight * prior.value(state.image), state.moved

    return Iteration(init, step, lambda state: state.image, measure)


def bsrem(
    operator, y, prior, weight, steps: int = 50, *, background=0.0, relaxation=0.1, x_init=None, rtol=0.0
):
    """Maximises `ln p(y | x) - beta R(x)` over x >= 0 by relaxed, preconditioned steps on ordered subsets.

        x <- max(0, x + D(x) / (1 + g k) (n grad_i ln p - beta grad R)),   D(x) = 1 / (s / x + beta R''(x))

    k counts passes, n subsets, s is the sensitivity. At beta = 0, g = 0 and one subset a step is that of EM;
    the curvature R'' of the penalty in D keeps strong penalties stable. With g > 0 the steps shrink, so the
    subsets agree in the limit, which OSEM's do not. Voxels of zero sensitivity are filled by the penalty.

    Source: A. R. De Pierro and M. E. B. Yamagishi, Fast EM-like methods for maximum a posteriori estimates in
    emission tomography, IEEE TMI 20 (2001), and S. Ahn and J. A. Fessler, Globally convergent image
    reconstruction for emission tomography using relaxed ordered subsets algorithms, IEEE TMI 22 (2003).

    Args:
        operator: linear operator A without negative elements; its `subsets` must be of one size.
        y: counts, of the shape of `operator.range`.
        prior: roughness penalty R, such as `RelativeDifference` or `Quadratic`.
        weight: beta >= 0, in nats over the units of R (those of the image for `RelativeDifference`).
        steps: number of passes over all subsets, the largest one if rtol > 0.
        background: b, expected randoms and scatter, broadcasts to y.
        relaxation: g >= 0; 0 is right for one subset.
        x_init: start, see `mlem`; a pass or two of `osem` is a good one.
        rtol: tolerance of the stopping rule of `run`; 0 for none.

    Returns:
        (image, `Trace`): objective `ln p(y | x) - beta R(x)`, which rises but for small cycles, and the counts
        that a pass moved, as for `mlem`.

    Raises:
        ValueError: if the subsets differ in size, or for wrong counts, see `PoissonEmission.create`.
    """
    balanced_subsets(operator)
    likelihood = PoissonEmission.create(operator, y, background)
    return run(bsrem_iteration(likelihood, prior, weight, relaxation, x_init), steps, rtol=rtol)

"""Maximum likelihood for transmission data: ML-TR and separable paraboloidal surrogates."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from pgm_jax.core import safe_divide
from pgm_jax.operators.transmission import PoissonTransmission
from pgm_jax.reconstruction.iteration import Iteration, run


class _State(NamedTuple):
    """Image, its line integrals `A x`, and the length of the last step."""

    image: Array
    lengths: Array
    moved: Array


def _iteration(likelihood, weights, x_init):
    operator = likelihood.operator
    rows = operator.row_sums()

    def init():
        x = jnp.zeros(operator.domain.shape, operator.domain.dtype) if x_init is None else x_init
        x = jnp.asarray(x, operator.domain.dtype)
        return _State(x, operator(x), jnp.linalg.norm(x))

    def step(state):
        gradient = operator.adjoint(likelihood.slope(state.lengths))
        curvature = operator.adjoint(weights(state.lengths) * rows)
        x = jnp.maximum(state.image + safe_divide(gradient, curvature), 0.0)
        return _State(x, operator(x), jnp.linalg.norm(x - state.image))

    def measure(state):
        return likelihood.log_prob_at(state.lengths), state.moved

    return Iteration(init, step, lambda state: state.image, measure)


def mltr_iteration(likelihood, x_init=None) -> Iteration:
    """Builds the ML-TR iteration of a `PoissonTransmission`; one A and two A^T a step, see `mltr`.

    Args:
        likelihood: `PoissonTransmission`.
        x_init: start; 0 by default.

    Returns:
        `Iteration`.
    """
    return _iteration(likelihood, likelihood.information_weights, x_init)


def mltr(operator, y, blank, steps: int = 50, *, background=0.0, x_init=None, rtol=0.0):
    """Maximises `ln p(y | x)`, `y ~ Poisson(I0 exp(-A x) + r)`, over x >= 0 by scaled gradient ascent.

        x <- max(0, x + A^T(p - y p / (p + r)) / A^T((A 1) p^2 / (p + r))),   p = I0 exp(-A x)

    Fast, and in practice rising; `paraboloids` is the slower relative that provably rises. Rays without a
    photon take part like all others, which no method on logarithms can say.

    Source: J. Nuyts et al., Iterative reconstruction for helical CT: a simulation study, PMB 43 (1998), with
    the background in mean and curvature.

    Args:
        operator: linear operator A in mm without negative elements, such as `ParallelBeam`.
        y: photon counts, of the shape of `operator.range`.
        blank: I0, expected counts without an object, broadcasts to y.
        steps: number of steps, the largest one if rtol > 0.
        background: r, expected scatter and dark counts, broadcasts to y.
        x_init: start >= 0; 0 by default.
        rtol: tolerance of the stopping rule of `run`; 0 for none.

    Returns:
        (image, `Trace`): attenuation in 1/mm; objective `ln p(y | x)`, which rises, and as residual the length
        of the step, `||x_k - x_(k-1)||` (`||x||` for the start).

    Raises:
        ValueError: for counts that are negative or not finite, see `PoissonTransmission.create`.
    """
    likelihood = PoissonTransmission.create(operator, y, blank, background)
    return run(mltr_iteration(likelihood, x_init), steps, rtol=rtol)


def paraboloids_iteration(likelihood, x_init=None) -> Iteration:
    """Builds the iteration of `paraboloids`; one A and two A^T a step.

    Args:
        likelihood: `PoissonTransmission`.
        x_init: start; 0 by default.

    Returns:
        `Iteration`.
    """
    return _iteration(likelihood, likelihood.curvature_weights, x_init)


def paraboloids(operator, y, blank, steps: int = 50, *, background=0.0, x_init=None, rtol=0.0):
    """Maximises `ln p(y | x)`, `y ~ Poisson(I0 exp(-A x) + r)`, by separable paraboloidal surrogates.

        x <- max(0, x + A^T(p - y p / (p + r)) / A^T(c A 1)),   c of `PoissonTransmission.curvature`

    Each step maximises a separable parabola that lies below `ln p` on x >= 0 and touches it at x, so `ln p`
    never falls, with background too, where it is not concave.

    Source: H. Erdogan and J. A. Fessler, Ordered subsets algorithms for transmission tomography, PMB 44
    (1999), with the optimal curvatures of their monotonic algorithm.

    Args:
        operator: linear operator A in mm without negative elements, such as `ParallelBeam`.
        y: photon counts, of the shape of `operator.range`.
        blank: I0, expected counts without an object, broadcasts to y.
        steps: number of steps, the largest one if rtol > 0.
        background: r, expected scatter and dark counts, broadcasts to y.
        x_init: start >= 0; 0 by default.
        rtol: tolerance of the stopping rule of `run`; 0 for none.

    Returns:
        (image, `Trace`) as for `mltr`.

    Raises:
        ValueError: for counts that are negative or not finite, see `PoissonTransmission.create`.
    """
    likelihood = PoissonTransmission.create(operator, y, blank, background)
    return run(paraboloids_iteration(likelihood, x_init), steps, rtol=rtol)

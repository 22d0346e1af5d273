"""Maximum-likelihood expectation maximisation for emission data, binned or by list of events."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from pgm_jax.core import safe_divide
from pgm_jax.operators.emission.list_mode_likelihood import ListModeEmission
from pgm_jax.operators.poisson import PoissonEmission
from pgm_jax.reconstruction.iteration import Iteration, run


class _State(NamedTuple):
    """Image, its expected counts `A x + b`, and the counts that the last step moved."""

    image: Array
    mean: Any
    moved: Array


def emission_start(likelihood, sensitivity, x_init=None):
    """Returns the start of an EM method, 0 where the sensitivity is 0.

    Args:
        likelihood: emission likelihood.
        sensitivity: its sensitivity image.
        x_init: image > 0 where the method may find activity, or None for the flat image that explains every
            count.

    Returns:
        Image.
    """
    if x_init is None:
        return likelihood.flat(sensitivity)
    return jnp.where(sensitivity > 0, jnp.asarray(x_init, sensitivity.dtype), 0.0)


def mlem_iteration(likelihood, x_init=None) -> Iteration:
    """Builds the ML-EM iteration of an emission likelihood, `x <- x / s A^T(y / (A x + b))`.

    One A and one A^T a step; what the trace needs is on the way.

    Args:
        likelihood: `PoissonEmission` or `ListModeEmission`.
        x_init: start, see `mlem`.

    Returns:
        `Iteration`.
    """
    sensitivity = likelihood.sensitivities()

    def init():
        x = emission_start(likelihood, sensitivity, x_init)
        return _State(x, likelihood.mean(x), jnp.sum(sensitivity * x))

    def step(state):
        counts = likelihood.expectation(state.image, state.mean)
        x = safe_divide(counts, sensitivity)
        moved = jnp.sum(jnp.abs(counts - sensitivity * state.image))
        return _State(x, likelihood.mean(x), moved)

    def measure(state):
        return likelihood.log_prob_at(state.mean, state.image), state.moved

    return Iteration(init, step, lambda state: state.image, measure)


def mlem(operator, y, steps: int = 50, *, background=0.0, x_init=None, rtol=0.0):
    """Maximises `ln p(y | x)`, `y ~ Poisson(A x + b)`, over x >= 0 by expectation maximisation.

        x <- x / (A^T 1) A^T(y / (A x + b))

    The likelihood never falls, and at b = 0 every iterate explains the measured total, `sum A x = sum y`.
    Voxels of zero sensitivity are 0; voxels at 0 stay there. More steps fit more noise: stop early, or use
    `bsrem` with a prior.

    Source: L. A. Shepp and Y. Vardi, Maximum likelihood reconstruction for emission tomography, IEEE TMI 1
    (1982).

    Args:
        operator: linear operator A without negative elements, such as `PET` or `SPECT`.
        y: counts, of the shape of `operator.range`.
        steps: number of steps, the largest one if rtol > 0.
        background: b, expected randoms and scatter, broadcasts to y.
        x_init: start, above 0 wherever activity may be found; the flat image that explains every count by
            default.
        rtol: tolerance of the stopping rule of `run`; 0 for none.

    Returns:
        (image, `Trace`): image in units of y over those of A; objective `ln p(y | x)`, which rises, and as
        residual the counts that the step moved, `sum s |x_k - x_(k-1)|` (all of them for the start).

    Raises:
        ValueError: for counts that are negative or not finite, see `PoissonEmission.create`.
    """
    likelihood = PoissonEmission.create(operator, y, background)
    return run(mlem_iteration(likelihood, x_init), steps, rtol=rtol)


def list_mode_mlem(operator, sensitivity, steps: int = 50, *, background=0.0, x_init=None, rtol=0.0):
    """Maximises the likelihood of a list of events by expectation maximisation.

        x <- x / s A^T(1 / (A x + b)),   one row of A an event

    The same iterates as `mlem` of the binned events.

    Source: L. Parra and H. H. Barrett, List-mode likelihood: EM algorithm and image quality estimation
    demonstrated on 2-D PET, IEEE TMI 17 (1998).

    Args:
        operator: linear operator A of the events, such as `ListModePET`.
        sensitivity: s, image: `A^T 1` over every line on which the scanner could have recorded an event.
        steps: number of steps, the largest one if rtol > 0.
        background: expected randoms and scatter on the line of each event.
        x_init: start, see `mlem`.
        rtol: tolerance of the stopping rule of `run`; 0 for none.

    Returns:
        (image, `Trace`) as for `mlem`; the objective leaves out the constant `sum b`.
    """
    likelihood = ListModeEmission.create(operator, sensitivity, background)
    return run(mlem_iteration(likelihood, x_init), steps, rtol=rtol)

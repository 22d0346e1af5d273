"""The data step of DDS, DiffPIR and MCG: a proximal map, or a projection on the data where they have no noise."""

import math

import jax
import jax.numpy as jnp

from pgm_jax.core import safe_divide
from pgm_jax.operators import GaussianLikelihood
from pgm_jax.operators.trees import as_kind, tree_axpy, tree_inner


def towards_data(likelihood, x0, variance, steps: int):
    """Moves a clean image towards the data by conjugate gradients.

    Args:
        likelihood: any likelihood with a proximal map; a linear Gaussian one, or a sum, without noise.
        x0: clean image.
        variance: assumed variance of x0; the Python number inf trusts the data alone.
        steps: number of steps.

    Returns:
        Image like x0: `likelihood.prox`, or `project` for an infinite variance or a noise_std that is known to
        be 0.
    """
    level = likelihood.noise_std if isinstance(likelihood, GaussianLikelihood) else None
    noiseless = level is not None and not isinstance(level, jax.core.Tracer) and float(level) == 0
    if noiseless or (isinstance(variance, float) and math.isinf(variance)):
        return project(likelihood, x0, steps)
    return likelihood.prox(x0, variance, steps)


def project(likelihood, x0, steps: int):
    """Projects an image on the data, `x0 + A^+ (y - A x0)`, by conjugate gradients on the least squares.

    The iterates are those of CG on `A^H w A v = A^H w y` from x0. The residual is carried in data space and the
    iteration stops where its gradient is rounding, `|A^H r| <= 10 eps |A| |r|`: in image space the rounding of an
    image that fits already has parts that A does not see, and steps along them have no bound.

    Args:
        likelihood: linear Gaussian likelihood; the noise levels of a sum weigh its parts, that of one is not read.
        x0: image, real or complex.
        steps: largest number of steps; exact after as many as there are data.

    Returns:
        Image like x0.
    """
    forward, backward, residual = _stacked(likelihood, x0)
    eps = 10 * jnp.finfo(x0.dtype).eps

    def step(_, carry):
        x, residual, direction, square, largest = carry
        image = forward(direction)
        size, length = tree_inner(image, image), tree_inner(direction, direction)
        # |A|^2 from below, by the Rayleigh quotients met so far.
        largest = jnp.maximum(largest, safe_divide(size, length))
        live = square > eps**2 * largest * tree_inner(residual, residual)
        masked = lambda value: jnp.where(live, value, 0.0)
        rate = safe_divide(masked(square), masked(size))
        x, residual = tree_axpy(rate, direction, x), tree_axpy(-rate, image, residual)
        gradient = backward(residual)
        following = tree_inner(gradient, gradient)
        direction = tree_axpy(safe_divide(masked(following), masked(square)), direction, gradient)
        return x, residual, direction, following, largest

    gradient = backward(residual)
    square = tree_inner(gradient, gradient)
    start = (x0, residual, gradient, square, jnp.zeros_like(square))
    return jax.lax.fori_loop(0, steps, step, start)[0]


def _stacked(likelihood, x0):
    """Returns A and A^H of all measurements, whitened up to a factor, and the residual of x0."""
    single = isinstance(likelihood, GaussianLikelihood)
    parts = (likelihood,) if single else getattr(likelihood, "parts", (likelihood,))
    forwards, backwards, variances, scales = zip(*(part.data_terms() for part in parts), strict=True)
    weights = [1.0 if single else 1 / jnp.sqrt(variance) for variance in variances]
    terms = list(zip(weights, forwards, backwards, scales, strict=True))

    def forward(x):
        return tuple(weight * measure(x) for weight, measure, _, _ in terms)

    def backward(r):
        images = (weight * adjoint(part) for (weight, _, adjoint, _), part in zip(terms, r, strict=True))
        return as_kind(sum(images), x0)

    residual = tuple(
        weight * scale(part.residual(x0)) for (weight, *_, scale), part in zip(terms, parts, strict=True)
    )
    return forward, backward, residual

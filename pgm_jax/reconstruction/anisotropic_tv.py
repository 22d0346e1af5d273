"""Anisotropic total variation with a weight for each direction, for limited-angle scans."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from pgm_jax.operators import FiniteDifference
from pgm_jax.operators.directional import DirectionalDifference
from pgm_jax.reconstruction.functionals import absolute
from pgm_jax.reconstruction.iteration import run
from pgm_jax.reconstruction.tv import natural_balance, regularised_iteration


def anisotropic_tv(
    operator,
    y,
    weights,
    angles=None,
    steps: int = 300,
    x_init=None,
    norm=None,
    balance=None,
    *,
    keep_positive: bool = False,
    rtol: Any = 0.0,
):
    """Computes `argmin_x ||A x - y||^2 / 2 + sum_d weights_d sum |D_d x|`.

    The directions d are the axes of the image, or given angles. Over a limited angle the detail along the missing
    directions is not measured, and an equal weight would flatten it along with the noise: `coverage_weights`
    gives the measured directions the larger weight.

    Source: Z. Chen, X. Jin, L. Li and G. Wang, A limited-angle CT reconstruction method based on anisotropic TV
    minimization, Phys. Med. Biol. 58 (2013), in the form `sum_d w_d |D_d x|`.

    Args:
        operator: linear operator A with one array as its measurement; in `RealImage` for a real image.
        y: measurement of the shape of `operator.range`.
        weights: weight >= 0 of each direction, (directions,), or one number; in units as in `tv`.
        angles: directions (cos, sin) in the (x, y) plane of a 2-D image, radians, (directions,); the spatial axes
            of the image in their order, (y, x) or (z, y, x), by default.
        steps: number of iterations, each one A and one A^H.
        x_init: start; `A^H y / ||A||^2` by default.
        norm: `operator.norm()`, if known.
        balance: ratio of the size of the image to that of the dual variables, as in `tv`.
        keep_positive: whether the image, a real one, is kept at or above 0.
        rtol: tolerance of the stopping rule of `run`, or 0 for all steps.

    Returns:
        (image, `Trace`): objective as above, residual `||A x - y||`.

    Raises:
        ValueError: if the number of weights is not that of the directions.
    """
    shape = operator.domain.shape
    difference = FiniteDifference(shape) if angles is None else DirectionalDifference.at_angles(shape, angles)
    directions = difference.range.shape[0]
    weights = jnp.asarray(weights, jnp.result_type(float))
    if weights.shape not in ((), (directions,)):
        raise ValueError(
            f"anisotropic_tv got weights of shape {weights.shape} for {directions} directions: give one for each"
        )
    if weights.ndim == 1:
        weights = jnp.expand_dims(weights, range(1, 1 + len(shape)))
    balance = natural_balance(operator, y, weights) if balance is None else balance
    iteration = regularised_iteration(
        operator, y, difference, absolute(weights), x_init, norm, balance, keep_positive=keep_positive
    )
    return run(iteration, steps, rtol=rtol)


def coverage_weights(view_angles, angles, least=0.1) -> np.ndarray:
    """Computes relative weights of directions from how densely a parallel-beam scan measures them.

    A view at angle t measures the detail along (cos t, sin t). Every view is counted for the nearest of the given
    directions, modulo pi, and the counts are divided by the largest.

    Args:
        view_angles: angles of the scan, radians.
        angles: directions as in `anisotropic_tv`, evenly spaced over pi, radians.
        least: weight of directions that are not measured at all, in [0, 1].

    Returns:
        Host array (directions,) in [least, 1]; to be multiplied by the weight of the regularisation.
    """
    gaps = np.mod(np.asarray(view_angles)[:, None] - np.asarray(angles)[None], np.pi)
    nearest = np.argmin(np.minimum(gaps, np.pi - gaps), axis=1)
    counts = np.bincount(nearest, minlength=len(angles))
    return np.maximum(counts / counts.max(), least)

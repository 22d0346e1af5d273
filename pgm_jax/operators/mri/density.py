"""Density compensation of any trajectory, by the method of Pipe and Menon."""

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax.core import safe_divide
from pgm_jax.operators.mri.gridding import interpolate, spread
from pgm_jax.operators.mri.kaiser_bessel import kaiser_bessel_transform, shape_parameter


def pipe_menon(transform, steps: int = 30):
    """Finds the k-space area of each sample by the fixed point `w <- w / (C w)`.

    C spreads the weights on the oversampled grid with the window of the NUFFT and interpolates them back,
    scaled so that `C w = 1` where samples of area w cover k-space evenly. For a smooth object 30 steps leave an
    error of about 5e-3 in `gridding`, 100 steps 1e-3.

    Source: J. G. Pipe, P. Menon, Sampling density compensation in MRI: rationale and an iterative numerical
    solution, MRM 41 (1999), Eq. 7.

    Args:
        transform: `NUFFT` of the trajectory.
        steps: number of iterations.

    Returns:
        Real array of the shape of the samples, area in (cycles per field of view)^d; see `Trajectory`.
    """
    scale = 1.0
    for n, g in zip(transform.shape, transform.grid, strict=True):
        window = kaiser_bessel_transform(0.0, transform.width, shape_parameter(transform.width, g / n))
        # Two passes of the window; its first integral is over k, of which a grid point holds n / g.
        scale *= float(window) ** 2 * n / g
    static = {"grid": transform.grid, "width": transform.width}

    def step(_, w):
        covered = interpolate(transform.tables, spread(transform.tables, w, **static), **static)
        return safe_divide(w, covered / np.asarray(scale, w.dtype))

    start = jnp.ones((int(np.prod(transform.points)), 1), transform.correction[0].dtype)
    return jax.lax.fori_loop(0, steps, step, start).reshape(transform.points)

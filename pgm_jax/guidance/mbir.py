"""Model-based reconstruction of volumes: ADMM with total variation across slices, its duals carried along."""

import jax
import jax.numpy as jnp

from pgm_jax.core import safe_divide
from pgm_jax.guidance.likelihoods import clean_variance
from pgm_jax.guidance.makers import correct
from pgm_jax.guidance.requirements import require_noise
from pgm_jax.operators import FiniteDifference, conjugate_gradient, soft_threshold
from pgm_jax.operators.trees import as_kind


def mbir(
    likelihood,
    weight=0.04,
    rho=10.0,
    *,
    axis=0,
    steps=1,
    iterations=1,
    boundary="neumann",
    keep_noise=True,
    gamma=None,
):
    """Makes DiffusionMBIR's ADMM step (Chung et al. 2023; review Eq. 31, corrected) across the slices of a volume.

    For `min_x -ln p(y | x) + weight |D x|_1`, D the forward difference along one axis, each evaluation takes

        x <- a few CG steps from x0 on (A^H A / s^2 + rho D^H D) x = A^H y / s^2 + rho D^H (z - w),
        z <- soft(D x + w, weight / rho),    w <- w + D x - z,

    with z and w kept from evaluation to evaluation as the guidance's state, zero at the start. The data term is
    the likelihood's: the published values (rho 10, weight 0.04, one CG step) are those of noise_std 1. The
    denoiser may be two-dimensional, vmapped over slices. Valid for every noise law.

    With `gamma`, the variance of the clean volume around the network's as in `dds`, the data term gains
    `|x - x0|^2 / (2 gamma)`: the network is then a term of the minimum and not its start alone.

    Biased: without gamma many CG steps on a full-rank operator forget the network;
    the end is near a total variation minimum, and its spread is not the posterior's: .9 standard deviations
    and 73 % on the Gaussian case of `pigdm` with weight .3, rho 1 and 100 steps.

    Args:
        likelihood: linear Gaussian likelihood of the volume (depth, height, width, channel), or a sum.
        weight: strength of the total variation, in nats per unit of the image.
        rho: penalty of the splitting, in nats per squared unit.
        axis: axis across which the slices are joined; the depth by default.
        steps: CG steps of an ADMM iteration, 5 in DDS-3D.
        iterations: ADMM iterations at each evaluation.
        boundary: "neumann", or "periodic" as published, which couples head and feet.
        keep_noise: True keeps the noise of the uncorrected volume (DDS-3D); False keeps the state.
        gamma: None as published, or a number or a function `(process, t) -> variance`.

    Returns:
        A guidance.

    Raises:
        ValueError: for a noise_std of 0, or a weight or rho that is not positive.
    """
    require_noise(likelihood, "mbir")
    for name, value in (("weight", weight), ("rho", rho)):
        if isinstance(value, (int, float)) and not value > 0:
            raise ValueError(
                f"mbir needs {name} > 0, got {value}: use dds for a volume without total variation."
            )

    def difference(x):
        return FiniteDifference(tuple(x.shape), axes=(axis,), boundary=boundary)

    def init(x_t):
        zeros = jnp.zeros((1, *x_t.shape), x_t.dtype)
        return zeros, zeros

    def update(key, process, x0, t, state):
        anchor = 0.0 if gamma is None else safe_divide(1.0, clean_variance(gamma, process, t))
        admm = _admm(likelihood, difference(x0), weight, rho, steps, anchor, anchor * x0)
        return jax.lax.fori_loop(0, iterations, lambda _, carry: admm(*carry), (x0, state))

    return correct(update, init, keep_noise=keep_noise)


def _admm(likelihood, difference, weight, rho, steps, anchor, pull):
    normal, right = likelihood.normal_equations()

    def iteration(x, state):
        split, dual = state
        matvec = lambda v: as_kind(normal(v), v) + rho * difference.gram(v) + anchor * v
        target = as_kind(right, x) + rho * difference.adjoint(split - dual) + pull
        x, _ = conjugate_gradient(matvec, target, x, steps=steps)
        shifted = difference(x) + dual
        split = soft_threshold(shifted, weight / rho)
        return x, (split, shifted - split)

    return iteration

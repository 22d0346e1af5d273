"""Poisson flow processes: PFGM++ and PFGM as affine processes with Student-t noise."""

from pgm_jax.processes import schedules
from pgm_jax.processes.affine import Affine
from pgm_jax.processes.student_t import StudentT


def PFGMpp(D, event_axes=None):
    """Builds PFGM++ in EDM's frame: `x_t = x0 + t noise`, Student-t noise, r = t sqrt(D) (Xu et al. 2023).

    The electric field lines of N-dimensional data in N + D dimensions, by the alignment r = sigma sqrt(D) of
    the review's Sec. 2.5.1: the denoiser's flow `dx / dt = (x - x0) / t` is review Eq. 13. `D = math.inf`
    has the Normal law and is EDM; `D = 1` is PFGM in denoiser form.

    Args:
        D: dimension of the augmented space, any positive real; may be traced, except for infinity.
        event_axes: axes of the image that share one radius; see `StudentT`.

    Returns:
        `Affine` process; its time is the noise level sigma.

    Raises:
        ValueError: for D <= 0.
    """
    return Affine(schedules.ExplodingIdentity(), StudentT(D, event_axes))


def PFGM(event_axes=None):
    """Builds PFGM: `PFGMpp(D=1)`, whose noise is multivariate Cauchy and whose time is z (Xu et al. 2022).

    Use it with the `poisson_field` parameterisation for a network that predicts the normalised field.

    Args:
        event_axes: axes of the image that share one radius; see `StudentT`.

    Returns:
        `Affine` process; its time is the augmented coordinate z.
    """
    return PFGMpp(1, event_axes)

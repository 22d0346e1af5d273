"""Linear maps with exact adjoints, likelihoods of their measurements, and the solvers that they share."""

from pgm_jax.operators.checks import adjoint_gap as adjoint_gap, element_gap as element_gap
from pgm_jax.operators.coils import birdcage_maps as birdcage_maps
from pgm_jax.operators.conjugate_gradient import (
    conjugate_gradient as conjugate_gradient,
    solve_positive_definite as solve_positive_definite,
)
from pgm_jax.operators.difference import FiniteDifference as FiniteDifference
from pgm_jax.operators.elementary import (
    Diagonal as Diagonal,
    Identity as Identity,
    Matrix as Matrix,
    RealImage as RealImage,
    Stacked as Stacked,
    stack as stack,
)
from pgm_jax.operators.fourier import (
    Fourier as Fourier,
    Hartley as Hartley,
    centred_fft as centred_fft,
    centred_ifft as centred_ifft,
)
from pgm_jax.operators.gaussian import GaussianLikelihood as GaussianLikelihood, measure as measure
from pgm_jax.operators.likelihood import (
    JointLikelihood as JointLikelihood,
    LatentLikelihood as LatentLikelihood,
    Likelihood as Likelihood,
)
from pgm_jax.operators.masks import equispaced_mask as equispaced_mask, random_mask as random_mask
from pgm_jax.operators.operator import LinearOperator as LinearOperator
from pgm_jax.operators.sense import Sense as Sense

"""Exact priors, whose denoiser, density and posterior are known for every process, and trained ones."""

from pgm_jax.priors.base import Prior as Prior
from pgm_jax.priors.diagonal import DiagonalGaussianPrior as DiagonalGaussianPrior
from pgm_jax.priors.empirical import EmpiricalPrior as EmpiricalPrior
from pgm_jax.priors.gaussian import GaussianPrior as GaussianPrior
from pgm_jax.priors.learned import (
    JUMPS as JUMPS,
    LearnedPrior as LearnedPrior,
    PriorError as PriorError,
    load_prior as load_prior,
    prior_names as prior_names,
    save_prior as save_prior,
)
from pgm_jax.priors.linear_posterior import LinearPosterior as LinearPosterior
from pgm_jax.priors.mixture import MixturePrior as MixturePrior
from pgm_jax.priors.spectrum import RadialSpectrum as RadialSpectrum
from pgm_jax.priors.stationary import StationaryGaussianPrior as StationaryGaussianPrior

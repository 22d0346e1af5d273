"""The contracts that every room shares, and the few helpers that they need."""

from pgm_jax.core import checkpoint as checkpoint
from pgm_jax.core.arrays import (
    inner as inner,
    join_complex as join_complex,
    namespace as namespace,
    real_size as real_size,
    safe_divide as safe_divide,
    split_complex as split_complex,
    squared_norm as squared_norm,
)
from pgm_jax.core.contracts import (
    Affine as Affine,
    Denoiser as Denoiser,
    Estimate as Estimate,
    Estimator as Estimator,
    Grid as Grid,
    Guidance as Guidance,
    JumpDenoiser as JumpDenoiser,
    Likelihood as Likelihood,
    LinearOperator as LinearOperator,
    Network as Network,
    NoiseLaw as NoiseLaw,
    Objective as Objective,
    Process as Process,
    Representation as Representation,
    Sampler as Sampler,
    State as State,
    System as System,
)
from pgm_jax.core.estimator import chain as chain, lift as lift
from pgm_jax.core.extras import MissingExtra as MissingExtra, require as require
from pgm_jax.core.keys import prior_key as prior_key, sample_key as sample_key, step_key as step_key
from pgm_jax.core.precision import Precision as Precision
from pgm_jax.core.programs import program_bytes as program_bytes

"""Corruption processes: schedules, noise laws, grids of times, parameterisations."""

from pgm_jax.processes.affine import Affine as Affine
from pgm_jax.processes.bridge import Bridge as Bridge
from pgm_jax.processes.categorical import (
    Absorbing as Absorbing,
    Bernoulli as Bernoulli,
    Categorical as Categorical,
)
from pgm_jax.processes.conversions import (
    noise_from_x0 as noise_from_x0,
    poisson_field as poisson_field,
    score_from_x0 as score_from_x0,
    v_from_x0 as v_from_x0,
    velocity_from_x0 as velocity_from_x0,
    x0_from_noise as x0_from_noise,
    x0_from_poisson_field as x0_from_poisson_field,
    x0_from_score as x0_from_score,
    x0_from_v as x0_from_v,
    x0_from_velocity as x0_from_velocity,
)
from pgm_jax.processes.diffusion import (
    DDPM as DDPM,
    EDM as EDM,
    VE as VE,
    VP as VP,
    Cosine as Cosine,
    FlowMatching as FlowMatching,
    SubVP as SubVP,
    Trigonometric as Trigonometric,
    cosine_betas as cosine_betas,
    linear_betas as linear_betas,
    scaled_linear_betas as scaled_linear_betas,
    zero_terminal_snr as zero_terminal_snr,
)
from pgm_jax.processes.field_target import (
    field_target as field_target,
    pfgm_hyperparameters as pfgm_hyperparameters,
    pfgm_perturb as pfgm_perturb,
    stable_target as stable_target,
)
from pgm_jax.processes.fourier import (
    FourierDiffusion as FourierDiffusion,
    Heat as Heat,
    radial_frequency as radial_frequency,
)
from pgm_jax.processes.grid import (
    fast_ddpm as fast_ddpm,
    few_step_grid as few_step_grid,
    karras as karras,
    linear as linear,
    log_snr as log_snr,
    subset as subset,
    trailing as trailing,
)
from pgm_jax.processes.ncsn import ncsn_levels as ncsn_levels, ncsn_step_size as ncsn_step_size
from pgm_jax.processes.normal import Normal as Normal
from pgm_jax.processes.parameterisation import (
    Coefficients as Coefficients,
    predict_noise as predict_noise,
    predict_residual as predict_residual,
    predict_score as predict_score,
    predict_v as predict_v,
    predict_velocity as predict_velocity,
    predict_x0 as predict_x0,
)
from pgm_jax.processes.poisson import PFGM as PFGM, PFGMpp as PFGMpp
from pgm_jax.processes.regrid import churn as churn, resample as resample, voxelwise as voxelwise
from pgm_jax.processes.student_t import StudentT as StudentT
from pgm_jax.processes.suggest import Suggestion as Suggestion, suggest as suggest

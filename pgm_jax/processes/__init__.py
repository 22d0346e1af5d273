"""Corruption processes: schedules, noise laws, grids of times, parameterisations."""

from pgm_jax.processes.affine import Affine as Affine
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
from pgm_jax.processes.normal import Normal as Normal
from pgm_jax.processes.poisson import PFGM as PFGM, PFGMpp as PFGMpp
from pgm_jax.processes.student_t import StudentT as StudentT

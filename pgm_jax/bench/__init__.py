"""Benchmarks: one row for every measurement, compile and run apart, against PyTorch on the same weights."""

from pgm_jax.bench.few_step import FewStepCase as FewStepCase, few_step_rows as few_step_rows
from pgm_jax.bench.flops import (
    count_flops as count_flops,
    mfu as mfu,
    peak_flops as peak_flops,
    program_flops as program_flops,
)
from pgm_jax.bench.model import Case as Case
from pgm_jax.bench.operators import (
    DIRECTIONS as DIRECTIONS,
    NufftCase as NufftCase,
    ProjectorCase as ProjectorCase,
    nufft_row as nufft_row,
    projector_row as projector_row,
)
from pgm_jax.bench.posterior import METHODS as METHODS, posterior_row as posterior_row
from pgm_jax.bench.posterior_problem import PosteriorCase as PosteriorCase
from pgm_jax.bench.row import Row as Row, document as document
from pgm_jax.bench.sampling import methods as methods, sampling_row as sampling_row
from pgm_jax.bench.timing import compile_apart as compile_apart, interleaved as interleaved
from pgm_jax.bench.torch_unet import TorchUNet as TorchUNet, torch_params as torch_params
from pgm_jax.bench.training import training_row as training_row

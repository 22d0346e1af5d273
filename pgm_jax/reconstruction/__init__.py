"""Reconstruction: analytic and iterative methods without a learned prior, and posterior draws with one."""

from pgm_jax.operators import subset_order as subset_order
from pgm_jax.reconstruction.admm import admm as admm, admm_iteration as admm_iteration
from pgm_jax.reconstruction.anisotropic_tv import (
    anisotropic_tv as anisotropic_tv,
    coverage_weights as coverage_weights,
)
from pgm_jax.reconstruction.art import art as art, art_iteration as art_iteration
from pgm_jax.reconstruction.bsrem import bsrem as bsrem, bsrem_iteration as bsrem_iteration
from pgm_jax.reconstruction.cg_sense import (
    cg_sense as cg_sense,
    cg_sense_iteration as cg_sense_iteration,
    zero_filled as zero_filled,
)
from pgm_jax.reconstruction.cgls import cgls as cgls, cgls_iteration as cgls_iteration
from pgm_jax.reconstruction.estimate import Cost as Cost, posterior_cost as posterior_cost
from pgm_jax.reconstruction.fbp import fbp as fbp
from pgm_jax.reconstruction.fdk import fdk as fdk
from pgm_jax.reconstruction.fista import fista as fista, fista_iteration as fista_iteration
from pgm_jax.reconstruction.fractional_tv import fractional_tv as fractional_tv
from pgm_jax.reconstruction.iteration import (
    Iteration as Iteration,
    Trace as Trace,
    run as run,
    run_in_chunks as run_in_chunks,
)
from pgm_jax.reconstruction.lsqr import lsqr as lsqr, lsqr_iteration as lsqr_iteration
from pgm_jax.reconstruction.methods import METHODS as METHODS, method_for as method_for
from pgm_jax.reconstruction.mlem import (
    list_mode_mlem as list_mode_mlem,
    mlem as mlem,
    mlem_iteration as mlem_iteration,
)
from pgm_jax.reconstruction.mltr import (
    mltr as mltr,
    mltr_iteration as mltr_iteration,
    paraboloids as paraboloids,
    paraboloids_iteration as paraboloids_iteration,
)
from pgm_jax.reconstruction.mri_scans import coil_maps as coil_maps, kspace_scan as kspace_scan
from pgm_jax.reconstruction.null_space import (
    null_space as null_space,
    null_space_energy as null_space_energy,
)
from pgm_jax.reconstruction.osem import osem as osem, osem_iteration as osem_iteration
from pgm_jax.reconstruction.piccs import piccs as piccs
from pgm_jax.reconstruction.plug_and_play import PlugStep as PlugStep, plug_and_play as plug_and_play
from pgm_jax.reconstruction.posterior import GUIDES as GUIDES, Posterior as Posterior, posterior as posterior
from pgm_jax.reconstruction.primal_dual import (
    diagonal_steps as diagonal_steps,
    pdhg as pdhg,
    pdhg_iteration as pdhg_iteration,
)
from pgm_jax.reconstruction.sart import sart as sart, sart_iteration as sart_iteration
from pgm_jax.reconstruction.scans import Problem as Problem, Scan as Scan, projection_scan as projection_scan
from pgm_jax.reconstruction.sense import g_factor as g_factor, gridding as gridding, unalias as unalias
from pgm_jax.reconstruction.sirt import sirt as sirt, sirt_iteration as sirt_iteration
from pgm_jax.reconstruction.tgv import tgv as tgv, tgv_iteration as tgv_iteration
from pgm_jax.reconstruction.tv import natural_balance as natural_balance, tv as tv
from pgm_jax.reconstruction.volume import (
    VOLUME_METHODS as VOLUME_METHODS,
    Progress as Progress,
    posterior_volume as posterior_volume,
)
from pgm_jax.reconstruction.wavelet_cs import (
    wavelet_cs as wavelet_cs,
    wavelet_cs_iteration as wavelet_cs_iteration,
)

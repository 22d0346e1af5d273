"""Image, distribution and calibration metrics."""

from pgm_jax.metrics.calibration import (
    conformal_factor as conformal_factor,
    miscoverage as miscoverage,
)
from pgm_jax.metrics.distribution import coverage as coverage, energy_distance as energy_distance
from pgm_jax.metrics.image import nrmse as nrmse, psnr as psnr, ssim as ssim

"""Image, distribution and calibration metrics."""

from pgm_jax.metrics.calibration import (
    conformal_factor as conformal_factor,
    miscoverage as miscoverage,
)
from pgm_jax.metrics.distribution import coverage as coverage, energy_distance as energy_distance
from pgm_jax.metrics.image import nrmse as nrmse, psnr as psnr, ssim as ssim
from pgm_jax.metrics.kernel_distance import (
    Interval as Interval,
    kernel_distance as kernel_distance,
    standardised as standardised,
)
from pgm_jax.metrics.texture import texture_features as texture_features

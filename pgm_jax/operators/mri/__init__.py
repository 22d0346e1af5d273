"""Magnetic resonance imaging: trajectories, non-uniform Fourier transforms, coils, off-resonance, masks."""

from pgm_jax.operators.mri.density import pipe_menon as pipe_menon
from pgm_jax.operators.mri.espirit import (
    calibration_region as calibration_region,
    espirit_maps as espirit_maps,
)
from pgm_jax.operators.mri.grid_masks import (
    poisson_disk_mask as poisson_disk_mask,
    radial_grid_mask as radial_grid_mask,
    random_mask_2d as random_mask_2d,
)
from pgm_jax.operators.mri.non_cartesian import NonCartesian as NonCartesian
from pgm_jax.operators.mri.nudft import NUDFT as NUDFT
from pgm_jax.operators.mri.nufft import NUFFT as NUFFT
from pgm_jax.operators.mri.off_resonance import OffResonance as OffResonance
from pgm_jax.operators.mri.toeplitz import (
    toeplitz_apply as toeplitz_apply,
    toeplitz_kernel as toeplitz_kernel,
)
from pgm_jax.operators.mri.trajectories import (
    Trajectory as Trajectory,
    kooshball as kooshball,
    radial as radial,
    radial_angles as radial_angles,
    spiral as spiral,
)
from pgm_jax.operators.mri.whitening import (
    compression_matrix as compression_matrix,
    mix_coils as mix_coils,
    noise_covariance as noise_covariance,
    whitening_matrix as whitening_matrix,
)

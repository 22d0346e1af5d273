"""Linear maps with exact adjoints, likelihoods of their measurements, and the solvers that they share."""

from pgm_jax.operators.block import Block as Block, block as block
from pgm_jax.operators.blur import Blur as Blur, Downsample as Downsample, gaussian_psf as gaussian_psf
from pgm_jax.operators.checks import adjoint_gap as adjoint_gap, element_gap as element_gap
from pgm_jax.operators.coils import (
    birdcage_maps as birdcage_maps,
    birdcage_volume_maps as birdcage_volume_maps,
)
from pgm_jax.operators.conjugate_gradient import (
    conjugate_gradient as conjugate_gradient,
    conjugate_gradient_steps as conjugate_gradient_steps,
    solve_positive_definite as solve_positive_definite,
)
from pgm_jax.operators.ct.cone import ConeBeam as ConeBeam
from pgm_jax.operators.ct.fan import FanBeam as FanBeam
from pgm_jax.operators.ct.geometry import Fan as Fan, ImageGrid as ImageGrid, Parallel as Parallel
from pgm_jax.operators.ct.geometry3d import (
    Cone as Cone,
    Helical as Helical,
    Vector as Vector,
    VolumeGrid as VolumeGrid,
)
from pgm_jax.operators.ct.parallel import ParallelBeam as ParallelBeam
from pgm_jax.operators.ct.view_sharded import ViewSharded as ViewSharded, shard_views as shard_views
from pgm_jax.operators.daubechies import daubechies_filter as daubechies_filter
from pgm_jax.operators.difference import FiniteDifference as FiniteDifference
from pgm_jax.operators.dipole import Dipole as Dipole
from pgm_jax.operators.directional import DirectionalDifference as DirectionalDifference
from pgm_jax.operators.elementary import (
    Diagonal as Diagonal,
    Identity as Identity,
    Matrix as Matrix,
    RealImage as RealImage,
    Stacked as Stacked,
    stack as stack,
)
from pgm_jax.operators.emission.attenuation import survival as survival
from pgm_jax.operators.emission.list_mode import ListModePET as ListModePET
from pgm_jax.operators.emission.list_mode_likelihood import ListModeEmission as ListModeEmission
from pgm_jax.operators.emission.pet import PET as PET
from pgm_jax.operators.emission.psf import GaussianPSF as GaussianPSF
from pgm_jax.operators.emission.simulation import EmissionScan as EmissionScan, simulate_scan as simulate_scan
from pgm_jax.operators.emission.spect import SPECT as SPECT
from pgm_jax.operators.emission.time_of_flight import TimeOfFlight as TimeOfFlight
from pgm_jax.operators.fourier import (
    Fourier as Fourier,
    Hartley as Hartley,
    centred_fft as centred_fft,
    centred_ifft as centred_ifft,
)
from pgm_jax.operators.fractional import FractionalDifference as FractionalDifference
from pgm_jax.operators.gaussian import GaussianLikelihood as GaussianLikelihood, measure as measure
from pgm_jax.operators.hankel import Hankel as Hankel, low_rank_hankel as low_rank_hankel
from pgm_jax.operators.inpainting import inpainting as inpainting
from pgm_jax.operators.likelihood import (
    JointLikelihood as JointLikelihood,
    LatentLikelihood as LatentLikelihood,
    Likelihood as Likelihood,
)
from pgm_jax.operators.masks import equispaced_mask as equispaced_mask, random_mask as random_mask
from pgm_jax.operators.mri import (
    NUDFT as NUDFT,
    NUFFT as NUFFT,
    NonCartesian as NonCartesian,
    OffResonance as OffResonance,
    Trajectory as Trajectory,
    calibration_region as calibration_region,
    compression_matrix as compression_matrix,
    espirit_maps as espirit_maps,
    kooshball as kooshball,
    mix_coils as mix_coils,
    noise_covariance as noise_covariance,
    pipe_menon as pipe_menon,
    poisson_disk_mask as poisson_disk_mask,
    radial as radial,
    radial_angles as radial_angles,
    radial_grid_mask as radial_grid_mask,
    random_mask_2d as random_mask_2d,
    spiral as spiral,
    toeplitz_apply as toeplitz_apply,
    toeplitz_kernel as toeplitz_kernel,
    whitening_matrix as whitening_matrix,
)
from pgm_jax.operators.operator import LinearOperator as LinearOperator
from pgm_jax.operators.photon_counting import PhotonCounting as PhotonCounting
from pgm_jax.operators.poisson import PoissonEmission as PoissonEmission
from pgm_jax.operators.proximal import (
    group_shrink as group_shrink,
    project_balls as project_balls,
    project_discs as project_discs,
    shrink_singular_values as shrink_singular_values,
    soft_threshold as soft_threshold,
)
from pgm_jax.operators.roughness import Quadratic as Quadratic, RelativeDifference as RelativeDifference
from pgm_jax.operators.sense import Sense as Sense
from pgm_jax.operators.slices import EachSlice as EachSlice
from pgm_jax.operators.spectral import Spectral as Spectral, spectral as spectral
from pgm_jax.operators.subset_order import subset_order as subset_order
from pgm_jax.operators.symmetrised import SymmetrisedGradient as SymmetrisedGradient
from pgm_jax.operators.transmission import PoissonTransmission as PoissonTransmission
from pgm_jax.operators.wavelet import Wavelet as Wavelet

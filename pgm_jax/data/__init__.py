"""Real data sets by name, readers for image files, splits by subject, augmentation and batches, and phantoms."""

from pgm_jax.data.augment import (
    compose as compose,
    crop as crop,
    flip as flip,
    intensity as intensity,
)
from pgm_jax.data.batches import (
    Batches as Batches,
    batches as batches,
    patches as patches,
    process_rows as process_rows,
)
from pgm_jax.data.catalogue import Carrier as Carrier, DataSet as DataSet
from pgm_jax.data.datasets import (
    PHANTOMS as PHANTOMS,
    cached as cached,
    describe as describe,
    get as get,
    load as load,
    names as names,
)
from pgm_jax.data.dicom import read_dicom as read_dicom
from pgm_jax.data.dicom_writer import write_dicom as write_dicom
from pgm_jax.data.ellipses import Ellipses as Ellipses, shepp_logan_ellipses as shepp_logan_ellipses
from pgm_jax.data.ellipsoids import (
    Ellipsoids as Ellipsoids,
    ellipsoids as ellipsoids,
    line_integrals as line_integrals,
    raster as raster,
    shepp_logan_ellipsoids as shepp_logan_ellipsoids,
)
from pgm_jax.data.errors import DataError as DataError
from pgm_jax.data.framing import pad_or_crop as pad_or_crop
from pgm_jax.data.geometry_file import GEOMETRIES as GEOMETRIES, read_geometry as read_geometry
from pgm_jax.data.grain_input import grain_batches as grain_batches
from pgm_jax.data.kspace import KSpace as KSpace
from pgm_jax.data.nifti import read_nifti as read_nifti
from pgm_jax.data.nifti_writer import write_nifti as write_nifti
from pgm_jax.data.npy import read_npy as read_npy, write_npy as write_npy
from pgm_jax.data.nrrd import read_nrrd as read_nrrd
from pgm_jax.data.oblique import Source as Source, oblique_patches as oblique_patches
from pgm_jax.data.pet_phantom import PETPhantom as PETPhantom, pet_phantom as pet_phantom
from pgm_jax.data.phantoms import shepp_logan as shepp_logan
from pgm_jax.data.phase import smooth_phase as smooth_phase
from pgm_jax.data.png import write_png as write_png
from pgm_jax.data.projections import Projections as Projections, log_transform as log_transform
from pgm_jax.data.reading import read as read
from pgm_jax.data.reading_kspace import read_kspace as read_kspace
from pgm_jax.data.reading_projections import read_projections as read_projections
from pgm_jax.data.splitting import (
    Slices as Slices,
    Split as Split,
    axial_slices as axial_slices,
    slices as slices,
    split as split,
)
from pgm_jax.data.tissue import tissue_maps as tissue_maps
from pgm_jax.data.uptake import lesions as lesions, regional_uptake as regional_uptake
from pgm_jax.data.volume import Volume as Volume
from pgm_jax.data.warping import affine as affine, rotation as rotation, warp as warp
from pgm_jax.data.whole import whole_file as whole_file
from pgm_jax.data.writing import write as write

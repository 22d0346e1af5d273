"""Real data sets by name, readers for image files, splits by subject, and phantoms for those who ask."""

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
from pgm_jax.data.errors import DataError as DataError
from pgm_jax.data.framing import pad_or_crop as pad_or_crop
from pgm_jax.data.nifti import read_nifti as read_nifti
from pgm_jax.data.npy import read_npy as read_npy
from pgm_jax.data.nrrd import read_nrrd as read_nrrd
from pgm_jax.data.phantoms import shepp_logan as shepp_logan
from pgm_jax.data.reading import read as read
from pgm_jax.data.splitting import (
    Slices as Slices,
    Split as Split,
    axial_slices as axial_slices,
    slices as slices,
    split as split,
)
from pgm_jax.data.volume import Volume as Volume

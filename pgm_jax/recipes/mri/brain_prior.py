"""The fitted prior of the demo: a stationary Gaussian for complex T1-weighted brain slices.

The spectrum was fitted in closed form to slices of people other than the test subject by
`benchmarks/fit_brain_spectrum.py`; the table holds 150 numbers and no image.
"""

import importlib.resources

import numpy as np

from pgm_jax.priors import RadialSpectrum

_TABLE = "brain_t1_spectrum.npz"


def brain_spectrum():
    """Loads the fitted radial spectrum.

    Returns:
        `RadialSpectrum` of complex slices whose 99.5th percentile is 1, in cycles / mm.
    """
    with importlib.resources.files(__package__).joinpath(_TABLE).open("rb") as file, np.load(file) as table:
        return RadialSpectrum(
            frequency=table["frequency"],
            density=table["density"],
            mean=table["mean"],
            dim=2,
            unit="99.5th percentile",
            dtype="complex64",
            spacing=tuple(map(tuple, table["spacing"].tolist())),
            intensity=tuple(table["intensity"].tolist()),
        )


def brain_prior(shape, spacing, like=None):
    """Builds the fitted prior at any matrix size and voxel size.

    Args:
        shape: (height, width) or (height, width, 1).
        spacing: voxel size in mm, a number or (row, column).
        like: image in the units that will be used; a range unlike the fit's warns.

    Returns:
        `StationaryGaussianPrior` of complex64 images.
    """
    return brain_spectrum().at(tuple(shape), spacing, like=like)

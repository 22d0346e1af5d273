"""Simulated scans of real chest slices: few views, a limited angle, few photons.

No package ships sinograms, so the scans are simulated; the anatomy is real. Counts come from the full pixels with
exact areas, and the reconstruction has pixels of twice the size and line integrals: the model is not its own proof.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import struct

from pgm_jax import data, operators

WATER = 0.0193
"""Attenuation of water at about 70 keV, 1/mm."""
SIZE = 256
BINS, BIN_MM = 400, 1.2
# Standard deviation of a line integral that pixels of twice the size leave, measured on the validation person.
MODEL_STD = 0.003


class Task(NamedTuple):
    """What is scanned.

    Attributes:
        views: number of parallel views.
        degrees: angle that they cover, from 0.
        photons: photons of a ray without an object.
    """

    views: int
    degrees: float
    photons: float


TASKS = {
    "views_60": Task(60, 180.0, 2e5),
    "views_23": Task(23, 180.0, 2e5),
    "angle_120": Task(120, 120.0, 2e5),
    "angle_90": Task(90, 90.0, 2e5),
    "photons_20000": Task(120, 180.0, 2e4),
    "photons_4000": Task(120, 180.0, 4e3),
}
"""Tasks by name."""


class ChestScan(struct.PyTreeNode):
    """One scan of a slice with its truth.

    Attributes:
        truth: (256, 256, 1) attenuation relative to water, `1 + HU / 1000`.
        beam: `ParallelBeam` of attenuations in 1/mm.
        counts: (views, bins, 1) photons.
        photons: photons of a ray without an object.
        y: (views, bins, 1) line integrals, `-ln(counts / photons)` with at least one photon.
        weights: their inverse variances, `1 / (1 / counts + MODEL_STD^2)`.
    """

    truth: Any
    beam: Any
    counts: Any
    photons: Any
    y: Any
    weights: Any

    @property
    def operator(self):
        """The operator of images relative to water, `WATER * beam`."""
        return WATER * self.beam

    def likelihood(self):
        """Returns the `GaussianLikelihood` of the line integrals for images relative to water."""
        return operators.GaussianLikelihood.create(self.operator, self.y, 1.0, self.weights)


class ChestSlices(NamedTuple):
    """Axial slices of one volume.

    Attributes:
        fine: (n, height, width, 1) float32 attenuation relative to water.
        index: (n,) z indices.
        pixel: size of a pixel of `fine` in mm.
    """

    fine: np.ndarray
    index: np.ndarray
    pixel: float


def chest_slices(name, count=None, progress=None) -> ChestSlices:
    """Takes evenly spaced axial slices of a named chest CT of 512 x 512 square pixels.

    Args:
        name: name of the data set, see `pgm data list`.
        count: number of slices, or None for all.
        progress: optional function of a line, told about a download.

    Returns:
        `ChestSlices`.

    Raises:
        DataError: if the data set is unknown, cannot be fetched, is not CT of such slices or has too few.
    """
    volume = data.load(name, progress=progress)
    if volume.units != "HU" or volume.array.shape[1:3] != (2 * SIZE, 2 * SIZE):
        raise data.DataError(
            f"{name} has {volume.units} on {volume.array.shape[1:3]} pixels: use a CT in HU of "
            f"{2 * SIZE} x {2 * SIZE}"
        )
    found = data.axial_slices(volume, 0.25)
    if count is not None:
        if not 1 <= count <= len(found):
            raise data.DataError(
                f"{name} has {len(found)} slices with enough anatomy: ask for 1 to {len(found)}"
            )
        found = found[np.linspace(0, len(found) - 1, count + 2).round().astype(int)[1:-1]]
    fine = np.maximum(1 + volume.array[found] / 1000, 0).astype(np.float32)
    return ChestSlices(fine, found, float(volume.spacing[1]))


def chest_scan(key, fine, pixel, task: Task) -> ChestScan:
    """Simulates the scan of one slice, `counts ~ Poisson(photons exp(-WATER A x))`.

    Args:
        key: PRNG key of the photons.
        fine: (512, 512, 1) attenuation relative to water.
        pixel: size of its pixels in mm.
        task: `Task`.

    Returns:
        `ChestScan`.
    """
    angles = np.deg2rad(np.arange(task.views) * task.degrees / task.views)
    geometry = operators.Parallel(angles, bins=BINS, spacing=BIN_MM)
    exact = operators.ParallelBeam(
        operators.ImageGrid((2 * SIZE, 2 * SIZE), pixel), geometry, footprint="strip"
    )
    counts = operators.PoissonTransmission(WATER * exact, 0.0, task.photons).sample(key, jnp.asarray(fine))
    beam = operators.ParallelBeam(operators.ImageGrid((SIZE, SIZE), 2 * pixel), geometry)
    seen = jnp.maximum(counts, 1.0)
    truth = jnp.asarray(fine).reshape(SIZE, 2, SIZE, 2, 1).mean(axis=(1, 3))
    weights = 1 / (1 / seen + MODEL_STD**2)
    return ChestScan(truth, beam, counts, jnp.float32(task.photons), -jnp.log(seen / task.photons), weights)

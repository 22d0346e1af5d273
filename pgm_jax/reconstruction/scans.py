"""From a geometry record and raw data to operators, measurements and a volume: the physics of `pgm reconstruct`."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from pgm_jax import data
from pgm_jax.data import geometry_records as records
from pgm_jax.data.volume import canonical
from pgm_jax.operators import (
    PET,
    SPECT,
    Cone,
    ConeBeam,
    Fan,
    FanBeam,
    GaussianPSF,
    Helical,
    ImageGrid,
    Parallel,
    ParallelBeam,
    PoissonEmission,
    PoissonTransmission,
    TimeOfFlight,
    Vector,
    VolumeGrid,
)

EMISSION = (records.PETScan, records.SPECTScan)


class Problem(NamedTuple):
    """One inverse problem of a scan.

    Attributes:
        kind: "planar" (line integrals in 2-D), "volume" (in 3-D), "emission" or "mri".
        operator: linear operator A.
        y: measurement; line integrals, counts of emission, or k-space.
        likelihood: Poisson likelihood of counts, or None.
        density: area of k-space of each sample of a trajectory, or None.
    """

    kind: str
    operator: Any
    y: Any
    likelihood: Any = None
    density: Any = None


class Scan(NamedTuple):
    """What a file holds, ready for a method.

    Attributes:
        problems: the inverse problems, one for all slices where they share the geometry, else one a slice.
        volume: function from the list of their images to the `Volume` of the scan.
    """

    problems: Sequence[Problem]
    volume: Callable[[list], data.Volume]


def projection_scan(
    record, projections: data.Projections, *, subsets: int = 1, footprint: str = "joseph", attenuation=None
) -> Scan:
    """Builds the problem of a CT, PET or SPECT scan.

    Counts of transmission become line integrals for linear methods, and keep their Poisson likelihood.

    Args:
        record: what `data.read_geometry` returned.
        projections: what `data.read_projections` returned.
        subsets: ordered subsets of the views.
        footprint: "joseph" or "strip", of CT and parallel-beam PET.
        attenuation: attenuation map (slices, height, width) in 1/mm for PET and SPECT, or None.

    Returns:
        `Scan` of one problem.

    Raises:
        ValueError: if the data do not fit the geometry, or are of another kind.
    """
    record = _with_angles(record, projections)
    wanted = "counts" if isinstance(record, EMISSION) else None
    if wanted and projections.units != wanted:
        raise ValueError(f"an emission scan needs counts, got {projections.units}: read it with units counts")
    build = _planar if hasattr(record, "bins") else _volumetric
    operator, arranged = build(record, projections.array.shape, subsets, footprint, attenuation)
    part = lambda values: None if values is None else arranged(values)
    counts = part(projections.array)
    if counts.shape != operator.range.shape:
        raise ValueError(
            f"projections of shape {projections.array.shape} do not fit the geometry, which has "
            f"{operator.range.shape}: give its number of views, rows and bins"
        )
    if isinstance(record, EMISSION):
        problem = _emission(operator, counts, projections, part)
    else:
        problem = _transmission(operator, counts, projections, part, hasattr(record, "bins"))
    return Scan((problem,), lambda images: volume_of(record.image, images[0], projections.name))


def _with_angles(record, projections):
    if getattr(record, "angles", 0) is not None:
        return record
    if projections.angles is None:
        raise ValueError('the geometry says angles "projections", and the projections hold none: give them')
    return _replaced(record, angles=projections.angles)


def _replaced(record, **changes):
    return type(record)(**{**vars(record), **changes})


def _planar(record, shape, subsets, footprint, attenuation):
    """Two-dimensional projectors: rows of the projections are slices, the last axis of every array."""
    image, slices = record.image, shape[1]
    arranged = lambda values: jnp.asarray(np.moveaxis(_broadcast(values, shape), 1, -1))
    if isinstance(record, records.SPECTScan):
        options = {"radius": record.radius, "fwhm": record.fwhm, "growth": record.growth, "bins": record.bins}
        square = (*image.shape, slices)
        mu = None if attenuation is None else np.moveaxis(attenuation, 0, -1)
        operator = SPECT.create(
            record.angles, square, image.spacing[1], attenuation=mu, subsets=subsets, **options
        )
        return operator, arranged
    # Subsets of a PET scan with time of flight are those of its single views.
    timed = getattr(record, "time_of_flight", None)
    grid, detector = ImageGrid(image.shape, image.spacing), (record.bins, record.spacing, record.offset)
    if isinstance(record, records.FanScan):
        distances = record.source_to_axis, record.source_to_detector
        geometry = Fan(record.angles, *distances, *detector, record.detector)
        return FanBeam(grid, geometry, footprint, subsets, slices), arranged
    projector = ParallelBeam(
        grid, Parallel(record.angles, *detector), footprint, 1 if timed else subsets, slices
    )
    if not isinstance(record, records.PETScan):
        return projector, arranged
    if timed:
        projector = TimeOfFlight.create(projector, timed.bins, timed.bin_width, timed.fwhm, subsets)
    psf = None
    if record.psf_fwhm:
        psf = GaussianPSF.create((*image.shape, slices), record.psf_fwhm, image.spacing)
    mu = None if attenuation is None else jnp.asarray(np.moveaxis(attenuation, 0, -1))
    return PET.create(projector, attenuation=mu, psf=psf), arranged


def _volumetric(record, shape, subsets, footprint, attenuation):
    image = record.image
    grid = VolumeGrid(image.shape, image.spacing)
    if isinstance(record, records.VectorScan):
        geometry = Vector(record.vectors, record.rows, record.columns)
    else:
        kind = Helical if isinstance(record, records.HelicalScan) else Cone
        named = {name: value for name, value in vars(record).items() if name != "image"}
        geometry = kind(**named)
    operator = ConeBeam(grid, geometry, subsets, footprint)
    return operator, lambda values: jnp.asarray(_broadcast(values, shape)[..., None])


def _broadcast(values, shape):
    """A table without views, or without time-of-flight bins, given for all of them."""
    values = np.asarray(values)
    if values.ndim == len(shape) - 1 and values.shape == shape[:-1]:
        values = values[..., None]
    return np.broadcast_to(values, shape)


def _emission(operator, counts, projections, part):
    factors = [
        part(table) for table in (projections.survival, projections.normalisation) if table is not None
    ]
    if factors and not isinstance(operator, PET):
        raise ValueError("survival and normalisation belong to PET: give SPECT its attenuation as a map")
    if factors:
        known = [] if operator.factors is None else [operator.factors]
        operator = operator.replace(
            factors=jnp.prod(jnp.stack(jnp.broadcast_arrays(*factors, *known)), axis=0)
        )
    background = sum(part(table) for table in (projections.randoms, projections.scatter) if table is not None)
    likelihood = PoissonEmission.create(operator, counts, background)
    return Problem("emission", operator, counts, likelihood)


def _transmission(operator, values, projections, part, planar):
    likelihood, kind = None, "planar" if planar else "volume"
    if projections.units == "counts":
        if projections.blank is None:
            raise ValueError("counts of a CT scan need the blank scan: save it beside them as 'blank'")
        dark = 0.0 if projections.dark is None else part(projections.dark)
        likelihood = PoissonTransmission.create(operator, values, part(projections.blank), dark)
        values = part(data.log_transform(projections).array)
    return Problem(kind, operator, values, likelihood)


def volume_of(image, array, name) -> data.Volume:
    """Places a reconstruction as its geometry file says.

    Args:
        image: `ImageRecord` of the geometry.
        array: (height, width, slices), or (depth, height, width, 1) of a volume.
        name: name of the volume.

    Returns:
        `Volume`; without an affine its orientation is "unknown".
    """
    array = np.asarray(array)
    array = np.moveaxis(array, -1, 0)[..., None] if array.ndim == 3 else array
    array = array.astype(np.complex64 if np.iscomplexobj(array) else np.float32)
    if image.affine is not None:
        array, spacing, affine = canonical(array, image.affine, name)
        return data.Volume(array, spacing, affine, "a.u.", name)
    spacing = image.spacing
    if len(spacing) == 2:
        spacing = None if image.slice_spacing is None else (image.slice_spacing, *spacing)
    return data.Volume(array, spacing, None, "a.u.", name, orientation="unknown")

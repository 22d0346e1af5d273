"""What geometry files describe: one record a kind of scan, with the words of the operators that it is for.

Lengths are mm and angles radians, float64. The conventions of axes and signs are those of the operators named.
"""

from dataclasses import MISSING, dataclass, field, fields

import numpy as np

from pgm_jax.data import geometry_values as values
from pgm_jax.data.errors import DataError


def given(reader, default=MISSING):
    """Declares a field that a file gives.

    Args:
        reader: function of (value, place in the file, folder of the file) that checks and returns it.
        default: value if the file does not give it; without one it must.

    Returns:
        Field of a dataclass.
    """
    return field(default=default, kw_only=True, metadata={"reader": reader})


def filled(record, content, what: str, folder):
    """Fills a record from a table.

    Args:
        record: dataclass whose fields are made by `given`.
        content: the table.
        what: where it stands, for messages.
        folder: folder in which files of numbers lie.

    Returns:
        The record.

    Raises:
        DataError: if a field is unknown, missing or of another kind.
    """
    needed = [f.name for f in fields(record) if f.default is MISSING]
    optional = [f.name for f in fields(record) if f.default is not MISSING]
    content = values.table(content, what, needed, optional)
    readers = {f.name: f.metadata["reader"] for f in fields(record)}
    return record(
        **{name: readers[name](value, f"{what}: {name}", folder) for name, value in content.items()}
    )


def _nested(record):
    return lambda value, what, folder: filled(record, value, what, folder)


def _affine(value, what, folder):
    found = values.array(value, what, folder, 2)
    if found.shape != (4, 4) or abs(np.linalg.det(found)) < 1e-12:
        raise DataError(
            f"{what} has shape {found.shape}: give 4 x 4 with an inverse, from (z, y, x, 1) to RAS in mm"
        )
    return found


@dataclass(frozen=True, eq=False)
class ImageRecord:
    """Grid of the image, centred on the centre of rotation.

    Attributes:
        shape: (height, width), or (depth, height, width) of a volume.
        spacing: as many numbers, mm.
        slice_spacing: distance between slices that share a 2-D geometry, mm, or None.
        affine: (4, 4), maps (z, y, x, 1) to (right, anterior, superior) in mm, or None: without it left and right
            of the patient are unknown and no DICOM series can be written.
    """

    shape: tuple = given(values.several(values.count, (2, 3)))
    spacing: tuple = given(values.several(values.length, (2, 3)))
    slice_spacing: float | None = given(values.length, None)
    affine: np.ndarray | None = given(_affine, None)


@dataclass(frozen=True, eq=False)
class ParallelScan:
    """Parallel-beam CT, for `operators.ct.geometry.Parallel`.

    Attributes:
        angles: (views,) radians, or None if the file of the projections holds them.
        bins: detector bins.
        spacing: from bin to bin, mm.
        offset: shift of the detector, mm.
        image: grid of the image.
    """

    angles: np.ndarray | None = given(values.angles)
    bins: int = given(values.count)
    spacing: float = given(values.length)
    offset: float = given(values.number, 0.0)
    image: ImageRecord = given(_nested(ImageRecord))


@dataclass(frozen=True, eq=False)
class FanScan(ParallelScan):
    """Fan-beam CT, for `operators.ct.geometry.Fan`.

    Attributes:
        source_to_axis: mm.
        source_to_detector: mm.
        detector: "flat" or "arc".
    """

    source_to_axis: float = given(values.length)
    source_to_detector: float = given(values.length)
    detector: str = given(values.one_of("flat", "arc"), "flat")


@dataclass(frozen=True, eq=False)
class ConeScan:
    """Circular cone-beam CT, for `operators.ct.geometry3d.Cone`.

    Attributes:
        angles: (views,) radians, or None if the file of the projections holds them.
        source_to_axis: mm.
        source_to_detector: mm.
        rows: detector rows.
        columns: detector columns.
        spacing: (from row to row, from column to column), mm on the detector.
        offset: shift of the detector centre (along v, along u), mm.
        tilt: turns of the detector about its normal, u and v, radians.
        image: grid of the volume.
    """

    angles: np.ndarray | None = given(values.angles)
    source_to_axis: float = given(values.length)
    source_to_detector: float = given(values.length)
    rows: int = given(values.count)
    columns: int = given(values.count)
    spacing: tuple = given(values.several(values.length, (2,)))
    offset: tuple = given(values.several(values.number, (2,)), (0.0, 0.0))
    tilt: tuple = given(values.tilt, (0.0, 0.0, 0.0))
    image: ImageRecord = given(_nested(ImageRecord))


@dataclass(frozen=True, eq=False)
class HelicalScan(ConeScan):
    """Helical cone-beam CT, for `operators.ct.geometry3d.Helical`.

    Attributes:
        angles: (views,) radians along the whole path, over many turns.
        pitch: rise from one turn to the next, mm.
        start: z of the first view, mm, or None to centre the path.
    """

    angles: np.ndarray = given(values.path_angles)
    pitch: float = given(values.number)
    start: float | None = given(values.number, None)


@dataclass(frozen=True, eq=False)
class VectorScan:
    """Any source and flat detector, view by view, for `operators.ct.geometry3d.Vector`.

    Attributes:
        vectors: (views, 4, 3) mm: source, detector centre, step u from column to column, step v from row to row.
        rows: detector rows.
        columns: detector columns.
        image: grid of the volume.
    """

    vectors: np.ndarray = given(values.vectors)
    rows: int = given(values.count)
    columns: int = given(values.count)
    image: ImageRecord = given(_nested(ImageRecord))


@dataclass(frozen=True, eq=False)
class TimeOfFlightRecord:
    """Time-of-flight bins, for `operators.emission.time_of_flight.TimeOfFlight`.

    Attributes:
        bins: number of bins.
        bin_width: width of a bin in mm of position, c / 2 times its time.
        fwhm: resolution in mm of position.
    """

    bins: int = given(values.count)
    bin_width: float = given(values.length)
    fwhm: float = given(values.length)


@dataclass(frozen=True, eq=False)
class PETScan(ParallelScan):
    """Sinogram PET, for `operators.emission.pet.PET` over parallel lines.

    Attributes:
        psf_fwhm: resolution of the scanner as a blur of the image, mm; 0 for none.
        time_of_flight: bins, or None.
    """

    psf_fwhm: float = given(values.width, 0.0)
    time_of_flight: TimeOfFlightRecord | None = given(_nested(TimeOfFlightRecord), None)


@dataclass(frozen=True, eq=False)
class SPECTScan:
    """SPECT, for `operators.emission.spect.SPECT`, whose pixels are square and as wide as the bins.

    Attributes:
        angles: (views,) radians, or None if the file of the projections holds them.
        bins: bins of the camera across, or None for the width of the image.
        radius: distance of the collimator's face from the axis, mm, one number or one a view; None without blur.
        fwhm: blur at the collimator's face, mm.
        growth: its growth per mm of distance.
        image: grid of the image.
    """

    angles: np.ndarray | None = given(values.angles)
    bins: int | None = given(values.count, None)
    radius: float | tuple | None = given(values.one_or_many(values.length), None)
    fwhm: float = given(values.width, 0.0)
    growth: float = given(values.width, 0.0)
    image: ImageRecord = given(_nested(ImageRecord))


@dataclass(frozen=True, eq=False)
class RadialScan:
    """Radial MRI, for `operators.mri.trajectories.radial`.

    Attributes:
        spokes: number of spokes.
        readout: samples of a spoke.
        golden: golden-angle order.
        image: grid of the image.
    """

    spokes: int = given(values.count)
    readout: int = given(values.count)
    golden: bool = given(values.truth, False)
    image: ImageRecord = given(_nested(ImageRecord))


@dataclass(frozen=True, eq=False)
class KooshballScan:
    """Radial MRI of a volume, for `operators.mri.trajectories.kooshball`.

    Attributes:
        spokes: number of spokes.
        readout: samples of a spoke.
        image: grid of the volume.
    """

    spokes: int = given(values.count)
    readout: int = given(values.count)
    image: ImageRecord = given(_nested(ImageRecord))


@dataclass(frozen=True, eq=False)
class SpiralScan:
    """Spiral MRI, for `operators.mri.trajectories.spiral`.

    Attributes:
        interleaves: number of spirals.
        readout: samples of a spiral.
        turns: windings of one spiral.
        power: growth of the radius; 1 is Archimedean.
        image: grid of the image.
    """

    interleaves: int = given(values.count)
    readout: int = given(values.count)
    turns: float = given(values.length)
    power: float = given(values.length, 1.0)
    image: ImageRecord = given(_nested(ImageRecord))


@dataclass(frozen=True, eq=False)
class TrajectoryScan:
    """MRI along any trajectory, for `operators.mri.NonCartesian`.

    Attributes:
        points: (readouts, samples, d) in cycles per field of view along the image axes, rows first.
        image: grid of the image.
    """

    points: np.ndarray = given(lambda value, what, folder: values.array(value, what, folder, 3))
    image: ImageRecord = given(_nested(ImageRecord))

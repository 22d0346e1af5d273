"""ISMRMRD files: acquisitions, each with a header, sorted into k-space."""

from collections.abc import Mapping

import numpy as np

from pgm_jax.data.errors import DataError
from pgm_jax.data.hdf5 import dataset
from pgm_jax.data.kspace import KSpace, chosen, compact, finite
from pgm_jax.data.mrd_header import read_header
from pgm_jax.data.mrd_placement import placed, slice_order
from pgm_jax.data.mrd_sorting import noise_covariance, sorted_cartesian, sorted_readouts

COUNTERS = ("contrast", "phase", "repetition", "set")

# Bits of the flags, counted from 1 (ISMRMRD_AcquisitionFlags).
_NOISE, _CALIBRATION, _CALIBRATION_AND_IMAGING = 19, 20, 21
# Navigators, phase correction, feedback, dummy, surface coil correction, phase stabilisation.
_NOT_IMAGING = (23, 24, 26, 27, 28, 29, 30, 31)
_COMPRESSED = (53, 54, 55, 56)


def read_ismrmrd(path, file, group, slices: range | None, select: Mapping[str, int], name: str) -> KSpace:
    """Sorts the acquisitions of an open file.

    Cartesian lines go to their place in the encoded grid, about the centres that the header states; the readout is
    centred by `center_sample`. Lines measured several times are averaged, and the noise covariance is that of the
    average. Reversed readouts are turned. Slices are in the order of their positions. Acquisitions of another
    encoding space than the first, navigators, phase correction and the like are left out. Calibration lines are
    image data too where the header calls the calibration embedded.

    Noise acquisitions give `E n n^H`, scaled to the sampling time of the image by
    `noise time / (image time * relative receiver noise bandwidth)` (P. Kellman, E. R. McVeigh, MRM 54 (2005)).

    Source: S. J. Inati et al., ISMRM raw data format: a proposed standard for MRI raw datasets, MRM 77 (2017).

    Args:
        path: path of the file for messages.
        file: open `h5py.File`.
        group: name of the group with `xml` and `data`.
        slices: which slices to read, None for all.
        select: counter to read of "contrast", "phase", "repetition" and "set", where there are several.
        name: name of the scan.

    Returns:
        The `KSpace`.

    Raises:
        DataError: if the scan holds several images and none is selected, is EPI, compressed or incomplete, or a
            line does not fit the grid.
    """
    xml = dataset(file, f"{group}/xml", path)
    header = read_header(xml[()] if xml.shape == () else xml[0], path)
    if header.trajectory == "epi":
        raise DataError(
            f"{path}: an EPI scan, which needs regridding and phase correction: correct and convert it first"
        )
    records = dataset(file, f"{group}/data", path, "acquisitions")
    heads = _heads(records, path)
    used = _used(heads, select, path)
    numbers, positions = slice_order(heads[used])
    keep = chosen(len(numbers), slices, path)
    if header.encoded[2] > 1 and (len(numbers) > 1 or slices is not None):
        raise DataError(
            f"{path}: a 3-D scan of {len(numbers)} slabs: only one whole slab can be read at once"
        )
    numbers, positions = numbers[keep], positions[keep]
    used &= np.isin(heads["idx"]["slice"], numbers)
    coils = _only(heads[used]["active_channels"], "numbers of coils", path)
    scan, imaging, calibration = _sorted(records, heads, used, numbers, coils, header, path)
    noise = noise_covariance(records, heads, _flagged(heads, _NOISE), coils, path)
    if noise is not None:
        noise = _at_readout(noise, heads, imaging, header, scan.averages)
    encoded, matrix, spacing, affine = placed(heads[used][0], positions, header)
    return KSpace(
        array=finite(scan.array, path),
        mask=None if scan.mask is None else compact(scan.mask, path),
        trajectory=scan.trajectory,
        noise=noise,
        calibration=calibration,
        dimensions=3 if header.encoded[2] > 1 else 2,
        encoded=encoded,
        matrix=matrix,
        spacing=spacing,
        affine=affine,
        units="a.u.",
        name=name,
    )


def _sorted(records, heads, used, numbers, coils, header, path):
    """Returns the sorted image, the acquisitions that it is made of, and the calibration lines or None."""
    has_points = heads[used]["trajectory_dimensions"].any() and header.trajectory != "cartesian"
    if not has_points and header.trajectory not in ("cartesian", ""):
        raise DataError(
            f"{path}: a {header.trajectory} scan without its trajectory: convert it again with trajectories"
        )
    calibration = used & _flagged(heads, _CALIBRATION, _CALIBRATION_AND_IMAGING)
    calibration_only = _flagged(heads, _CALIBRATION) & ~_flagged(heads, _CALIBRATION_AND_IMAGING)
    imaging = used if header.calibration == "embedded" else used & ~calibration_only
    if not imaging.any():
        raise DataError(f"{path}: holds calibration lines only: give the file of the scan itself")
    sort = sorted_readouts if has_points else sorted_cartesian
    scan = sort(records, heads, imaging, numbers, coils, header, path)
    if has_points or not calibration.any():
        return scan, imaging, None
    lines = sort(records, heads, calibration, numbers, coils, header, path)
    return scan, imaging, finite(lines.array, path)


def _heads(records, path):
    if (
        records.ndim != 1
        or records.dtype.names is None
        or not {"head", "traj", "data"} <= set(records.dtype.names)
    ):
        raise DataError(
            f"{path}: its data are not ISMRMRD acquisitions (head, traj, data): convert the scan again"
        )
    if records.shape[0] == 0:
        raise DataError(f"{path}: holds no acquisition: convert the scan again")
    return records.fields("head")[:]


def _flagged(heads, *bits):
    return (heads["flags"] & np.uint64(sum(1 << (bit - 1) for bit in bits))) != 0


def _used(heads, select, path):
    """Marks the acquisitions of the one image that is asked for."""
    used = ~_flagged(heads, _NOISE, *_NOT_IMAGING) & (heads["encoding_space_ref"] == 0)
    for counter, value in select.items():
        if counter not in COUNTERS:
            raise DataError(f"{path}: '{counter}' cannot be selected: use {', '.join(COUNTERS)}")
        used &= heads["idx"][counter] == value
    if not used.any():
        wanted = f" with {dict(select)}" if select else ""
        raise DataError(f"{path}: holds no image acquisition{wanted}: choose counters that were measured")
    counts = {counter: len(np.unique(heads["idx"][counter][used])) for counter in COUNTERS}
    several = {counter: count for counter, count in counts.items() if count > 1}
    if several:
        held = ", ".join(f"{count} values of {counter}" for counter, count in several.items())
        raise DataError(
            f"{path}: holds {held}: choose one image, for example select={dict.fromkeys(several, 0)}"
        )
    if _flagged(heads, *_COMPRESSED)[used].any():
        raise DataError(f"{path}: its samples are compressed: convert the scan again without compression")
    return used


def _only(values, what, path):
    found = np.unique(values)
    if len(found) > 1:
        raise DataError(f"{path}: holds {what} {found.tolist()}: convert one image only")
    return int(found[0])


def _at_readout(noise, heads, imaging, header, averages):
    """Scales the covariance from the bandwidth of the noise scan to that of the image, and to its averages."""
    image_time = float(heads["sample_time_us"][imaging].mean())
    noise_time = float(heads["sample_time_us"][_flagged(heads, _NOISE)].mean())
    ratio = noise_time / (image_time * header.bandwidth) if min(image_time, noise_time) > 0 else 1.0
    return (noise * ratio / averages).astype(np.complex64)

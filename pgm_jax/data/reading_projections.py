"""One function that reads the projections of any supported file."""

from pathlib import Path

import numpy as np

from pgm_jax.data.errors import DataError
from pgm_jax.data.hdf5 import SUFFIXES, dataset, opened
from pgm_jax.data.npy import held_arrays
from pgm_jax.data.projections import COUNTS, LINE_INTEGRALS, Projections

_MEASURED = {"counts": COUNTS, "line_integrals": LINE_INTEGRALS}
_OTHERS = ("blank", "dark", "angles", "survival", "normalisation", "randoms", "scatter")


def read_projections(
    path, *, units: str = LINE_INTEGRALS, rows: range | None = None, name: str = "projections"
) -> Projections:
    """Reads projections from NPY, NPZ and HDF5 files.

    An NPY file, or an NPZ file of one array, holds (views, bins), (views, rows, bins), or with time of flight
    (views, rows, bins, times). Other NPZ files, and HDF5 files by data sets at their root, hold `counts` or
    `line_integrals` of these shapes and may hold `blank`, `dark`, `angles` in radians, and for PET `survival`,
    `normalisation`, `randoms` and `scatter`; see `Projections`.

    HDF5 files of synchrotrons (`exchange/data`, `data_white`, `data_dark`, `theta`) hold counts (views, rows, bins)
    and frames without an object and without a beam, which are averaged; theta is in degrees unless its units say
    radians. Source: F. De Carlo et al., Scientific data exchange: a schema for HDF5-based storage of raw and
    analyzed data, J. Synchrotron Radiation 21 (2014).

    Args:
        path: .npy, .npz, .h5, .hdf5 or .hdf file.
        units: units of an array without a name: "line integrals" or "counts".
        rows: which rows of the detector to read; all by default. Of HDF5 files nothing else is read.
        name: name of the scan; not that of the file, which often names the patient.

    Returns:
        The `Projections`.

    Raises:
        DataError: if the file is damaged, of another kind or shape, or holds negative counts or values that are not
            finite.
        MissingExtra: if h5py is needed and not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file: check the path")
    if units not in _MEASURED.values():
        raise DataError(
            f"read_projections: units '{units}' are not known: use '{COUNTS}' or '{LINE_INTEGRALS}'"
        )
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        with opened(path) as file:
            if "exchange" in file:
                return _of_exchange(path, file, rows, name)
            held = {key: file[key] for key in (*_MEASURED, *_OTHERS) if key in file}
            if not _MEASURED.keys() & held.keys():
                raise DataError(
                    f"{path}: holds neither 'exchange/data' nor 'counts' nor 'line_integrals': add one"
                )
            return _of_arrays(path, held, units, rows, name)
    if suffix not in (".npy", ".npz"):
        raise DataError(
            f"{path}: unknown kind of projection file: use {', '.join((*SUFFIXES, '.npy', '.npz'))}"
        )
    return _of_arrays(path, held_arrays(path, "projections"), units, rows, name)


def _of_exchange(path, file, rows, name):
    stored = dataset(file, "exchange/data", path, "views, rows, bins")
    if stored.ndim != 3:
        raise DataError(
            f"{path}: exchange/data of shape {stored.shape} is not (views, rows, bins): convert it"
        )
    part = _part(rows, stored.shape[1], path)
    array = _checked(stored[:, part], "exchange/data", path)
    dark = _mean_frame(file, "exchange/data_dark", stored.shape, part, path)
    blank = _mean_frame(file, "exchange/data_white", stored.shape, part, path)
    if blank is not None and dark is not None:
        blank = blank - dark
    angles = None
    if "exchange/theta" in file:
        theta = dataset(file, "exchange/theta", path)
        unit = theta.attrs.get("units", "degree")
        unit = unit.decode(errors="replace") if isinstance(unit, bytes) else str(unit)
        angles = _angles(theta[()], len(array), path)
        angles = angles if unit.lower().startswith("rad") else np.deg2rad(angles)
    return Projections(array, COUNTS, blank, dark, angles, None, None, None, None, name)


def _mean_frame(file, key, shape, part, path):
    if key not in file:
        return None
    frames = dataset(file, key, path)
    if frames.ndim != 3 or frames.shape[0] == 0 or frames.shape[1:] != shape[1:]:
        raise DataError(
            f"{path}: {key} of shape {frames.shape} does not fit projections {shape}: convert it again"
        )
    return _checked(frames[:, part], key, path).mean(axis=0, dtype=np.float64).astype(np.float32)


def _of_arrays(path, held, units, rows, name):
    measured = [key for key in held if key not in _OTHERS]
    if len(measured) != 1:
        raise DataError(
            f"{path}: holds the arrays {sorted(held)}: it needs one of 'counts' and 'line_integrals', others may "
            f"be {', '.join(_OTHERS)}"
        )
    units = _MEASURED.get(measured[0], units)
    stored = held[measured[0]].shape
    if len(stored) not in (2, 3, 4):
        raise DataError(
            f"{path}: projections {stored} are not (views, bins) or (views, rows, bins): save them so"
        )
    full = stored if len(stored) > 2 else (stored[0], 1, stored[1])
    part = _part(rows, full[1], path)
    line, frame = full[:3], full[1:3]

    def taken(key, *shapes):
        if key not in held:
            return None
        signed = units == LINE_INTEGRALS and key == measured[0]
        for shape in shapes:
            if (values := _values(held[key], shape, 0 if shape == frame else 1, part)) is not None:
                return _checked(values, key, path, signed)
        raise DataError(
            f"{path}: {key} of shape {held[key].shape} does not fit projections {stored}: mend it"
        )

    survival = taken("survival", line)
    if survival is not None and survival.max() > 1 + 1e-6:
        raise DataError(
            f"{path}: survival reaches {survival.max():g}: give the share of photon pairs that leave the body, "
            f"1 / (attenuation correction factor)"
        )
    return Projections(
        array=taken(measured[0], full),
        units=units,
        blank=taken("blank", frame, line),
        dark=taken("dark", frame, line),
        angles=_angles(held["angles"][()], full[0], path) if "angles" in held else None,
        survival=survival,
        normalisation=taken("normalisation", line),
        randoms=taken("randoms", full),
        scatter=taken("scatter", full),
        name=name,
    )


def _values(stored, shape, row, part):
    """Reads the wanted rows, axis `row`, of an array of this shape; None if it has another. One row may lack it."""
    if stored.shape == shape:
        return stored[(slice(None),) * row + (part,)]
    if shape[row] == 1 and stored.shape == shape[:row] + shape[row + 1 :]:
        return stored[()].reshape(shape)
    return None


def _part(rows, count, path):
    if rows is None:
        return slice(None)
    if len(rows) == 0 or rows.step < 1 or rows.start < 0 or rows[-1] >= count:
        raise DataError(f"{path}: has rows 0 to {count - 1}, not {rows}: give a rising range inside them")
    return slice(rows.start, rows.stop, rows.step)


def _checked(values, key, path, signed: bool = False):
    """Returns values as float32 after checking that they are real, finite and, unless signed, not negative."""
    values = np.asarray(values)
    if values.size == 0 or values.dtype.kind not in "buif":
        raise DataError(f"{path}: {key} holds no real numbers ({values.dtype} {values.shape}): save it again")
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    bad = values.size - int(np.count_nonzero(np.isfinite(values)))
    if bad:
        raise DataError(
            f"{path}: {bad} of {values.size} values of {key} are NaN or infinite: repair them first"
        )
    if not signed and values.min() < 0:
        raise DataError(
            f"{path}: {key} reaches {values.min():g}, but counts and factors are not negative: mend it"
        )
    return values


def _angles(values, views, path):
    values = np.asarray(values, np.float64)
    if values.shape != (views,) or not np.all(np.isfinite(values)):
        raise DataError(
            f"{path}: angles of shape {values.shape} are not {views} finite numbers, one a view: mend them"
        )
    return values

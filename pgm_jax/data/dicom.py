"""DICOM slices and series, read without ever parsing a patient's fields."""

from collections import Counter
from pathlib import Path

import numpy as np

from pgm_jax.core import require
from pgm_jax.data.errors import DataError
from pgm_jax.data.volume import Volume, canonical, checked

# pydicom parses these and nothing else, so no patient field is ever in memory, in a warning or in an error.
_FIELDS = (
    "Modality", "SeriesInstanceUID", "SeriesNumber", "Rows", "Columns", "SamplesPerPixel", "NumberOfFrames",
    "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "BurnedInAnnotation", "PixelSpacing", "ImagerPixelSpacing", "SliceThickness", "ImagePositionPatient",
    "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept", "Units", "PixelData", "FloatPixelData",
)  # fmt: skip


def read_dicom(path, *, series: int | None = None, name: str | None = None) -> Volume:
    """Reads one DICOM slice, or the one series in a folder, into the canonical order of `Volume`.

    Slices are sorted by their position along the slice normal; RescaleSlope and RescaleIntercept are
    applied slice by slice. Only the fields that describe pixels and geometry are parsed.

    Args:
        path: a DICOM file, or a folder whose files (and those of its sub-folders) hold the series.
        series: the SeriesNumber to read from a folder that holds several.
        name: name of the volume; "dicom" by default, because file and folder names often name the patient.

    Returns:
        The volume, (depth, height, width, 1), in HU for CT, in the file's Units for PET, else "a.u.".
        `spacing` and `affine` are None and the axes are kept for a slice without geometry.
        A single slice that states no SliceThickness is taken as 1 mm thick.

    Raises:
        DataError: if a file is damaged, compressed without a decoder, in colour, multi-frame or marked as
            carrying burned-in patient data; if there are several series; if slices are missing, repeated
            or of different sizes; if pixels are not finite.
        MissingExtra: if pydicom is not installed.
    """
    path = Path(path)
    slices = _choose(_slices(path), series, path)
    for file, dataset in slices:
        _refuse(file, dataset)
    pixels, planes = zip(*(_decode(file, dataset) for file, dataset in slices), strict=True)
    units = {"CT": "HU"}.get(slices[0][1].get("Modality"), str(slices[0][1].get("Units", "a.u.")))
    name = "dicom" if name is None else name
    sizes = sorted({image.shape for image in pixels})
    if len(sizes) > 1:
        raise DataError(f"{path}: slices have different sizes {sizes}: keep one stack only")
    if any(plane is None for plane in planes):
        if len(slices) > 1:
            raise DataError(f"{path}: slices without ImagePositionPatient or PixelSpacing cannot be sorted")
        array = checked(pixels[0], path)[None, :, :, None]
        return Volume(array, None, None, units, name, orientation="unknown")
    order, affine = _stack(planes, slices[0][1], path)
    array, spacing, affine = canonical(checked(np.stack([pixels[n] for n in order]), path), affine, path)
    return Volume(array[..., None], spacing, affine, units, name)


def _slices(path):
    pydicom = require("pydicom", "io")
    is_dicom = require("pydicom.misc", "io").is_dicom
    found = []
    for file in [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file()):
        if not is_dicom(file):
            if file == path or file.suffix.lower() in (".dcm", ".ima"):
                raise DataError(f"{file}: damaged, or not a DICOM file: copy or export it again")
            continue
        try:
            dataset = pydicom.dcmread(file, specific_tags=list(_FIELDS))
            if "Rows" in dataset:  # reports, structures and DICOMDIR files have no pixels
                found.append((file, dataset))
        except Exception as error:  # damaged files raise whatever their parser trips over
            raise _damaged(file, error) from None
    if not found:
        raise DataError(f"{path}: holds no DICOM image: give a folder with the files of one series")
    return found


def _damaged(file, error) -> DataError:
    kind = type(error).__name__
    return DataError(f"{file}: damaged or incomplete DICOM file ({kind}): copy or export it again")


def _choose(slices, series, path):
    def label(dataset):
        fields = ("SeriesInstanceUID", "Modality", "SeriesNumber")
        return tuple(str(dataset.get(field, "")) for field in fields)

    chosen = [pair for pair in slices if series is None or label(pair[1])[2] == str(series)]
    if len({label(dataset) for _, dataset in chosen}) == 1:
        return chosen
    counts = Counter(label(dataset) for _, dataset in slices)
    held = ", ".join(
        f"{modality} series {number} ({n} slices)" for (_, modality, number), n in counts.items()
    )
    raise DataError(f"{path}: holds {held}: give the series=NUMBER of one, or a folder with one series")


def _refuse(file, dataset) -> None:
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        raise DataError(
            f"{file}: a multi-frame DICOM file: convert it to NIfTI first, for example with dcm2niix"
        )
    if dataset.get("PhotometricInterpretation", "MONOCHROME2") != "MONOCHROME2":
        raise DataError(f"{file}: its pixels are not plain grey values (MONOCHROME2): convert it first")
    if str(dataset.get("BurnedInAnnotation", "NO")).upper() == "YES":
        raise DataError(
            f"{file}: is marked as showing patient data in its pixels: remove it from the pixels first"
        )


def _decode(file, dataset):
    """Returns the rescaled pixels (rows, columns), and (position, row axis, column axis, spacing) or None."""
    try:
        pixels = dataset.pixel_array
    except Exception as error:
        syntax = getattr(dataset.file_meta, "TransferSyntaxUID", None)
        if (
            syntax is not None
            and syntax.is_compressed
            and isinstance(error, (RuntimeError, NotImplementedError))
        ):
            raise DataError(
                f"{file}: its pixels are compressed ({syntax.name}) and cannot be decoded: run  pip install "
                f'"pylibjpeg[all]"  or decompress the files first, for example with gdcmconv --raw'
            ) from None
        raise _damaged(file, error) from None
    try:
        slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
        slope, intercept = (
            1.0 if slope is None else float(slope),
            0.0 if intercept is None else float(intercept),
        )
        pixels = pixels.astype(np.float64) * slope + intercept
        spacing = dataset.get("PixelSpacing") or dataset.get("ImagerPixelSpacing")
        position, axes = dataset.get("ImagePositionPatient"), dataset.get("ImageOrientationPatient")
        if not (spacing and position and axes):
            return pixels, None
        along, down = np.array(axes, float).reshape(2, 3)
        return pixels, (
            np.array(position, float).reshape(3),
            along,
            down,
            np.array(spacing, float).reshape(2),
        )
    except Exception as error:
        raise _damaged(file, error) from None


def _stack(planes, dataset, path):
    """Sorts the slices; returns their order and the affine of (slice, row, column) to RAS in mm."""
    _, along, down, spacing = planes[0]
    same = all(np.allclose(a, along, atol=1e-3) and np.allclose(d, down, atol=1e-3) for _, a, d, _ in planes)
    if not same or not all(np.allclose(s, spacing, rtol=1e-3) for *_, s in planes):
        raise DataError(
            f"{path}: slices differ in direction or pixel size (a scout among them?): keep one stack only"
        )
    normal = np.cross(along, down)
    heights = np.array([position @ normal for position, *_ in planes])
    order = np.argsort(heights)
    steps = np.diff(heights[order])
    if len(planes) == 1:
        thickness = dataset.get("SliceThickness")
        step = float(thickness) if thickness else 1.0
    else:
        step = float(np.median(steps))
        if steps.min() < 1e-3:
            raise DataError(
                f"{path}: several slices share one position (phases or echoes?): keep one of them"
            )
        if np.abs(steps - step).max() > 0.02 * step + 0.01:
            raise DataError(
                f"{path}: slices are {steps.min():g} to {steps.max():g} mm apart: some are missing"
            )
    affine = np.eye(4)
    affine[:3, :3] = np.stack([normal * step, down * spacing[0], along * spacing[1]], axis=1)
    affine[:3, 3] = planes[order[0]][0]
    return order, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine

"""Volumes to derived DICOM series that hold nothing of the patient but the pixels."""

import re
import time
from pathlib import Path

import numpy as np

from pgm_jax.core import require
from pgm_jax.data.dicom_values import (
    EMPTY_FIELDS,
    TECHNICAL_FIELDS,
    TYPE_FIELDS,
    decimal_string,
    pet_units,
    quantised,
    window_fields,
)
from pgm_jax.data.errors import DataError
from pgm_jax.data.volume import Volume, grey
from pgm_jax.data.whole import whole_folder

_CLASSES = {
    "CT": "CTImageStorage",
    "MR": "MRImageStorage",
    "PT": "PositronEmissionTomographyImageStorage",
}


def write_dicom(
    folder,
    volume: Volume,
    template=None,
    *,
    modality: str | None = None,
    description: str = "pgm_jax reconstruction",
    overwrite: bool = False,
) -> None:
    """Writes a volume as a new DICOM series of derived images, one file a slice, 0001.dcm and so on.

    Every data set is built from nothing, so no patient, institution, date or identifier can be carried over: study,
    series, instances and frame of reference get new random UIDs (the old ones would lead back to the patient),
    what the standard wants of the patient is there and empty, and the series is marked as de-identified, with the
    Basic Application Confidentiality Profile (PS3.15 annex E). Positions and directions are those of the affine.
    ImageType is DERIVED\\SECONDARY (PS3.3 C.7.6.1.1.2). Pixels are 16-bit integers with one RescaleSlope and
    RescaleIntercept: exact for whole numbers of 16 bits, else to within half of 1/65535 (CT) of their range or
    1/32767 (MR, PET: intercept 0, as PET demands) of their largest magnitude.

    Args:
        folder: folder to write.
        volume: real volume of one channel with an affine.
        template: DICOM file or folder of the acquisition, or None. Only its modality and coded or numeric settings
            of the scanner are read: KVP, sequence, TR, TE, patient position and the like.
        modality: "CT", "MR" or "PT"; by default that of the template, and CT for HU.
        description: SeriesDescription and DerivationDescription, at most 64 characters. Never name a patient here.
        overwrite: whether a folder that holds only .dcm files may be replaced.

    Raises:
        DataError: if the modality is unknown or contradicts the template, the volume is complex or without affine,
            its rows and columns are not perpendicular, or the folder cannot be written.
        MissingExtra: if pydicom is not installed.
    """
    folder, array = Path(folder), grey(volume, folder)
    if np.iscomplexobj(array):
        raise DataError(f"{folder}: DICOM holds real pixels: write the magnitude, or use NIfTI or NPZ")
    if len(description) > 64 or not description.isprintable() or "\\" in description:
        raise DataError(
            f"{folder}: a description has at most 64 printable characters and no backslash: shorten it"
        )
    settings = {} if template is None else _settings(Path(template))
    modality = _modality(folder, volume, settings.pop("Modality", None), modality)
    places = _places(folder, volume)
    stored, slope, intercept = quantised(array, modality)
    series = {
        **_identity(modality, description),
        **TYPE_FIELDS[modality],
        **{name: value for name, value in settings.items() if name in TECHNICAL_FIELDS[modality]},
        **window_fields(array, modality),
        "RescaleSlope": slope,
        "RescaleIntercept": intercept,
    }
    if modality == "PT":
        series |= {"Units": pet_units(volume.units), "NumberOfSlices": len(array)}
        series |= {"SeriesDate": time.strftime("%Y%m%d"), "SeriesTime": time.strftime("%H%M%S")}
    with whole_folder(folder, ".dcm", overwrite) as partial:
        for n, (pixels, place) in enumerate(zip(stored, places, strict=True), 1):
            image = {"ImageIndex": n} if modality == "PT" else {}
            _save(partial / f"{n:04d}.dcm", pixels, {**series, **place, **image, "InstanceNumber": n})


def _settings(path):
    """Reads the scanner's settings from one file of a template, and no other field."""
    pydicom, is_dicom = require("pydicom", "io"), require("pydicom.misc", "io").is_dicom
    wanted = ["Modality", *dict.fromkeys(name for names in TECHNICAL_FIELDS.values() for name in names)]
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    for file in files:
        try:
            if is_dicom(file):
                dataset = pydicom.dcmread(file, specific_tags=wanted, stop_before_pixels=True)
                found = {name: dataset.get(name) for name in wanted}
                found = {name: value for name, value in found.items() if _is_setting(value)}
                if "Modality" not in found:
                    raise DataError(f"{file}: states no modality: give another template")
                return found
        except DataError:
            raise
        except Exception as error:  # damaged files raise whatever their parser trips over
            kind = type(error).__name__
            raise DataError(
                f"{file}: damaged or incomplete DICOM file ({kind}): give another template"
            ) from None
    raise DataError(f"{path}: holds no DICOM file to take the scanner's settings from: give another template")


def _is_setting(value):
    """Says whether a value is a number or a code such as GR, or several: text that could tell more is left out."""
    values = [value] if value is None or isinstance(value, (str, int, float)) else list(value)
    numbers_or_codes = (
        isinstance(v, (int, float)) or re.fullmatch("[A-Z0-9_]{1,16}", str(v)) for v in values
    )
    return bool(values) and value is not None and all(numbers_or_codes)


def _modality(folder, volume, of_template, given):
    modality = given or of_template or ("CT" if volume.units == "HU" else None)
    if modality not in _CLASSES:
        raise DataError(
            f"{folder}: a series of modality {modality} cannot be written: give one of CT, MR, PT"
        )
    if of_template not in (None, modality):
        raise DataError(
            f"{folder}: modality {modality} contradicts the template, which is {of_template}: give one"
        )
    if modality == "CT" and volume.units != "HU":
        raise DataError(
            f"{folder}: a CT series holds HU, this volume {volume.units}: convert it, HU = 1000 (mu / mu_water - 1)"
        )
    return modality


def _places(folder, volume):
    """Returns the fields of position of each slice, LPS in mm."""
    if volume.affine is None:
        raise DataError(
            f"{folder}: the volume does not say how it lies in the patient, so left and right could be exchanged: "
            f"give it an affine, or write NIfTI or NPZ"
        )
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.asarray(volume.affine, np.float64)
    step, down, along = lps[:3, :3].T
    rows, columns = np.linalg.norm(down), np.linalg.norm(along)
    if abs(down @ along) > 1e-4 * rows * columns:
        raise DataError(f"{folder}: rows and columns of the volume are not perpendicular: resample it first")
    normal = np.cross(along, down) / (rows * columns)
    numbers = {
        "PixelSpacing": [rows, columns],
        "SliceThickness": abs(step @ normal),
        "ImageOrientationPatient": [*(along / columns), *(down / rows)],
    }
    for n in range(volume.array.shape[0]):
        corner = lps[:3, 3] + n * step
        yield {**numbers, "ImagePositionPatient": list(corner), "SliceLocation": corner @ normal}


def _identity(modality, description):
    """Returns what is the same for every image of the new series and says whose and what it is: nobody's."""
    pydicom_uid = require("pydicom.uid", "io")
    code = require("pydicom.dataset", "io").Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "113100", "DCM"
    code.CodeMeaning = "Basic Application Confidentiality Profile"
    new = {name: pydicom_uid.generate_uid(prefix=None) for name in ("Study", "Series")}
    return {
        **dict.fromkeys(EMPTY_FIELDS, ""),
        "SOPClassUID": getattr(pydicom_uid, _CLASSES[modality]),
        "StudyInstanceUID": new["Study"],
        "SeriesInstanceUID": new["Series"],
        "FrameOfReferenceUID": pydicom_uid.generate_uid(prefix=None),
        "Modality": modality,
        "SeriesNumber": 1,
        "SeriesDescription": description,
        "DerivationDescription": description,
        "Manufacturer": "pgm_jax",
        "PatientIdentityRemoved": "YES",
        "DeidentificationMethod": "New data set; only scanner settings and geometry are kept",
        "DeidentificationMethodCodeSequence": [code],
        "LongitudinalTemporalInformationModified": "REMOVED",
        "BurnedInAnnotation": "NO",
    }


def _save(path, pixels, fields):
    dataset_module, uid = require("pydicom.dataset", "io"), require("pydicom.uid", "io")
    meta = dataset_module.FileMetaDataset()
    meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset = dataset_module.FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    for name, value in fields.items():
        if isinstance(value, float):
            value = decimal_string(value)
        elif isinstance(value, list) and value and isinstance(value[0], float):
            value = [decimal_string(number) for number in value]
        setattr(dataset, name, value)
    dataset.SOPInstanceUID = uid.generate_uid(prefix=None)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.PixelData = pixels.astype("<i2").tobytes()
    dataset.save_as(path, enforce_file_format=True)

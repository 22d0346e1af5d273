"""Tables and numbers of the DICOM standard for derived series (PS3.3 A.3, A.4, A.21)."""

import numpy as np

from pgm_jax.core import require

# Type 2 of the standard: there, without a value.
EMPTY_FIELDS = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber",
    "ReferringPhysicianName", "StudyID", "PositionReferenceIndicator", "PatientPosition",
)  # fmt: skip

# Codes and numbers of the scanner that a template may give. None is free text, a date or a name.
TECHNICAL_FIELDS = {
    "CT": ("PatientPosition", "KVP"),
    "MR": (
        "PatientPosition", "ScanningSequence", "SequenceVariant", "ScanOptions", "MRAcquisitionType",
        "RepetitionTime", "EchoTime", "InversionTime", "FlipAngle", "EchoTrainLength", "MagneticFieldStrength",
    ),
    "PT": (
        "PatientPosition", "CountsSource", "DecayCorrection", "CorrectedImage", "FrameReferenceTime",
        "ActualFrameDuration",
    ),
}  # fmt: skip

# What the module of each modality demands, for a series that no template describes.
TYPE_FIELDS = {
    "CT": {"ImageType": ["DERIVED", "SECONDARY", "AXIAL"], "KVP": "", "AcquisitionNumber": ""},
    "MR": {
        "ImageType": ["DERIVED", "SECONDARY", "OTHER"], "ScanningSequence": "RM", "SequenceVariant": "NONE",
        "ScanOptions": "", "MRAcquisitionType": "", "RepetitionTime": "", "EchoTime": "", "EchoTrainLength": "",
    },
    "PT": {
        "ImageType": ["DERIVED", "SECONDARY"], "SeriesType": ["STATIC", "IMAGE"], "CountsSource": "EMISSION",
        "DecayCorrection": "NONE", "CorrectedImage": "", "CollimatorType": "", "FrameReferenceTime": "0",
        "AcquisitionDate": "", "AcquisitionTime": "", "ActualFrameDuration": "",
        "RadiopharmaceuticalInformationSequence": [], "PatientOrientationCodeSequence": [],
        "PatientGantryRelationshipCodeSequence": [],
    },
}  # fmt: skip

_PET_UNITS = ("CNTS", "NONE", "CPS", "BQML", "PROPCNTS", "PROPCPS", "1CM", "GML", "STDDEV")
_CT_WINDOW = (40.0, 400.0)  # level and width of soft tissue, HU


def pet_units(units: str) -> str:
    """Returns the code of PET Units (PS3.3 C.8.9.1.1.3): SUV by body weight is GML, and what has no code is NONE.

    Args:
        units: units of a volume.

    Returns:
        The code.
    """
    return units if units in _PET_UNITS else {"SUV": "GML", "Bq/ml": "BQML"}.get(units, "NONE")


def quantised(array, modality: str):
    """Rounds pixels to 16-bit integers, `stored = round((array - intercept) / slope)`.

    Args:
        array: real array of any shape.
        modality: "CT" may have an intercept; others have none.

    Returns:
        Stored int16 array, slope > 0 and intercept, both exactly as their 16 characters say.
    """
    values, limits = np.asarray(array, np.float64), np.iinfo(np.int16)
    low, high = float(values.min()), float(values.max())
    if limits.min <= low and high <= limits.max and np.array_equal(values, np.rint(values)):
        return values.astype(np.int16), 1.0, 0.0
    if modality == "CT" and high > low:
        slope = float(decimal_string((high - low) / (limits.max - limits.min)))
        intercept = float(decimal_string(low - limits.min * slope))
    else:
        slope, intercept = float(decimal_string(max(abs(low), abs(high)) / limits.max)), 0.0
    stored = np.clip(np.rint((values - intercept) / slope), limits.min, limits.max)
    return stored.astype(np.int16), slope, intercept


def window_fields(array, modality: str) -> dict:
    """Returns the window that a viewer opens with: soft tissue for CT, else from 0 to the 99.5th percentile.

    Args:
        array: real pixels.
        modality: modality of the series.

    Returns:
        WindowCenter, WindowWidth and, where a width below 1 must be allowed, VOILUTFunction.
    """
    if modality == "CT":
        return {"WindowCenter": _CT_WINDOW[0], "WindowWidth": _CT_WINDOW[1]}
    low, high = np.percentile(array, (0.5, 99.5))
    low = min(float(low), 0.0)
    width = max(float(high) - low, 1e-30)
    return {"WindowCenter": low + width / 2, "WindowWidth": width, "VOILUTFunction": "LINEAR_EXACT"}


def decimal_string(value: float) -> str:
    """Writes a number in the 16 characters that DICOM allows.

    Args:
        value: finite number.

    Returns:
        The text, rounded where 16 characters are too few.
    """
    return require("pydicom.valuerep", "io").format_number_as_ds(float(value))

"""Geometry files: how a scan was measured and what image to make of it."""

import difflib
import json
import tomllib
from pathlib import Path

import numpy as np

from pgm_jax.data import geometry_records as records
from pgm_jax.data.errors import DataError

GEOMETRIES = {
    "parallel": records.ParallelScan,
    "fan": records.FanScan,
    "cone": records.ConeScan,
    "helical": records.HelicalScan,
    "vector": records.VectorScan,
    "pet": records.PETScan,
    "spect": records.SPECTScan,
    "radial": records.RadialScan,
    "kooshball": records.KooshballScan,
    "spiral": records.SpiralScan,
    "trajectory": records.TrajectoryScan,
}
"""Records by the name of the geometry."""

_VOLUMES = ("cone", "helical", "vector", "kooshball")
_STACKS = ("spect", "trajectory")  # slices or a volume


def read_geometry(path):
    """Reads a geometry file, JSON or TOML, for example

        {"geometry": "fan", "angles": {"unit": "degrees", "start": 0, "stop": 360, "count": 720},
         "source_to_axis": 595, "source_to_detector": 1085.6, "bins": 736, "spacing": 1.2858, "detector": "arc",
         "image": {"shape": [512, 512], "spacing": [0.7, 0.7]}}

    "geometry" is one of `GEOMETRIES`, whose record names the other fields. Lengths are mm. Angles state their unit
    and are `values`, or `start`, `stop` (left out) and `count`, or an NPY `file`; or "projections" where the file
    of the projections holds them. `vectors`, `points` and `affine` are nested lists or {"file": NAME}, an NPY file
    beside the geometry file.

    Args:
        path: .json or .toml file.

    Returns:
        The frozen record of the geometry.

    Raises:
        DataError: if the file is damaged, a field is unknown (with the nearest known one), missing or of another
            kind, angles have no unit, or lengths contradict each other as if some were not in mm.
    """
    path = Path(path)
    content = _content(path)
    name = content.get("geometry") if isinstance(content, dict) else None
    if not isinstance(name, str) or name not in GEOMETRIES:
        near = difflib.get_close_matches(str(name), GEOMETRIES, 1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise DataError(
            f"{path}: its geometry is {json.dumps(name, default=str)}{hint} Use {', '.join(GEOMETRIES)}"
        )
    del content["geometry"]
    record = records.filled(GEOMETRIES[name], content, str(path), path.parent)
    _require_image(record.image, name, path)
    if name in ("fan", "cone", "helical"):
        _require_distances(record, path)
    if hasattr(record, "spacing"):
        _require_scale(record, path)
    return record


def _content(path):
    def once(pairs):
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            raise ValueError("a field is given twice")
        return dict(pairs)

    suffix = path.suffix.lower()
    if suffix not in (".json", ".toml"):
        raise DataError(f"{path}: unknown kind of geometry file: use .json or .toml")
    try:
        text = path.read_text(encoding="utf-8")
        return tomllib.loads(text) if suffix == ".toml" else json.loads(text, object_pairs_hook=once)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}): check the path") from None
    except ValueError as error:  # what the parsers raise, with the place in the file
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: not a {suffix[1:].upper()} file ({reason}): mend it") from None


def _require_image(image, kind, path):
    axes = len(image.shape)
    if len(image.spacing) != axes or (kind not in _STACKS and axes != (3 if kind in _VOLUMES else 2)):
        wanted = "(depth, height, width)" if kind in _VOLUMES else "(height, width)"
        raise DataError(
            f"{path}: image of shape {image.shape} and spacing {image.spacing} does not fit '{kind}': give "
            f"{wanted} and as many spacings"
        )


def _require_distances(record, path):
    if record.source_to_axis > record.source_to_detector:
        raise DataError(
            f"{path}: source_to_axis {record.source_to_axis:g} is beyond source_to_detector "
            f"{record.source_to_detector:g}: are the two exchanged?"
        )
    half = np.hypot(
        *(n * h / 2 for n, h in zip(record.image.shape[-2:], record.image.spacing[-2:], strict=True))
    )
    if half >= record.source_to_axis:
        raise DataError(
            f"{path}: the source, {record.source_to_axis:g} mm from the axis, lies in the image, which reaches "
            f"{half:.0f} mm: are all lengths in mm?"
        )


def _require_scale(record, path):
    """Refuses lengths of which some are in m or cm: no detector is 20 times as wide as its image, or 1/20."""
    across = getattr(record, "columns", None) or record.bins
    step = record.spacing[1] if isinstance(record.spacing, tuple) else record.spacing
    magnification = getattr(record, "source_to_detector", 1.0) / getattr(record, "source_to_axis", 1.0)
    seen, wide = across * step / magnification, record.image.shape[-1] * record.image.spacing[-1]
    if not 1 / 20 < seen / wide < 20:
        raise DataError(
            f"{path}: the detector sees {seen:g} mm of an image that is {wide:g} mm wide: are all lengths in mm?"
        )

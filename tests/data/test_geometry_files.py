"""Geometry files: what is read, with the words of the operators, and what is refused."""

import copy
import dataclasses
import json

import numpy as np
import pytest

from pgm_jax.data import DataError
from pgm_jax.data.geometry_file import GEOMETRIES, read_geometry
from pgm_jax.operators.ct import geometry, geometry3d
from pgm_jax.operators.mri import trajectories

FULL = {"unit": "degrees", "start": 0, "stop": 360, "count": 8}
PLANE = {"shape": [4, 6], "spacing": [2, 1.5]}
SOLID = {"shape": [3, 4, 6], "spacing": [2, 2, 1.5]}
CONE = {
    "angles": FULL, "source_to_axis": 100, "source_to_detector": 150.5, "rows": 5, "columns": 7,
    "spacing": [2, 1.5], "image": SOLID,
}  # fmt: skip
FILES = {
    "parallel": {"angles": FULL, "bins": 9, "spacing": 1.25, "offset": -0.5, "image": PLANE},
    "fan": {
        "angles": FULL, "bins": 9, "spacing": 1.25, "source_to_axis": 100, "source_to_detector": 150.5,
        "detector": "arc", "image": PLANE,
    },
    "cone": {**CONE, "offset": [0, 0.375], "tilt": {"unit": "degrees", "values": [90, 0, 0]}},
    "helical": {**CONE, "angles": {**FULL, "stop": 3600, "count": 100}, "pitch": 12.5},
    "vector": {"vectors": {"file": "vectors.npy"}, "rows": 5, "columns": 7, "image": SOLID},
    "pet": {
        "angles": FULL, "bins": 9, "spacing": 1.25, "image": {**PLANE, "slice_spacing": 3}, "psf_fwhm": 4.5,
        "time_of_flight": {"bins": 5, "bin_width": 10, "fwhm": 45},
    },
    "spect": {"angles": FULL, "radius": [100] * 8, "fwhm": 3, "growth": 0.04, "image": SOLID},
    "radial": {"spokes": 5, "readout": 8, "golden": True, "image": PLANE},
    "kooshball": {"spokes": 5, "readout": 8, "image": SOLID},
    "spiral": {"interleaves": 2, "readout": 8, "turns": 1.5, "image": PLANE},
    "trajectory": {"points": [[[0, 0], [1, 2.5]]], "image": PLANE},
}  # fmt: skip


def written(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    return path


def record_of(tmp_path, kind):
    vectors = np.zeros((8, 4, 3))
    vectors[:, 0, 0], vectors[:, 1, 0], vectors[:, 2, 1], vectors[:, 3, 2] = 100, -50, 1, 2
    np.save(tmp_path / "vectors.npy", vectors)
    return read_geometry(written(tmp_path, {"geometry": kind, **FILES[kind]}))


def refused(path):
    with pytest.raises(DataError) as error:
        read_geometry(path)
    text = str(error.value)
    assert "\n" not in text and len(text) < 500 and str(path) in text
    return text


@pytest.mark.parametrize("kind", GEOMETRIES)
def test_every_field_is_read(tmp_path, kind):
    record = record_of(tmp_path, kind)
    assert isinstance(record, GEOMETRIES[kind])
    for name, value in FILES[kind].items():
        if isinstance(value, (int, float, str)):
            assert getattr(record, name) == value and type(getattr(record, name)) in (int, float, str, bool)
    assert record.image.shape == tuple(FILES[kind]["image"]["shape"])
    assert record.image.spacing == tuple(FILES[kind]["image"]["spacing"])
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.image = None


@pytest.mark.parametrize(
    ("kind", "operator"),
    [
        ("parallel", geometry.Parallel),
        ("fan", geometry.Fan),
        ("cone", geometry3d.Cone),
        ("helical", geometry3d.Helical),
        ("vector", geometry3d.Vector),
        ("pet", geometry.Parallel),
    ],
)
def test_records_have_the_words_of_the_operators(tmp_path, kind, operator):
    record = record_of(tmp_path, kind)
    made = operator(**{field.name: getattr(record, field.name) for field in dataclasses.fields(operator)})
    assert made.views == (100 if kind == "helical" else 8)
    grid = geometry.ImageGrid if len(record.image.shape) == 2 else geometry3d.VolumeGrid
    assert grid(record.image.shape, record.image.spacing).shape == record.image.shape
    if kind == "cone":
        np.testing.assert_allclose(made.tilt, (np.pi / 2, 0, 0))


@pytest.mark.parametrize("kind", ["radial", "kooshball", "spiral"])
def test_records_have_the_words_of_the_trajectories(tmp_path, kind):
    record = record_of(tmp_path, kind)
    words = {f.name: getattr(record, f.name) for f in dataclasses.fields(record) if f.name != "image"}
    points = getattr(trajectories, kind)(shape=record.image.shape, **words).points
    assert points.shape[-1] == len(record.image.shape) and points.shape[1] == 8


def test_angles(tmp_path):
    np.save(tmp_path / "angles.npy", np.arange(8) * 45)
    forms = [
        FULL,
        {"unit": "degrees", "values": [45 * n for n in range(8)]},
        {"unit": "radians", "values": [np.pi / 4 * n for n in range(8)]},
        {"unit": "degrees", "file": "angles.npy"},
    ]
    for form in forms:
        record = read_geometry(
            written(tmp_path, {"geometry": "parallel", **FILES["parallel"], "angles": form})
        )
        np.testing.assert_allclose(record.angles, np.pi / 4 * np.arange(8), rtol=1e-15)
    held = {"geometry": "parallel", **FILES["parallel"], "angles": "projections"}
    assert read_geometry(written(tmp_path, held)).angles is None


def test_toml(tmp_path):
    (tmp_path / "a.toml").write_text(
        'geometry = "parallel"\nbins = 9\nspacing = 1.25\nangles = {unit = "degrees", values = [0, 90]}\n'
        "[image]\nshape = [4, 6]\nspacing = [2, 1.5]\n"
        "affine = [[0, 0, -1.5, 1], [0, -2, 0, 2], [3, 0, 0, 3], [0, 0, 0, 1]]\n"
    )
    record = read_geometry(tmp_path / "a.toml")
    np.testing.assert_allclose(record.angles, [0, np.pi / 2])
    assert record.image.affine[2, 0] == 3 and record.offset == 0


def changed(kind, place, value):
    content = copy.deepcopy({"geometry": kind, **FILES[kind]})
    *way, last = place.split(".")
    table = content
    for step in way:
        table = table[step]
    if value is None:
        del table[last]
    else:
        table[last] = value
    return content


@pytest.mark.parametrize(
    ("kind", "place", "value", "words"),
    [
        ("parallel", "geometry", "paralel", "did you mean 'parallel'?"),
        ("parallel", "geometry", ["fan"], "Use parallel, fan"),
        ("parallel", "geometry", None, "its geometry is null"),
        ("fan", "source_to_axes", 5, "no field 'source_to_axes'; did you mean 'source_to_axis'?"),
        ("fan", "source_to_axis", None, "lacks 'source_to_axis'"),
        ("parallel", "image.spacin", [1, 1], "image has no field 'spacin'; did you mean 'spacing'?"),
        ("parallel", "angles", [0, 90], "angles state no unit"),
        ("parallel", "angles", {"values": [0, 90]}, "angles state no unit"),
        ("parallel", "angles.unit", "degree", "use degrees or radians"),
        (
            "parallel",
            "angles",
            {"unit": "radians", "values": [0, 180]},
            "beyond 4 pi: state their unit as degrees",
        ),
        ("parallel", "angles.values", [1], "need one of values, file, or start"),
        ("parallel", "angles", {"unit": "degrees"}, "this has none"),
        ("parallel", "angles", {"unit": "degrees", "values": []}, "not 1 axes of finite numbers"),
        ("parallel", "angles", {"unit": "degrees", "values": [[1], [2, 3]]}, "angles.values cannot be read"),
        ("parallel", "angles", {"unit": "degrees", "values": [0, float("nan")]}, "of finite numbers"),
        ("parallel", "angles", {"unit": "degrees", "file": "no.npy"}, "FileNotFoundError"),
        ("parallel", "angles", {"unit": "degrees", "file": "no.csv"}, "name of an NPY file"),
        ("parallel", "bins", 9.5, "bins is 9.5: give a whole number"),
        ("parallel", "bins", True, "give a whole number"),
        ("parallel", "spacing", "1 mm", 'spacing is "1 mm": give a number'),
        ("parallel", "spacing", 0, "give a number above 0"),
        ("parallel", "offset", float("inf"), "offset is Infinity"),
        ("parallel", "spacing", 1.25e-3, "are all lengths in mm?"),
        ("parallel", "image.shape", [3, 4, 6], "give (height, width)"),
        ("cone", "image.shape", [4, 6], "give (depth, height, width)"),
        ("cone", "image.spacing", [1.0, 1.0], "and as many spacings"),
        ("cone", "spacing", 1.0, "give a list of 2 values"),
        ("cone", "tilt", {"unit": "degrees", "values": [1, 2]}, "give three turns"),
        ("fan", "source_to_detector", 50, "are the two exchanged?"),
        ("fan", "source_to_axis", 0.6, "lies in the image, which reaches 6 mm"),
        ("fan", "detector", "curved", "use flat or arc"),
        ("vector", "vectors", [[[1, 2, 3]]], "source, detector centre, u and v"),
        ("spect", "radius", [], "give a list of 1 values"),
        ("spect", "fwhm", -1, "not negative"),
        ("pet", "time_of_flight.fwhm", None, "time_of_flight lacks 'fwhm'"),
        ("radial", "golden", 1, "give true or false"),
        ("trajectory", "points", [[1, 2]], "not 3 axes"),
        ("parallel", "image.affine", [[1, 0], [0, 1]], "give 4 x 4"),
        ("parallel", "image", 5, "give a table with shape, spacing"),
    ],
)
def test_wrong_fields(tmp_path, kind, place, value, words):
    assert words in refused(written(tmp_path, changed(kind, place, value)))


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.json", "{", "not a JSON file"),
        ("a.json", "[1]", "its geometry is null"),
        ("a.json", '{"geometry": "parallel", "bins": 1, "bins": 2}', "given twice"),
        ("a.json", b"\xff\xfe", "not a JSON file"),
        ("a.toml", "= 5", "not a TOML file"),
        ("a.yaml", "geometry: fan", "use .json or .toml"),
        ("missing.json", None, "No such file"),
    ],
)
def test_wrong_files(tmp_path, name, text, words):
    if text is not None:
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    assert words in refused(tmp_path / name)

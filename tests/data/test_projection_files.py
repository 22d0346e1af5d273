"""Projections from NPY, NPZ, plain HDF5 and synchrotron files."""

import h5py
import numpy as np
import pytest

from pgm_jax.data import DataError
from pgm_jax.data.projections import log_transform
from pgm_jax.data.reading_projections import read_projections


def counts(*shape, seed=0):
    return np.random.default_rng(seed).poisson(500, shape).astype(np.uint16)


def one_line(error):
    text = str(error.value)
    assert "\n" not in text and len(text) < 450
    return text


def exchange(path, units=None, **held):
    """A Data Exchange file; 7 views of 3 rows and 5 bins."""
    arrays = {
        "data": counts(7, 3, 5),
        "data_white": counts(2, 3, 5) + 100,
        "data_dark": counts(4, 3, 5) // 100,
    }
    with h5py.File(path, "w") as file:
        for key, values in {**arrays, "theta": np.linspace(0, 180, 7, endpoint=False), **held}.items():
            if values is not None:
                file[f"exchange/{key}"] = values
        if units is not None:
            file["exchange/theta"].attrs["units"] = units
        file["measurement/sample/experimenter/name"] = "Doe^Jane"
    return path


def test_exchange_files(tmp_path):
    got = read_projections(exchange(tmp_path / "a.h5"))
    np.testing.assert_array_equal(got.array, counts(7, 3, 5))
    dark = np.mean(counts(4, 3, 5) // 100, axis=0)
    np.testing.assert_allclose(got.dark, dark, rtol=1e-6)
    np.testing.assert_allclose(got.blank, np.mean(counts(2, 3, 5) + 100.0, axis=0) - dark, rtol=1e-6)
    np.testing.assert_allclose(got.angles, np.pi * np.arange(7) / 7)
    assert got.units == "counts" and "Doe" not in repr(got) and got.array.dtype == np.float32
    part = read_projections(tmp_path / "a.h5", rows=range(1, 3))
    np.testing.assert_array_equal(part.array, got.array[:, 1:])
    np.testing.assert_array_equal(part.blank, got.blank[1:])
    radians = exchange(tmp_path / "b.h5", units="radians", theta=np.arange(7.0))
    np.testing.assert_array_equal(read_projections(radians).angles, np.arange(7))
    bare = read_projections(exchange(tmp_path / "c.h5", data_white=None, data_dark=None, theta=None))
    assert bare.blank is None and bare.dark is None and bare.angles is None


def test_the_logarithm_undoes_beers_law(tmp_path):
    random = np.random.default_rng(0)
    lines = random.uniform(0, 4, (6, 2, 5))
    blank, dark = random.uniform(9e3, 1e4, (2, 5)), np.full((2, 5), 7.0)
    np.savez(tmp_path / "a.npz", counts=blank * np.exp(-lines) + dark, blank=blank, dark=dark)
    got = log_transform(read_projections(tmp_path / "a.npz"))
    np.testing.assert_allclose(got.array, lines, atol=2e-5)
    assert got.units == "line integrals" and got.blank is None and log_transform(got) is got
    # A bin below the dark counts gets the floor, not NaN.
    np.savez(tmp_path / "b.npz", counts=dark[None] - 1, blank=blank, dark=dark)
    starved = log_transform(read_projections(tmp_path / "b.npz"), floor=1e-3)
    np.testing.assert_allclose(starved.array, np.log(1e3), rtol=1e-6)


def test_npy_and_npz_shapes(tmp_path):
    for shape, full in (((7, 5), (7, 1, 5)), ((7, 3, 5), (7, 3, 5)), ((7, 3, 5, 2), (7, 3, 5, 2))):
        lines = np.random.default_rng(0).normal(size=shape)
        np.save(tmp_path / "a.npy", lines)
        got = read_projections(tmp_path / "a.npy")
        np.testing.assert_allclose(got.array, lines.reshape(full), rtol=1e-6)
        assert got.units == "line integrals" and got.name == "projections"
    np.savez(tmp_path / "b.npz", counts(7, 5), angles=np.arange(7.0))
    got = read_projections(tmp_path / "b.npz", units="counts")
    assert got.units == "counts" and got.angles[-1] == 6
    np.savez(tmp_path / "c.npz", counts=counts(7, 5), blank=np.arange(1, 6.0), dark=np.ones((7, 5)))
    got = read_projections(tmp_path / "c.npz")
    np.testing.assert_array_equal(got.blank, np.arange(1, 6.0)[None])
    assert got.dark.shape == (7, 1, 5)


@pytest.mark.parametrize("times", [(), (2,)])
@pytest.mark.parametrize("kind", ["npz", "h5"])
def test_pet_sinograms(tmp_path, times, kind):
    random = np.random.default_rng(0)
    lines, full = (7, 3, 5), (7, 3, 5, *times)
    held = {
        "counts": counts(*full),
        "survival": random.uniform(0, 1, lines),
        "normalisation": random.uniform(0.5, 2, lines),
        "randoms": random.uniform(0, 9, full),
        "scatter": random.uniform(0, 9, full),
    }
    if kind == "npz":
        np.savez(tmp_path / "a.npz", **held)
    else:
        with h5py.File(tmp_path / "a.h5", "w") as file:
            for key, values in held.items():
                file[key] = values
    got = read_projections(tmp_path / f"a.{kind}", rows=range(0, 3, 2))
    for key, values in held.items():
        read = got.array if key == "counts" else getattr(got, key)
        np.testing.assert_allclose(read, values[:, ::2], rtol=1e-6)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"counts": -np.ones((7, 5))}, "counts reaches -1"),
        ({"counts": np.full((7, 5), np.nan)}, "35 of 35 values of counts are NaN"),
        ({"counts": np.ones(7)}, "are not \\(views, bins\\)"),
        ({"counts": np.ones((7, 5)) * 1j}, "no real numbers"),
        ({"counts": np.ones((7, 5)), "line_integrals": np.ones((7, 5))}, "needs one of 'counts'"),
        ({"counts": np.ones((7, 5)), "blnk": np.ones(5)}, "others may be blank"),
        ({"counts": np.ones((7, 5)), "blank": np.ones(7)}, "blank of shape \\(7,\\) does not fit"),
        ({"counts": np.ones((7, 5)), "randoms": -np.ones((7, 5))}, "randoms reaches -1"),
        ({"counts": np.ones((7, 5)), "survival": np.full((7, 5), 1.5)}, "attenuation correction factor"),
        ({"counts": np.ones((7, 5)), "survival": np.ones((5, 7))}, "survival of shape"),
        ({"counts": np.ones((7, 5)), "angles": np.ones(5)}, "not 7 finite numbers"),
    ],
)
def test_wrong_arrays(tmp_path, arrays, words):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=words) as error:
        read_projections(tmp_path / "a.npz")
    one_line(error)


@pytest.mark.parametrize(
    ("held", "words"),
    [
        ({"data": None}, "has no data set 'exchange/data'"),
        ({"data": counts(7, 5)}, "not \\(views, rows, bins\\)"),
        ({"data_white": counts(2, 5, 3)}, "data_white of shape"),
        ({"theta": np.arange(6.0)}, "not 7 finite numbers"),
        ({"data": np.full((7, 3, 5), np.inf)}, "are NaN or infinite"),
    ],
)
def test_wrong_exchange_files(tmp_path, held, words):
    with pytest.raises(DataError, match=words) as error:
        read_projections(exchange(tmp_path / "a.h5", **held))
    one_line(error)


def test_wrong_requests(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((7, 3, 5)))
    np.save(tmp_path / "b.npy", np.array([{"a": 1}]), allow_pickle=True)
    (tmp_path / "c.tif").write_text("x")
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["angles"] = np.ones(3)
    (tmp_path / "e.h5").write_bytes((tmp_path / "d.h5").read_bytes()[:700])
    requests = [
        ("a.npy", {"rows": range(2, 4)}, "has rows 0 to 2"),
        ("a.npy", {"rows": range(0)}, "has rows 0 to 2"),
        ("a.npy", {"units": "HU"}, "units 'HU' are not known"),
        ("b.npy", {}, "without pickled objects"),
        ("c.tif", {}, "unknown kind of projection"),
        ("d.h5", {}, "holds neither"),
        ("e.h5", {}, "damaged or incomplete HDF5"),
        ("f.h5", {}, "no such file"),
    ]
    for name, options, words in requests:
        with pytest.raises(DataError, match=words) as error:
            read_projections(tmp_path / name, **options)
        one_line(error)


def test_logarithms_that_do_not_exist(tmp_path):
    np.savez(tmp_path / "a.npz", counts=np.ones((7, 5)))
    np.savez(tmp_path / "b.npz", counts=np.ones((7, 5)), blank=np.array([1, 1, 0, 1, 1.0]))
    for name, floor, words in (
        ("a", 0.1, "without a blank"), ("b", 0.1, "1 of 5 bins"), ("b", 0.0, "between 0 and 1")
    ):  # fmt: skip
        with pytest.raises(DataError, match=words) as error:
            log_transform(read_projections(tmp_path / f"{name}.npz"), floor)
        one_line(error)

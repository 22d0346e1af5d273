"""`pgm bench projectors` and `nufft` on tiny cases, and that every peer computes what ours computes."""

import json
import math

import numpy as np
import pytest

from pgm_jax.bench.nufft_peers import nufft_peers
from pgm_jax.bench.operators import NufftCase, ProjectorCase, projector
from pgm_jax.bench.projector_peers import projector_peers
from pgm_jax.cli import main as cli
from pgm_jax.operators import NUFFT, radial


def rows_of(path, *argv):
    assert cli.main(["bench", *argv, "--repeats", "1", "--no-peers", "--json", str(path)]) == 0
    return json.loads(path.read_text())["rows"]


def test_projector_rows(tmp_path):
    words = "projectors --sizes 8 --views 6 --slices 2 --footprints joseph".split()
    rows = rows_of(tmp_path / "rows.json", *words)
    kinds = [(row["case"]["geometry"], row["case"]["direction"]) for row in rows]
    assert kinds == [(g, d) for g in ("parallel", "fan") for d in ("forward", "adjoint")]
    for row in rows:
        assert row["case"]["bins"] >= math.sqrt(2) * 8 and row["peer"] is row["ratio"] is row["flops"] is None
        assert math.isclose(row["case"]["projections_per_s"] * row["run_s"], 12)
        assert math.isclose(row["case"]["gups"] * row["run_s"] * 1e9, 12 * 64)
        assert row["compile_s"] > 0 and row["peak_bytes"] > 0


def test_nufft_rows(tmp_path):
    rows = rows_of(tmp_path / "rows.json", *"nufft --sizes 8 --spokes 3 --widths 4".split())
    assert [row["case"]["direction"] for row in rows] == ["forward", "adjoint"]
    assert all(math.isclose(row["case"]["samples_per_s"] * row["run_s"], 3 * 16) for row in rows)


def test_a_mistake_is_one_line(capsys):
    assert cli.main("bench projectors --geometries pencil --sizes 8 --views 4 --no-peers".split()) == 2
    err = capsys.readouterr().err
    assert err == "pgm: geometry is 'pencil': choose one of parallel, fan, arc\n"


def agreement(found, ours):
    found, ours = np.asarray(found, np.float64).ravel(), np.asarray(ours, np.float64).ravel()
    return np.dot(found, ours) / np.linalg.norm(found) / np.linalg.norm(ours)


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["forward", "adjoint"])
@pytest.mark.parametrize("footprint", ["joseph", "strip"])
def test_peers_project_the_same_arrays(footprint, direction):
    pytest.importorskip("astra")
    operator, case = projector(ProjectorCase("parallel", footprint, 32, 24, None, 2, direction))
    y, x = np.mgrid[-1:1:32j, -1:1:32j]
    blob = np.exp(-8 * ((x - 0.2) ** 2 + (y + 0.3) ** 2)).astype(np.float32)
    image = np.stack([blob, blob[::-1]], axis=-1)
    sinogram = np.asarray(operator(image))
    source, target = (image, sinogram) if direction == "forward" else (sinogram, operator.adjoint(sinogram))
    for name, run in projector_peers(case, operator, image, sinogram).items():
        found = run()
        if name.startswith("astra"):
            found = np.stack(found, axis=-1)
            found = found[::-1] if direction == "adjoint" else found
            assert np.abs(found - target).max() < 2e-4 * np.abs(target).max(), name
        elif name.startswith("skimage") and direction == "forward":
            # Its detector runs the other way, and its rotation interpolates.
            assert agreement(found, np.moveaxis(sinogram, -1, 0).transpose(0, 2, 1)[:, ::-1]) > 0.98, name


@pytest.mark.parametrize("direction", ["forward", "adjoint"])
@pytest.mark.parametrize("library", ["finufft", "nufftax"])
def test_nufft_peers_transform_the_same_arrays(library, direction):
    pytest.importorskip(library)
    points = radial(5, 32, (16, 16)).points
    operator = NUFFT.create(points, (16, 16))
    random = np.random.default_rng(0)
    draw = lambda shape: (random.normal(size=shape) + 1j * random.normal(size=shape)).astype(np.complex64)
    x, y = draw((16, 16, 1)), draw((5, 32))
    peers = nufft_peers(NufftCase(16, 5, 6, direction), points, x, y)
    (run,) = (run for name, run in peers.items() if name.startswith(library))
    ours = operator(x).ravel() if direction == "forward" else operator.adjoint(y)[..., 0]
    # Theirs are without the orthonormal factor 1/16.
    np.testing.assert_allclose(np.asarray(run()) / 16, ours, atol=2e-4)

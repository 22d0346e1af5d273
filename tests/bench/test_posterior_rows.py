"""`pgm bench posterior` on tiny volumes: what a row says, and that deepinv runs the same network and operator."""

import json
import math

import jax
import numpy as np
import pytest

from pgm_jax import bench
from pgm_jax.bench import deepinv_peer, torch_peer
from pgm_jax.bench.posterior import program
from pgm_jax.bench.posterior_problem import denoiser_parts, scene_of
from pgm_jax.cli import main as cli
from pgm_jax.core import MissingExtra
from pgm_jax.priors import save_prior

NETWORK = {"multipliers": (1,), "blocks": 1}
TINY = bench.PosteriorCase(size=8, slices=2, views=6, acceleration=2, steps=3, cg=2, width=4, options=NETWORK)
WORDS = (
    "--sizes 8 --slices 2 --views 6 --acceleration 2 --steps 3 --cg 2 --width 4 --no-peers "
    "--options multipliers=1, blocks=1"
).split()


def test_rows(tmp_path, capsys):
    path = tmp_path / "rows.json"
    assert (
        cli.main(
            [
                "bench",
                "posterior",
                "--modalities",
                "ct",
                "mri",
                "--methods",
                "dds",
                *WORDS,
                "--json",
                str(path),
            ]
        )
        == 0
    )
    rows = json.loads(path.read_text(), parse_constant=lambda text: pytest.fail(text))["rows"]
    assert [row["case"]["modality"] for row in rows] == ["ct", "mri"]
    for row in rows:
        case = row["case"]
        assert case["evaluations"] == 3 and case["s_per_volume"] == row["run_s"]
        assert math.isclose(case["s_per_slice"], row["run_s"] / 2)
        assert math.isclose(case["physics_share"] * row["run_s"], 2 * case["physics_s_per_slice"])
        assert row["peer"] is row["ratio"] is None and case["note"] == "peers were not asked for"
        assert row["peak_bytes"] > 0 and np.isfinite(case["psnr"])
    assert capsys.readouterr().out.count("s/volume") == 2


def test_flops_are_those_of_the_evaluations():
    scene, parts = scene_of(TINY), denoiser_parts(TINY)
    arguments = parts.model.params, scene.operator, scene.y, scene.noise_std
    whole, free = (bench.count_flops(program(TINY, parts, freed), *arguments) for freed in (False, True))
    # The level is one for all slices, so its embedding is computed once and not for each.
    assert free == 0 and math.isclose(whole, TINY.steps * parts.model.flops, rel_tol=0.01)


@pytest.mark.parametrize("modality", ["ct", "mri"])
def test_one_program_serves_every_measurement(modality):
    case = TINY._replace(modality=modality)
    scene, parts = scene_of(case), denoiser_parts(case)
    run = jax.jit(program(case, parts))
    first, second = (run(parts.model.params, scene.operator, k * scene.y, scene.noise_std) for k in (1, 2))
    assert run._cache_size() == 1 and not np.allclose(first, second)
    text = run.lower(parts.model.params, scene.operator, scene.y, scene.noise_std).as_text()
    assert "callback" not in text


def test_the_measurement_determines_the_image():
    """With every view, little noise and DDS to convergence, the draws are the truth whatever the network says."""
    case = TINY._replace(views=24, cg=30, steps=8)
    assert bench.posterior_row(case, peer=False).case["psnr"] > 25


def test_a_prior_brings_its_own_network(tmp_path):
    path, case = tmp_path / "prior.npz", TINY._replace(options={})
    made = denoiser_parts(TINY)
    options = {"channels": 1, "width": 4, "multipliers": [1], "blocks": 1}
    card = {"network": ["unet", options], "process": ["EDM", {}], "sigma_data": 0.5, "unit": "a.u."}
    save_prior(path, made.model.params, card)
    loaded = denoiser_parts(case._replace(prior=str(path)))
    assert loaded.model.parameters == made.model.parameters
    x, t = jax.numpy.ones((2, 8, 8, 1)), jax.numpy.zeros(2)
    found, expected = (parts.model.network.apply(parts.model.params, x, t) for parts in (loaded, made))
    # The file holds bfloat16.
    np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())
    with pytest.raises(ValueError, match="1 real channels and mri has 2"):
        denoiser_parts(case._replace(prior=str(path), modality="mri"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"method": "ddd"}, "choose one of dds"),
        ({"modality": "pet"}, "choose one of ct"),
        ({"cg": 0}, "at least 1"),
    ],
)
def test_mistakes(change, words):
    with pytest.raises(ValueError, match=words):
        bench.posterior_row(TINY._replace(**change))


def test_a_missing_deepinv_is_one_note(monkeypatch):
    pytest.importorskip("torch")

    def absent(name):
        raise MissingExtra(f'{name} is not installed: run  pip install "pgm_jax[peers]"')

    monkeypatch.setattr(deepinv_peer, "peer_module", absent)
    row = bench.posterior_row(TINY)
    assert (
        row.peer is None and row.case["note"] == 'deepinv is not installed: run  pip install "pgm_jax[peers]"'
    )


@pytest.mark.slow
@pytest.mark.parametrize("modality", ["ct", "mri"])
def test_deepinv_reconstructs_the_same_volume(modality, monkeypatch):
    pytest.importorskip("torch")
    try:
        deepinv_peer.peer_module("deepinv")
    except MissingExtra as error:
        pytest.skip(str(error))
    # torch.compile takes a minute a network.
    monkeypatch.setattr(torch_peer, "_compiler", lambda: False)
    case = TINY._replace(method="diffpir", modality=modality, views=24, acceleration=1, steps=10, cg=20)
    row = bench.posterior_row(case)
    (theirs,) = row.case["peer_psnr"].values()
    assert row.peer.startswith("deepinv") and row.ratio > 0
    # All is measured, so both find the truth; deepinv's last step leaves the data alone.
    assert row.case["psnr"] > 20 and theirs > 20

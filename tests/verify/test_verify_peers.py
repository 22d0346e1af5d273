"""Other libraries beside the exactness table: the same problem, the same denoiser, the errors that theory gives."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax import samplers, verify
from pgm_jax.cli import main as cli
from pgm_jax.core import MissingExtra
from pgm_jax.processes import EDM, karras
from pgm_jax.verify import peer_draws, peers

torch = pytest.importorskip("torch")


def chosen(library, sampler, guidance="none", process="EDM"):
    (peer,) = (
        p
        for p in verify.PEERS
        if (p.library.partition(".")[0], *p[1:4]) == (library, process, sampler, guidance)
    )
    try:
        verify.peer_module(peer.library)
    except MissingExtra as error:
        pytest.skip(str(error))
    return peer


def test_the_denoiser_in_torch_is_ours(x64):
    given = verify.problem("gaussian", "dense")
    ours, theirs = given.prior.denoiser(EDM()), peer_draws.target_of(torch, given).denoise
    x = 3 * np.random.default_rng(0).standard_normal((5, 8))
    for level in (0.01, 1.0, 40.0):
        expected = jax.vmap(lambda x, level=level: ours(x, level))(jnp.asarray(x, jnp.float32))
        np.testing.assert_allclose(theirs(torch.from_numpy(x), level), expected, rtol=1e-4, atol=1e-5)


def test_every_peer_has_a_row_of_ours():
    ours = {
        (case.guidance, case.steps) for case in verify.default_cases() if case.operator in ("none", "dense")
    }
    assert {(peer.guidance, peer.steps) for peer in verify.PEERS} <= ours


def test_monte_carlo_errors_are_those_of_exact_draws():
    truth, n = verify.problem("gaussian", "dense").posterior, 200
    draws = jax.vmap(truth.sample)(jax.random.split(jax.random.key(0), 200 * n)).reshape(200, n, -1)
    errors = jax.vmap(lambda d: jnp.stack(verify.moment_errors(d.mean(0), jnp.cov(d, rowvar=False), truth)))(
        draws
    )
    root_mean_square = jnp.sqrt(jnp.mean(errors**2, axis=0))
    np.testing.assert_allclose(verify.monte_carlo_errors(truth, n), root_mean_square, rtol=0.07)


@pytest.mark.parametrize("name", ["ddim", "heun", "dpmpp_2m"])
def test_the_steps_of_diffusers_are_ours(name):
    """From the same start on the same grid: equal draws, so both the grid and the way it is called are right."""
    peer, given = chosen("diffusers", name), verify.problem("gaussian", "dense")
    torch.manual_seed(0)
    library, target = verify.peer_module(peer.library), peer_draws.target_of(torch, given)
    theirs = peer.draw(torch, library, target, 12, 5).numpy()
    torch.manual_seed(0)
    # Its schedulers of EDM start at the deviation of unit data with the noise.
    first = 80.0 if name == "heun" else np.sqrt(80.0**2 + 1)
    start = jnp.asarray((first * torch.randn(5, 8, dtype=torch.float64)).numpy(), jnp.float32)
    step, denoise = getattr(samplers, name)(), given.prior.denoiser(EDM())
    ours = samplers.sample(jax.random.key(0), step, denoise, EDM(), karras(12), x_init=start)
    np.testing.assert_allclose(theirs, ours, atol=2e-3)


def test_a_row_tells_the_error_of_its_steps():
    row = verify.run_peer(chosen("diffusers", "ddim")._replace(steps=6), 1000)
    ours = verify.run_case(verify.Case(sampler="ddim", guidance="none", operator="none", steps=6), 16)
    assert ours["exact_moments"] and row["cov_err"] == pytest.approx(ours["cov_err"], abs=2 * row["cov_mc"])
    assert row["cov_err"] > 3 * row["cov_mc"] and row["mean_err"] < 2 * row["mean_mc"]


def test_moment_matching_of_azula_is_unbiased_and_its_diffpir_is_not():
    exact = verify.run_peer(chosen("azula", "ancestral", "moment_matching")._replace(steps=20), 600)
    biased = verify.run_peer(chosen("azula", "ancestral", "diffpir")._replace(steps=20), 600)
    assert exact["mean_err"] < 2 * exact["mean_mc"]
    assert biased["mean_err"] > 5 * biased["mean_mc"]


def test_a_peer_that_guides_the_whole_batch_draws_one_by_one():
    peer = chosen("azula", "ancestral", "dps")._replace(steps=2)
    assert peer.alone and verify.run_peer(peer, samples=1000)["samples"] == 256


@pytest.mark.parametrize("guidance", ["dps", "diffpir"])
def test_deepinv_draws_from_near_the_posterior(guidance):
    peer = chosen("deepinv", {"dps": "ancestral", "diffpir": "marginal"}[guidance], guidance, "VP")._replace(
        steps=30
    )
    row = verify.run_peer(peer, samples=500)
    # Biased, and still nearer than the prior, whose mean lies several deviations away.
    assert 0.05 < row["mean_err"] < 1.0 and row["library"].startswith("deepinv 0")


def test_a_missing_library_is_one_line(monkeypatch):
    def absent(name):
        raise MissingExtra(f'{name} is not installed: run  pip install "pgm_jax[peers]"')

    monkeypatch.setattr(peers, "peer_module", absent)
    rows, missing = verify.verify_peers(samples=16)
    assert rows == [] and len(missing) == 3
    assert missing[1] == 'azula is left out: azula is not installed: run  pip install "pgm_jax[peers]"'


def test_a_broken_library_counts_as_missing(tmp_path, monkeypatch):
    (tmp_path / "broken_peer.py").write_text(
        "raise RuntimeError('operator x::nms does not exist\\nand more')"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingExtra, match=re.escape("does not load here (operator x::nms does not exist)")):
        verify.peer_module("broken_peer")


def test_the_command_prints_ours_above_theirs(monkeypatch, tmp_path, capsys):
    figures = {"mean_err": 0.25, "cov_err": 0.5, "energy": 0.1, "cover50": 0.4, "cover90": 0.8}
    case = verify.Case(sampler="dpmpp_2m", guidance="none", operator="none", steps=40)
    ours = {"library": "pgm_jax", **case._asdict(), "D": None, **figures, "exact_moments": False}
    theirs = ours | {"library": "diffusers 1.0", "mean_mc": 0.125, "cov_mc": 0.375, "samples": 64}
    monkeypatch.setattr(verify, "verify", lambda *args, **options: [ours])
    monkeypatch.setattr(verify, "verify_peers", lambda **options: ([theirs], ["azula is left out: why"]))
    path = tmp_path / "rows.json"
    assert cli.main(["verify", "--peers", "--samples", "64", "--json", str(path)]) == 0
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines()]
    (mine,) = (line for line in lines if line[:2] == ["none", "pgm_jax"])
    (other,) = (line for line in lines if line[:2] == ["none", "diffusers"])
    # The floor of ours is that of 64 exact draws, 1 / 8.
    assert mine[5:8] == ["0.250", "0.125", "0.500"] and other[6:10] == ["0.250", "0.125", "0.500", "0.375"]
    assert lines.index(mine) < lines.index(other) and "azula is left out: why" in out
    assert [row["library"] for row in json.loads(path.read_text())] == ["pgm_jax", "diffusers 1.0"]

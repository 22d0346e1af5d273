"""The command line: help without jax, one line for every mistake, files written whole or not at all."""

import json
import subprocess
import sys

import pytest

from pgm_jax.cli import files, main as cli
from pgm_jax.core import extras


def run(capsys, *argv):
    status = cli.main(list(argv))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def one_line(text):
    return text.startswith("pgm: ") and text.count("\n") == 1


def test_help_does_not_import_jax():
    code = (
        "import sys; from pgm_jax.cli.main import main\n"
        "try:\n main(['--help'])\n"
        "except SystemExit as error:\n assert not error.code\n"
        "assert 'jax' not in sys.modules, 'jax was imported'"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "demo" in result.stdout and "verify" in result.stdout


@pytest.mark.parametrize("verb", ["demo", "data", "verify", "list", "show"])
def test_every_verb_has_help(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([verb, "--help"])
    assert not stop.value.code
    assert f"pgm {verb}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["data", "get", "colin28"], "colin28"),
        (["data", "get"], "pgm data list"),
        (["demo", "--slices", "0"], "slices"),
        (["verify", "--samples", "3"], "at least 16"),
        (["show", "huen"], "did you mean heun"),
        (["list", "sampler"], "the rooms are"),
    ],
)
def test_a_mistake_is_one_line(argv, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, err = run(capsys, *argv)
    assert status == 2
    assert one_line(err) and words in err
    assert not list(tmp_path.iterdir())


def test_out_may_not_be_a_file(capsys, tmp_path):
    target = tmp_path / "taken"
    target.write_text("kept")
    status, _, err = run(capsys, "demo", "--out", str(target))
    assert status == 2 and one_line(err) and "folder" in err
    assert target.read_text() == "kept"


def test_an_output_that_cannot_be_written_stops_before_the_run(capsys, monkeypatch, tmp_path):
    from pgm_jax import verify

    monkeypatch.setattr(verify, "verify", lambda *args, **kwargs: pytest.fail("the run began"))
    (tmp_path / "file").write_text("kept")
    for target in (tmp_path / "file" / "rows.json", tmp_path):
        status, _, err = run(capsys, "verify", "--json", str(target))
        assert status == 2 and one_line(err)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_missing_extra_names_its_pip_line(capsys, monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(extras.importlib, "import_module", missing)
    status, _, err = run(capsys, "list")
    assert status == 2 and one_line(err) and 'pip install "pgm_jax[cli]"' in err


def test_interrupt_leaves_no_file(capsys, monkeypatch, tmp_path):
    from pgm_jax import verify

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(verify, "verify", interrupted)
    status, _, err = run(capsys, "verify", "--json", str(tmp_path / "rows.json"))
    assert status == 130 and one_line(err)
    assert not list(tmp_path.iterdir())


def test_files_are_whole_or_absent(tmp_path):
    path = tmp_path / "new" / "rows.json"
    files.write_json(path, [{"a": 1.5}])
    assert json.loads(path.read_text()) == [{"a": 1.5}]
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(path, [{"a": float("nan")}])
    assert json.loads(path.read_text()) == [{"a": 1.5}]
    assert [p.name for p in path.parent.iterdir()] == ["rows.json"]


def test_show_prints_formula_and_signature(capsys):
    status, out, _ = run(capsys, "show", "samplers.heun")
    assert status == 0
    assert out.startswith("pgm_jax.samplers.heun()") and "mix(e_t, t)" in out


def test_list_names_a_room(capsys):
    status, out, _ = run(capsys, "list", "guidance")
    assert status == 0 and "moment_matching" in out


def test_verify_writes_its_rows(capsys, monkeypatch, tmp_path):
    from pgm_jax import verify

    monkeypatch.setattr(verify, "default_cases", lambda: [verify.Case(sampler="heun", steps=4)])
    path = tmp_path / "rows.json"
    status, out, _ = run(capsys, "verify", "--json", str(path), "--samples", "64")
    (row,) = json.loads(path.read_text())
    assert status == 0 and row["library"] == "pgm_jax" and row["exact_moments"]
    assert set(row) >= {"process", "D", "sampler", "guidance", "prior", "operator", "steps"}
    assert set(row) >= {"mean_err", "cov_err", "energy", "cover50", "cover90"}
    assert "heun" in out

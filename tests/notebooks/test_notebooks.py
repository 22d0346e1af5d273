"""Executes every notebook, and checks that each is the pair of its script."""

import pathlib

import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "notebooks"
SCRIPTS = sorted(FOLDER.glob("*.py"))


def test_there_is_a_notebook():
    assert SCRIPTS


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_pair_holds_the_same_cells(script):
    jupytext = pytest.importorskip("jupytext")
    from_script, notebook = jupytext.read(script), jupytext.read(script.with_suffix(".ipynb"))
    assert [cell.source for cell in from_script.cells] == [cell.source for cell in notebook.cells]


@pytest.mark.notebook
@pytest.mark.timeout(240)
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_notebook_runs_within_90_seconds(script):
    import jupytext
    from nbclient import NotebookClient

    client = NotebookClient(
        jupytext.read(script),
        timeout=90,
        kernel_name="python3",
        resources={"metadata": {"path": str(FOLDER)}},
    )
    client.execute()

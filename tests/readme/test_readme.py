"""The README's example runs and its answer is right; its commands name things that exist."""

import pathlib
import re

import pytest

README = (pathlib.Path(__file__).parents[2] / "README.md").read_text()


EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_example_runs_and_is_right(capsys):
    exec(compile(EXAMPLES[0], "README.md", "exec"), {})
    mean_error, cov_error = map(float, capsys.readouterr().out.split())
    # 1000 draws: five standard errors of a mean and of a variance of order one.
    assert mean_error < 0.16 and cov_error < 0.25


def test_the_operators_example_reconstructs():
    made = {}
    exec(compile(EXAMPLES[1], "README.md", "exec"), made)
    image, truth = made["image"], made["truth"]
    assert ((image - truth) ** 2).mean() < 0.05**2 and made["gradient"].shape == truth.shape


def test_the_shipped_prior_says_who_it_knows(capsys):
    exec(compile(EXAMPLES[2], "README.md", "exec"), {})
    assert "pycortex-s1" in capsys.readouterr().out


def test_the_posterior_example_beats_its_start(capsys):
    made = {}
    exec(compile(EXAMPLES[3], "README.md", "exec"), made)
    start = made["reconstruction"].cg_sense(made["A"], made["likelihood"].y)[0]
    error = lambda image: abs(image - made["truth"]).mean()
    assert error(made["found"].mean) < 0.8 * error(start) and 0 < made["share"] < 1


def test_the_few_step_example_denoises_in_one_evaluation():
    made = {}
    exec(compile(EXAMPLES[4], "README.md", "exec"), made)
    assert abs(made["image"] - 1).mean() < 0.6 * abs(made["low"] - 1).mean()


def test_the_training_example_trains():
    made = {}
    exec(compile(EXAMPLES[5], "README.md", "exec"), made)
    assert int(made["state"].step) == 20 and len(EXAMPLES) == 6


@pytest.mark.parametrize("room", re.findall(r"^\| `(\w+)`", README, re.MULTILINE))
def test_every_room_of_the_table_exists(room):
    import pgm_jax

    assert getattr(pgm_jax, room).__doc__


def test_the_two_commands_are_there_to_paste():
    commands = re.findall(r"```\n(pip install .*?)\n```", README)
    assert len(commands) == 2
    assert commands[0].endswith("&& pgm demo") and commands[1].endswith("&& pytest")

"""`pgm bench fewstep` on tiny priors: evaluations, a denoiser of known error, rows, figure and refusals."""

import json
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax import networks, processes
from pgm_jax.bench import few_step_images
from pgm_jax.bench.few_step_priors import METHODS, Budget, Contender, budgets, contenders
from pgm_jax.bench.few_step_programs import denoising, generation
from pgm_jax.cli import main as cli
from pgm_jax.priors import save_prior
from pgm_jax.recipes import prior_config

CONFIG = prior_config.PriorConfig(
    size=(16, 16),
    network="drunet",
    level_mean=-1.2,
    level_std=1.2,
    sigma_data=0.5,
    sigma_min=0.005,
    sigma_max=20.0,
)
OPTIONS = {"channels": 1, "widths": [4, 4], "encoder": [1, 1], "decoder": [1], "embedding": 8}


def _save(path, D="inf", objective=None, **changes):
    conditions = {"vector": networks.TARGET_FEATURES} if objective == "ctm" else {}
    options = OPTIONS | ({"conditions": conditions} if conditions else {})
    made = networks.drunet(**OPTIONS, conditions=networks.Conditions(**conditions))
    shapes, tree = jax.tree.flatten(jax.eval_shape(made.init, jax.random.key(0)))
    leaves = [0.05 * jax.random.normal(jax.random.key(i), leaf.shape) for i, leaf in enumerate(shapes)]
    card = {
        "network": ["drunet", options],
        "process": ["PFGMpp", {"D": D}],
        "sigma_data": 0.5,
        "unit": "a.u.",
        "config": prior_config.to_json(CONFIG),
    } | ({} if objective is None else {"objective": objective})
    card = {name: value for name, value in (card | changes).items() if value is not None}
    save_prior(path, jax.tree.unflatten(tree, leaves), card)
    return str(path)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("priors")
    np.save(folder / "images.npy", np.random.default_rng(0).random((5, 24, 20, 1), np.float32))
    np.save(folder / "small.npy", np.ones((5, 12, 20, 1), np.float32))
    np.save(folder / "complex.npy", np.ones((5, 24, 20, 1), np.complex64))
    return {
        "teacher": _save(folder / "teacher.npz"),
        "ect": _save(folder / "ect.npz", "64", "ect"),
        "ctm": _save(folder / "ctm.npz", "inf", "ctm"),
        "pfctm": _save(folder / "pfctm.npz", "64", "ctm"),
        "other": _save(folder / "other.npz", objective="ect", unit="HU"),
        "bare": _save(folder / "bare.npz", config=None),
    } | {name: str(folder / f"{name}.npy") for name in ("images", "small", "complex")}


class Known(NamedTuple):
    """A prior whose clean image is always `x0`, and which counts its calls where it has a list for them."""

    process: Any
    x0: Any
    calls: Any = None
    objective: str = "denoising"

    def denoiser(self):
        def denoise(x_t, t, cond=None, s=None):
            if self.calls is not None:
                jax.debug.callback(lambda _: self.calls.append(1), jnp.real(x_t).sum())
            return self.x0 + 0 * x_t

        return denoise

    jump_denoiser = denoiser


def _known(D=math.inf, x0=None, calls=None):
    x0 = jnp.zeros((16, 16, 1)) if x0 is None else x0
    return Contender("known", Known(processes.PFGMpp(D), x0, calls), CONFIG)


@pytest.mark.parametrize("sampler", METHODS)
def test_the_network_is_called_as_often_as_the_row_says(sampler):
    contender = _known(calls=[])
    steps = METHODS[sampler].steps(5)
    budget = Budget(sampler, steps, METHODS[sampler].evaluations(steps))
    assert budget.nfe == 5
    for run in (generation(contender, budget, 0.0, 1), denoising(contender, budget, 0.0, 0.3)):
        contender.prior.calls.clear()
        argument = jnp.int32(0) if run.__name__ == "draw" else jnp.zeros((1, 16, 16, 1))
        jax.block_until_ready(jax.jit(lambda x, run=run: run(contender.prior, x))(argument))
        jax.effects_barrier()
        assert len(contender.prior.calls) == budget.nfe


@pytest.mark.parametrize(
    "sampler, D, steps",
    [(name, math.inf, 3) for name in METHODS] + [("heun", 8.0, 2), ("consistency", 8.0, 2)],
)
def test_a_denoiser_of_known_error_has_its_psnr_in_any_number_of_steps(sampler, D, steps):
    truths = jnp.full((2, 16, 16, 1), 0.4)
    found = _scores(_known(D, truths[0] + 0.1), Budget(sampler, steps, 0), truths)
    # Jumps end at sigma_min, where its share of the noise is left: an error of 0.1 (1 - 0.005 / 0.3), and 0.005 n.
    left = 0.005 / 0.3 if sampler == "ctm" else 0.0
    expected = -10 * math.log10((0.1 * (1 - left)) ** 2 + (0.3 * left) ** 2)
    np.testing.assert_allclose(found, expected, atol=0.05 if left else 1e-4)


def _scores(contender, budget, truths):
    run = denoising(contender, budget, 0.0, 0.3)
    return jax.jit(lambda truths: run(contender.prior, truths))(truths)


def test_complex_errors_count_per_real_component():
    truths = jnp.full((2, 16, 16, 1), 0.4 + 0.3j)
    found = _scores(_known(x0=truths[0] + 0.1), Budget("ddim", 2, 2), truths)
    np.testing.assert_allclose(found, 20 + 10 * math.log10(2), atol=1e-3)


def test_budgets_are_the_largest_within_those_asked_for():
    found = budgets(_known(), ("heun", "ddim", "consistency"), (1, 2, 4, 8, 16, 35))
    assert [b.nfe for b in found if b.sampler == "heun"] == [1, 3, 7, 15, 35]
    assert [b.nfe for b in found if b.sampler == "ddim"] == [1, 2, 4, 8, 16, 35]
    assert {b.sampler for b in found} == {"heun", "ddim"}


def test_images_of_a_run_depend_on_their_number_alone(files):
    (contender,) = contenders((files["teacher"],), ())
    budget = Budget("heun", 2, 3)
    three = jax.jit(generation(contender, budget, 0.0, 3))(contender.prior, jnp.int32(0))
    two = jax.jit(generation(contender, budget, 0.0, 2))(contender.prior, jnp.int32(1))
    np.testing.assert_allclose(two, three[1:], rtol=1e-4, atol=1e-5)


TINY = "--samples 4 --references 12 --denoised 3 --batch 2 --teacher-nfe 1 3 --student-nfe 2".split()


def _run(*argv):
    return cli.main(["bench", "fewstep", *TINY, *argv])


def test_rows_and_figure(files, tmp_path, capsys):
    path, figure = tmp_path / "rows.json", tmp_path / "figure.png"
    given = [
        "--teachers",
        files["teacher"],
        "--students",
        files["ect"],
        files["ctm"],
        "--images",
        files["images"],
    ]
    written = ["--json", str(path), "--figure", str(figure)]
    assert _run(*given, "--samplers", "heun", "consistency", "ctm", "--sigmas", "0.3", "1", *written) == 0
    rows = json.loads(path.read_text(), parse_constant=lambda text: pytest.fail(text))["rows"]
    cases = [row["case"] for row in rows]
    assert [(c["objective"], c["sampler"], c["nfe"], c["D"]) for c in cases] == [
        ("denoising", "heun", 1, "inf"),
        ("denoising", "heun", 3, "inf"),
        ("ect", "consistency", 2, 64.0),
        ("ctm", "ctm", 2, "inf"),
    ]
    for row, case in zip(rows, cases, strict=True):
        assert row["name"] == "fewstep" and row["peer"] is None and row["peak_bytes"] > 0
        assert math.isclose(case["s_per_image"] * 2, row["run_s"])
        assert math.isclose(case["images_per_s"] * case["s_per_image"], 1)
        assert case["kid_low"] < case["kid"] < case["kid_high"]
        assert case["task"] == "images" and case["source"] == files["images"] and case["size"] == [16, 16]
        assert list(case["psnr_at"]) == ["0.3", "1"] and case["psnr"] == case["psnr_at"]["0.3"]
        assert "no download" in case["features"]
    assert rows[1]["flops"] == 3 * rows[0]["flops"] > 0
    # One evaluation of a network that hardly speaks: c_skip x_t, whose error is known.
    clean, kept = np.load(files["images"]), 1 / (1 + 0.3**2 / 0.5**2)
    error = (1 - kept) ** 2 * np.mean(clean**2) + kept**2 * 0.3**2
    assert abs(cases[0]["psnr"] + 10 * math.log10(error)) < 0.5
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.count("images/s") == 4


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--teachers", "chest-ct-edn"], "no prior 'chest-ct-edn'"),
        (["--students", "{other}"], "has unit 'HU'"),
        (["--students", "{teacher}"], "give it under --teachers"),
        (["--teachers", "{ect}"], "give it under --students"),
        (["--teachers", "{bare}"], "holds no configuration"),
        (["--samplers", "hune"], "choose one of ddim"),
        (["--samplers", "ctm"], "no sampler is left"),
        (["--teacher-nfe", "0"], "no sampler can meet a budget below 1"),
        (["--sigmas", "30"], "trained from 0.005 to 20"),
        (["--samples", "2"], "at least 3"),
        (["--images", "{small}"], "smaller than the prior's (16, 16)"),
        (["--images", "{complex}"], "1 complex channels"),
        (["--images", "None"], "no images are known in this prior's unit"),
        (["--figure", "figure.pdf"], "give the name of a .png file"),
        (["--students", "{pfctm}", "--samplers", "ddim", "ctm", "--gamma", "0.5"], "not at D = 64"),
        (["--gamma", "2"], "gamma must lie in [0, 1]"),
    ],
)
def test_a_mistake_is_one_line(argv, words, files, capsys):
    given = ["--teachers", files["teacher"], "--images", files["images"]]
    argv = [word.format(**files) for word in argv]
    # A later option takes the place of an earlier one.
    kept = [*given[:2]] if "--teachers" not in argv else []
    kept += given[2:] if "--images" not in argv else []
    assert _run(*kept, *argv) == 2
    err = capsys.readouterr().err
    assert err.startswith("pgm: ") and err.count("\n") == 1 and words in err


def test_people_take_turns_and_patches_hold_anatomy(monkeypatch):
    def slices(name):
        images = np.zeros((3, 40, 40, 1), np.float32)
        images[:, 22:34, 4:16] = {"one": 1.0, "two": 2.0}[name]
        return images

    task = few_step_images.Task("a.u.", ("one", "two"), slices)
    monkeypatch.setattr(few_step_images, "TASKS", {"made up": task})
    prior = type("Prior", (), {"unit": "a.u."})
    name, found = few_step_images.patches_for(prior, (16, 16), 7)
    assert name == "made up" and found.source == "one and two" and found.images.shape == (7, 16, 16, 1)
    assert [float(image.max()) for image in found.images] == [1, 2, 1, 2, 1, 2, 1]
    assert all(image[8, 8] > 0 for image in found.images)
    # A slice of one person is not a slice of the other.
    assert not set(found.slices[::2]) & set(found.slices[1::2])
    np.testing.assert_array_equal(found.images, few_step_images.patches_for(prior, (16, 16), 7)[1].images)

"""`pgm train`, `pgm sample` and `pgm export`: a run in pieces is the run in one, and every mistake is one line."""

import json
import logging
import resource
import shutil
import subprocess
import sys
import warnings

import chex
import jax
import numpy as np
import pytest

from pgm_jax import training
from pgm_jax.cli import main as cli
from pgm_jax.core import checkpoint
from pgm_jax.recipes import generation, prior_config

OPTIONS = "widths=8,8 encoder=1,1 decoder=1, embedding=8 patch=1".split()
TINY = [
    *("--size 16 16 --network drunet --batch 8 --warmup 2 --rate 1e-3 --mesh-data 1".split()),
    *("--ema half_life_5 power_0.1 --process pfgmpp --D 64 --log-every 5".split()),
    *("--options", *OPTIONS),
]

QUICK = "--sampler ddim --steps 6 --seed 5".split()


def run(capsys, *argv):
    status = cli.main([str(word) for word in argv])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def refused(capsys, words, *argv, status=2):
    found, _, err = run(capsys, *argv)
    assert found == status and err.startswith("pgm: ") and err.count("\n") == 1, err
    assert words in err, err


@pytest.fixture(scope="module")
def atlas(tmp_path_factory):
    """Blobs of different places and sizes, 24 slices of 16 x 16 pixels."""
    random, (y, x) = np.random.default_rng(0), np.mgrid[:16, :16]
    places = zip(random.uniform(5, 11, (24, 2)), random.uniform(1.5, 3, 24), strict=True)
    array = [np.exp(-((y - a) ** 2 + (x - b) ** 2) / (2 * s**2)) for (a, b), s in places]
    path = tmp_path_factory.mktemp("data") / "atlas.npy"
    np.save(path, 700 * np.array(array, np.float32))
    return path


@pytest.fixture(scope="module")
def whole(atlas, tmp_path_factory):
    """A run of 20 steps without a break, with pictures."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    words = [*("train", "--data", atlas, "--out", out, "--steps", 20), *TINY, "--sample-every", 1000]
    assert cli.main([str(word) for word in words]) == 0
    return out


def state(folder, step=None):
    """Every array of a checkpoint."""
    config = prior_config.read(folder)
    abstract = training.abstract_state(
        jax.random.key(0),
        generation.build(config).network.init,
        generation.optimiser(config),
        ema=generation.averages(config),
    )
    found, _ = checkpoint.restore(folder / "checkpoints", abstract, step)
    return jax.tree.map(np.asarray, found.replace(key=jax.random.key_data(found.key)))


def test_a_run_in_pieces_is_the_run_in_one(atlas, whole, tmp_path, capsys):
    """The second call names only the folder and more steps; the data, the levels and all else are the run's own."""
    out = tmp_path / "pieces"
    words = ["--data", atlas, "--out", out, "--steps", 12, *TINY, "--sample-every", 0]
    assert run(capsys, "train", *words)[0] == 0
    more = ("--steps", 20, "--sample-every", 0, "--log-every", 5, "--per-call", 3)
    status, text, _ = run(capsys, "train", "--out", out, *more)
    assert status == 0 and "step 15 of 20" in text and "step 10 of 20" not in text
    chex.assert_trees_all_equal(state(out), state(whole))
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [5, 10, 12, 15, 20]
    assert (out / "config.json").read_text() == (whole / "config.json").read_text()
    assert not list(out.glob("*.png")) and [p.name for p in whole.glob("*.png")] == ["samples-0000020.png"]


def test_the_saved_configuration_is_the_printed_one_with_measured_levels(atlas, whole, capsys):
    config = prior_config.read(whole)
    images = generation.read_images(config)
    given = {"level_mean": None, "level_std": None, "sigma_data": None, "sigma_min": None, "sigma_max": None}
    values = json.loads((whole / "config.json").read_text())
    assert generation.measured(prior_config.from_json(values | given), images) == config
    assert config.D == 64 and config.options["widths"] == (8, 8) and config.options["decoder"] == (1,)
    status, text, _ = run(capsys, "train", "--out", whole)
    assert status == 0 and ["sigma_data", f"{config.sigma_data}"] in map(str.split, text.splitlines())
    assert "24 images" in text


def test_a_configuration_file_is_read_and_overridden(whole, tmp_path, capsys, monkeypatch):
    """The copy differs in what the command line says, and in nothing else."""
    monkeypatch.setattr(generation, "train", lambda *a, **k: None)
    words = ["--config", whole, "--out", tmp_path / "b", "--D", 128, "--batch", 4, "--ema", "constant_0.5"]
    assert run(capsys, "train", *words, "--steps", 1, "--sample-every", 0)[0] == 0
    was, now = (prior_config.to_json(prior_config.read(path)) for path in (whole, tmp_path / "b"))
    changed = {name: now[name] for name in now if now[name] != was[name]}
    assert changed == {"D": 128.0, "batch": 4, "ema": ["constant_0.5"], "steps": 1}


def test_samples_do_not_depend_on_their_number_or_the_devices(whole, tmp_path, capsys):
    drawn, asked = {}, ["--D", 64, "--process", "pfgmpp", "--average", "power_0.1", *QUICK]
    for count, batch in ((3, 64), (11, 8), (11, 64)):
        out = tmp_path / f"{count}-{batch}"
        assert run(capsys, "sample", whole, "--out", out, "--count", count, "--batch", batch, *asked)[0] == 0
        drawn[count, batch] = np.load(out / "samples.npy")
        assert sorted(p.name for p in out.iterdir()) == ["sample.json", "samples.npy", "samples.png"]
    assert drawn[11, 8].shape == (11, 16, 16, 1)
    # Eight at a time on eight devices, whatever the count: one program.
    np.testing.assert_array_equal(drawn[3, 64], drawn[11, 8][:3])
    np.testing.assert_allclose(drawn[11, 64], drawn[11, 8], rtol=1e-4, atol=1e-5)
    system = generation.build(prior_config.read(whole), sampler="ddim", steps=6)
    params = state(whole).ema["power_0.1"]
    alone = jax.jit(system.draw)(jax.random.fold_in(jax.random.key(5), 9), params, None)
    np.testing.assert_allclose(drawn[11, 8][9], alone, rtol=1e-4, atol=1e-5)
    record = json.loads((tmp_path / "11-8" / "sample.json").read_text())
    expected = {"count": 11, "sampler": "ddim", "steps": 6, "average": "power_0.1", "step": 20, "devices": 8}
    assert expected.items() <= record.items() and record["compile_seconds"] > 0
    assert record["images_per_s"] == pytest.approx(16 / record["run_seconds"])


def test_the_picture_of_the_last_step_is_that_of_the_samples(whole, tmp_path, capsys):
    """Sixteen images from the run's own seed, in the same places and greys."""
    image = pytest.importorskip("matplotlib.image")
    assert run(capsys, "sample", whole, "--out", tmp_path)[0] == 0
    shown, drawn = (
        image.imread(p)[..., 0] for p in (whole / "samples-0000020.png", tmp_path / "samples.png")
    )
    assert shown.shape == (4 * 17 - 1, 4 * 17 - 1) and shown.max() > 0.3
    np.testing.assert_allclose(shown, drawn, atol=2 / 255)
    samples = np.clip(np.load(tmp_path / "samples.npy"), 0, 1)[..., 0]
    np.testing.assert_allclose(drawn[17:33, 34:50], samples[6], atol=2 / 255)
    assert not drawn[16].any() and not drawn[:, 33].any()


def test_an_exported_run_draws_as_the_run(whole, tmp_path, capsys):
    file = tmp_path / "prior.npz"
    status, text, _ = run(capsys, "export", whole, "--out", file)
    assert status == 0 and "half_life_5 after 20 steps" in text
    for source, name in ((whole, "run"), (file, "file")):
        assert run(capsys, "sample", source, "--out", tmp_path / name, *QUICK, "--count", 3)[0] == 0
    first, second = (np.load(tmp_path / name / "samples.npy") for name in ("run", "file"))
    # bfloat16 keeps two to three digits of the weights.
    np.testing.assert_allclose(second, first, atol=0.02)
    refused(capsys, "prior.npz was trained with D = 64.0, not 8.0", "sample", file, "--D", 8)
    refused(capsys, "--step chooses among the weights of a run", "sample", file, "--step", 20)
    refused(capsys, "ends in .npz", "export", whole, "--out", tmp_path / "prior")
    refused(capsys, "holds no run", "export", tmp_path)


BEFORE = [
    (["--network", "resnet"], "network is 'resnet'"),
    (["--process", "vp"], "process vp and D 64.0"),
    (["--options", "width=8"], "drunet has no option 'width'"),
    (["--size", "16", "17"], "cannot take images of size (16, 17)"),
    (["--batch", "7", "--mesh-data", "2"], "batch 7 does not divide over 2 devices"),
    (["--ema", "mean"], "name averages half_life_STEPS"),
    (["--channels", "2"], "atlas has 1 channels and the configuration 2"),
    (["--window", "-9", "9e5"], "do not fit the window"),
    (["--data", "colin28"], "did you mean colin27"),
    (["--data", "none.npy"], "none.npy: no such file"),
    (["--save-every", "0"], "at least 1"),
    (["--config", "none.json"], "none.json: No such file"),
]


@pytest.mark.parametrize(("words", "message"), BEFORE, ids=[" ".join(words) for words, _ in BEFORE])
def test_a_mistake_is_one_line_before_anything_is_compiled(
    words, message, atlas, capsys, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "fit", lambda *a, **k: pytest.fail("the run began"))
    refused(capsys, message, "train", "--data", atlas, *TINY, "--out", "run", *words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--D", "32"], "holds a run with D = 64.0, and this one has D = 32.0: give the saved value"),
        (["--rate", "1"], "rate = 0.001, and this one has rate = 1.0"),
        (["--data", "a.npy"], 'atlas.npy"], and this one has data = ["a.npy"]'),
        (["--sigma-data", "0.9"], "and this one has sigma_data = 0.9"),
        (["--steps", "10"], "has 20 steps and this run asks for 10: give --steps 20 or more"),
    ],
)
def test_another_run_in_the_folder_is_refused_and_kept(words, message, whole, capsys):
    before = (whole / "config.json").read_text()
    refused(capsys, message, "train", "--out", whole, *words)
    assert (whole / "config.json").read_text() == before


def test_data_that_changed_under_a_run_are_refused(whole, capsys, tmp_path, monkeypatch):
    copy = shutil.copytree(whole, tmp_path / "copy")
    fewer = [np.ones((16, 16, 1), np.float32)] * 5
    monkeypatch.setattr(generation, "read_images", lambda config, progress: fewer)
    refused(
        capsys,
        "was trained with images = 24, and this run has images = 5",
        "train",
        "--out",
        copy,
        "--steps",
        21,
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--D", "32"], "was trained with D = 64.0, not 32.0: leave out --D"),
        (["--process", "vp"], "was trained with process = pfgmpp, not vp"),
        (["--average", "power_0.2"], "has no average 'power_0.2': choose from half_life_5, power_0.1"),
        (["--sampler", "hun"], "sampler is 'hun': choose one of heun"),
        (["--steps", "0"], "steps"),
        (["--count", "0"], "count and batch are at least 1"),
        (["--step", "7"], "7 does not exist; complete steps: [20]"),
        (["--label", "dark"], "label is 'dark', and this prior was trained without classes"),
        (["--guidance", "2"], "beside the label of a class that it guides to"),
    ],
)
def test_samples_that_cannot_be_drawn_are_refused(words, message, whole, capsys, tmp_path):
    refused(capsys, message, "sample", whole, "--out", tmp_path / "s", *words)
    assert not (tmp_path / "s").exists()


def test_a_folder_without_weights_is_named(whole, capsys, tmp_path):
    refused(capsys, "neither a folder of `pgm train` nor a shipped prior", "sample", tmp_path / "none")
    refused(capsys, "distributed is 'two': give auto, or HOST:PORT", "train", "--distributed", "two")
    refused(capsys, "holds no run: there is no config.json", "sample", tmp_path)
    shutil.copy(whole / "config.json", tmp_path)
    refused(capsys, "holds no complete checkpoint", "sample", tmp_path)
    copy = shutil.copytree(whole, tmp_path / "copy")
    values = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(values | {"D": 8.0}))
    refused(capsys, "was trained with D = 64.0, and", "sample", copy)
    (tmp_path / "file").touch()
    refused(capsys, "is a file: give a folder", "sample", whole, "--out", tmp_path / "file")
    refused(capsys, "cannot write", "sample", whole, "--out", tmp_path / "file" / "inside")
    refused(capsys, "is a file: give a folder", "train", "--out", tmp_path / "file")


def test_a_damaged_checkpoint_is_named(whole, capsys, tmp_path):
    copy = shutil.copytree(whole, tmp_path / "copy")
    shutil.copytree(copy / "checkpoints" / "20", copy / "checkpoints" / "25")
    files = [f for f in (copy / "checkpoints" / "25").rglob("*") if f.is_file()]
    largest = max(files, key=lambda f: f.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:100])
    refused(capsys, f"{largest.name} is damaged; other complete steps: [20]", "sample", copy)


def test_a_warning_is_a_line_of_the_output(whole, capsys, monkeypatch):
    """Such as that a damaged checkpoint was passed over; the source line that warns is not shown."""
    monkeypatch.setattr(generation, "train", lambda *a, **k: warnings.warn("step 4 is used", stacklevel=1))
    status, text, err = run(capsys, "train", "--out", whole)
    assert status == 0 and not err and "\nnote: step 4 is used\n" in text


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (
            training.Interrupted("SIGINT after step 6 of 9: saved in run; start again to go on", 6),
            130,
            "pgm train --out",
        ),
        (
            training.Diverged("not finite at step 5 (noise level 3); step 4 is the last good one", 5, 3.0),
            2,
            "step 4 is",
        ),
        (OSError(28, "No space left on device"), 2, "No space left on device"),
    ],
)
def test_what_stops_a_run_is_one_line(error, status, words, atlas, capsys, monkeypatch, tmp_path):
    def stop(*arguments, **options):
        raise error

    monkeypatch.setattr(training, "fit", stop)
    words_given = ("train", "--data", atlas, *TINY, "--out", tmp_path / "run", "--sample-every", 0)
    refused(capsys, words, *words_given, status=status)
    # What was measured is there, so that the run can go on.
    assert prior_config.read(tmp_path / "run").sigma_data > 0


# orbax's writing threads report to an event loop that the first failure has closed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_full_disk_is_one_line_and_keeps_the_last_checkpoint(whole, capsys, tmp_path):
    copy, seen = shutil.copytree(whole, tmp_path / "copy"), []
    handler = logging.Handler()
    handler.emit = seen.append
    logging.getLogger("absl").addHandler(handler)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Small files can be written, arrays cannot.
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, limits[1]))
    try:
        refused(
            capsys, "the last complete step is 20", "train", "--out", copy, "--steps", 21, "--sample-every", 0
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        logging.getLogger("absl").removeHandler(handler)
    assert not seen and checkpoint.steps(copy / "checkpoints") == [20]
    chex.assert_trees_all_equal(state(copy), state(whole))


@pytest.mark.slow
def test_several_devices_train_the_same_prior(atlas, whole, tmp_path, capsys):
    """Sums over devices round differently; weights split by fsdp are the same weights."""
    words = ["--config", whole, "--out", tmp_path, "--mesh-data", 2, "--mesh-fsdp", 2, "--sample-every", 0]
    assert run(capsys, "train", *words)[0] == 0
    chex.assert_trees_all_close(state(tmp_path).params, state(whole).params, rtol=1e-3, atol=1e-5)


def test_test_subjects_are_pointed_out_and_pictures_are_optional(atlas, capsys, monkeypatch, tmp_path):
    from pgm_jax.cli import train as verb
    from pgm_jax.core import MissingExtra

    def missing(module, extra):
        if module == "matplotlib.image":
            raise MissingExtra("matplotlib is not installed")
        return __import__(module, fromlist=["_"])

    images = [np.full((16, 16, 1), value, np.float32) for value in (0.5, 1.0)]
    monkeypatch.setattr(verb, "require", missing)
    monkeypatch.setattr(generation, "read_images", lambda config, progress: images)
    hooks = []
    monkeypatch.setattr(generation, "train", lambda *a, **k: hooks.extend(k["hooks"]))
    status, text, _ = run(capsys, "train", "--data", "colin27", *TINY, "--out", tmp_path)
    assert status == 0 and "colin27 is a test subject" in text
    assert "no pictures of samples: matplotlib is not installed" in text and len(hooks) == 2


def test_progress_says_loss_speed_and_time_left(capsys):
    from rich.console import Console

    from pgm_jax.cli.train import _Progress

    config = prior_config.PriorConfig(steps=100, batch=8)
    with _Progress(Console(), config) as progress:
        progress(20, {"loss": 0.125, "images_per_s": 4.0}, None)
    assert capsys.readouterr().out == "step 20 of 100  loss 0.125  4 images/s  0:02:40 left\n"
    with _Progress(Console(force_terminal=True), config) as progress:
        progress(20, {"loss": 0.125, "images_per_s": 4.0}, None)
        assert progress.bar.tasks[0].completed == 20 and "0:02:40 left" in progress.bar.tasks[0].description


@pytest.mark.multiprocess
def test_help_of_the_verbs_does_not_import_jax():
    code = (
        "import sys; from pgm_jax.cli.main import main\n"
        "for verb in ('train', 'sample', 'export'):\n"
        " try:\n  main([verb, '--help'])\n"
        " except SystemExit as error:\n  assert not error.code\n"
        "assert 'jax' not in sys.modules, 'jax was imported'"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for words in (
        "--data",
        "--sigma-data",
        "--mesh-fsdp",
        "--sample-every",
        "dpmpp_2m",
        "pgm export",
        "64 64",
    ):
        assert words in result.stdout


def test_options_are_read_as_values(capsys):
    from pgm_jax.cli.training_verbs import _pair, _text

    read = {"width=32": 32, "multipliers=1,2": (1, 2), "attention=1,": (1,), "widths=[8,16]": (8, 16)}
    read |= {"dropout=0.1": 0.1, "adaptive=true": True, "skip=add": "add"}
    for word, value in read.items():
        name, found = _pair(word)
        assert found == value and type(found) is type(value)
        assert _pair(f"{name}={_text(value)}")[1] == value
    with pytest.raises(ValueError, match="is not NAME=VALUE"):
        _pair("width")

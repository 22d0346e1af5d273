"""`pgm reconstruct --prior`: draws that beat the start image, resumed after an interruption, and refusals."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax.cli import main as cli, posterior as module
from pgm_jax.operators import Sense, birdcage_maps, equispaced_mask

SIDE, NOISE = 48, 0.5


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """Two slices of a head-like disc, 4 coils, every second line and noise."""
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    head = 60.0 * (x**2 + (0.9 * y) ** 2 < 350) + 40.0 * ((x - 4) ** 2 + (y + 3) ** 2 < 30)
    truth = np.stack([head, 0.8 * head[::-1]])
    maps, mask = birdcage_maps(4, SIDE, SIDE), np.asarray(equispaced_mask(0, SIDE, 2, 0.3))
    A = Sense(maps, mask)
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2, 2, 4, SIDE, SIDE))
    kspace = np.stack([np.asarray(A(jnp.asarray(one[..., None], jnp.complex64))) for one in truth])
    kspace = kspace + NOISE * mask * (noise[0] + 1j * noise[1])
    file = tmp_path_factory.mktemp("posterior") / "kspace.npz"
    np.savez(file, kspace=kspace.astype(np.complex64), mask=mask)
    return file, truth


def words(file, out, *more, method="dds"):
    argv = ["reconstruct", file, "--method", method, "--out", out, "--format", "npy", *more]
    return [str(word) for word in argv]


PRIOR = ("--prior", "brain-t1-pfgmpp", "--noise-std", NOISE, "--draws", 2, "--steps", 6)


def test_draws_are_written_and_an_interrupted_run_goes_on(scan, tmp_path, monkeypatch, capsys):
    file, truth = scan
    assert cli.main(words(file, tmp_path / "whole", *PRIOR)) == 0
    image, std = np.load(tmp_path / "whole/image.npy"), np.load(tmp_path / "whole/std.npy")
    record = json.loads((tmp_path / "whole/reconstruct.json").read_text())
    found = np.abs(image).reshape(truth.shape)
    assert 20 * np.log10(truth.max() / np.sqrt(np.mean((found - truth) ** 2))) > 26
    assert std.reshape(truth.shape).max() < 30 and (std > 0).any() and not np.iscomplexobj(std)
    assert record["prior"]["name"] == "brain-t1-pfgmpp" and 50 < record["scale"] < 120
    assert not (tmp_path / "whole/.parts").exists()
    page = (tmp_path / "whole/report.html").read_text()
    assert "brain-t1-pfgmpp" in page and page.count("data:image/png;base64,") == 1

    slices, real = [], module.posterior

    def second_is_interrupted(*arguments, **options):
        slices.append(len(slices))
        if len(slices) == 2:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(module, "posterior", second_is_interrupted)
    assert cli.main(words(file, tmp_path / "parts", *PRIOR)) == 130
    assert not (tmp_path / "parts/image.npy").exists()
    assert cli.main(words(file, tmp_path / "parts", *PRIOR)) == 0
    assert len(slices) == 3
    np.testing.assert_array_equal(np.load(tmp_path / "parts/image.npy"), image)


def test_a_prior_that_reads_an_image_takes_two_steps_from_an_early_tv_image(scan, tmp_path, capsys):
    file, truth = scan
    asked = ("--prior", "brain-t1-posterior", "--noise-std", NOISE, "--draws", 2)
    assert cli.main(words(file, tmp_path / "few", *asked)) == 0
    assert "2 draws of 2 steps" in capsys.readouterr().out
    found = np.abs(np.load(tmp_path / "few/image.npy")).reshape(truth.shape)
    assert 20 * np.log10(truth.max() / np.sqrt(np.mean((found - truth) ** 2))) > 28
    assert json.loads((tmp_path / "few/reconstruct.json").read_text())["steps"] == 2
    for more, method in ((("--steps", 6), "dds"), ((), "dps")):
        assert cli.main(words(file, tmp_path / "no", *asked, *more, method=method)) == 2
        err = capsys.readouterr().err
        assert err.startswith("pgm: ") and err.count("\n") == 1 and "--steps 1 or 2" in err, err


def test_a_prior_of_complex_images_is_refused_for_ct(tmp_path, capsys):
    """Before anything is drawn, and so is a wrong attenuation of water."""
    angles = {"unit": "degrees", "start": 0, "stop": 180, "count": 6}
    image = {"shape": [8, 8], "spacing": [2.0, 2.0]}
    geometry = {"geometry": "parallel", "angles": angles, "bins": 11, "spacing": 2.0, "image": image}
    (tmp_path / "ct.json").write_text(json.dumps(geometry))
    np.save(tmp_path / "scan.npy", np.ones((6, 1, 11), np.float32))
    argv = words(tmp_path / "scan.npy", tmp_path / "out", "--geometry", tmp_path / "ct.json", *PRIOR)
    for more, line in (([], "knows complex images"), (["--water", "0"], "--water 0")):
        assert cli.main([*argv, *more]) == 2
        err = capsys.readouterr().err
        assert err.startswith("pgm: ") and err.count("\n") == 1 and line in err, err


@pytest.mark.parametrize(
    ("more", "method", "line"),
    [
        ((), "dds", "add --prior"),
        (PRIOR, "tv", "tv takes no --prior"),
        (("--prior", "brain-t1-pfgmpp"), "dds", "needs --noise-std"),
        (("--prior", "nobody", "--noise-std", 1), "dds", "no prior 'nobody'"),
        ((*PRIOR, "--scale", -1), "dds", "--scale -1"),
        ((*PRIOR[:4], "--draws", 0), "dds", "--draws 0"),
        ((*PRIOR[:4], "--steps", 0), "dds", "--steps 0"),
    ],
)
def test_a_mistake_is_one_line(scan, tmp_path, capsys, more, method, line):
    assert cli.main(words(scan[0], tmp_path / "out", *more, method=method)) == 2
    err = capsys.readouterr().err
    assert err.startswith("pgm: ") and err.count("\n") == 1 and line in err, err

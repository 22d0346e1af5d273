"""The brain recipe: a right scan, honest scores, and the demo end to end on one real slice."""

import json
import math
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tables import rest_slow

from pgm_jax.cli import main as cli
from pgm_jax.data import pad_or_crop
from pgm_jax.operators import adjoint_gap, measure
from pgm_jax.priors import load_prior
from pgm_jax.processes import EDM, PFGMpp
from pgm_jax.recipes import mri

TINY = mri.Settings(cg_steps=2, tv_weight=0.004, tv_steps=3, steps=3, cg=1, draws=2)


@pytest.fixture(scope="module")
def disc():
    row, column = np.mgrid[:32, :32] - 15.5
    return jnp.asarray(((row**2 + column**2) < 100).astype(np.float32))[..., None]


def test_the_scan_holds_its_truth(disc):
    scan = mri.undersampled_scan(jax.random.key(0), disc, 4)
    assert adjoint_gap(scan.operator, jax.random.key(1)) < 1e-6
    np.testing.assert_allclose(np.abs(scan.truth), disc, atol=1e-6)
    measured = np.asarray(jnp.abs(scan.y).sum(axis=(0, 1)) > 0)
    assert measured.sum() == 8
    residual = np.asarray(scan.y - scan.operator(scan.truth))[..., measured]
    assert np.std(residual.real) == pytest.approx(0.01, rel=0.1)
    assert np.std(residual.imag) == pytest.approx(0.01, rel=0.1)


def test_spokes_measure_the_truth_with_noise(disc):
    scan = mri.simulated_scan(jax.random.key(0), disc, "radial")
    assert adjoint_gap(scan.operator, jax.random.key(1)) < 1e-5
    assert scan.y.shape == (4, 48, 64)
    residual = np.asarray(scan.y - scan.operator(scan.truth))
    assert np.std(residual.real) == pytest.approx(0.01, rel=0.05)
    assert np.std(residual.imag) == pytest.approx(0.01, rel=0.05)


def test_a_task_is_its_scan(disc):
    key = jax.random.key(0)
    fourth = mri.undersampled_scan(key, disc, 4, mask_seed=3)
    for task in (4, "4"):
        np.testing.assert_array_equal(mri.simulated_scan(key, disc, task, mask_seed=3).y, fourth.y)
    with pytest.raises(ValueError, match="choose one of 4, 8, radial"):
        mri.simulated_scan(key, disc, 3)


def test_scores_know_the_truth_and_a_known_error(disc):
    truth = disc.astype(jnp.complex64)
    perfect = mri.scores(truth * jnp.exp(0.3j), truth)
    assert perfect["psnr"] > 100 and perfect["ssim"] == pytest.approx(1.0, abs=1e-5)
    shifted = mri.scores(truth + 0.1, truth)
    assert shifted["psnr"] == pytest.approx(20.0, abs=1e-3)


def test_more_samples_help_every_method(disc):
    priors = mri.brain_priors(disc.shape, 1.0)
    for method in ("zero_filled", "tv", "tgv", "dds", "edm_dds"):
        chosen = TINY._replace(steps=12, cg=5, tv_steps=60, tgv_steps=60)
        run = jax.jit(mri.reconstruct(method, chosen))
        psnr = [
            mri.scores(run(jax.random.key(0), priors, scan).mean(0), scan.truth)["psnr"]
            for scan in (mri.undersampled_scan(jax.random.key(2), disc, a) for a in (2, 8))
        ]
        assert psnr[0] > psnr[1] + 1


@pytest.mark.slow
@pytest.mark.parametrize("method", ("tv", "tgv", "dds"))
def test_more_spokes_help(method, disc):
    priors = mri.brain_priors(disc.shape, 1.0)
    chosen = TINY._replace(cg_steps=8, steps=12, cg=5, tv_steps=60, tgv_steps=60)
    run = jax.jit(mri.reconstruct(method, chosen))
    psnr = []
    for spokes in (24, 6):
        scan = mri.radial_scan(jax.random.key(2), disc, spokes=spokes)
        psnr.append(mri.scores(run(jax.random.key(0), priors, scan).mean(0), scan.truth)["psnr"])
    assert psnr[0] > psnr[1] + 1


def test_settings_are_stored_for_every_task():
    for task in mri.TASKS:
        chosen = mri.settings(task)
        assert min(chosen.tv_weight, chosen.tgv_weight, chosen.trust, chosen.cg) > 0


class Exact(NamedTuple):
    """A stationary Gaussian in the place of a trained prior."""

    process: Any
    gaussian: Any

    def denoiser(self):
        return self.gaussian.denoiser(self.process)


def test_exact_mean_is_best_on_images_of_the_prior(disc):
    # The posterior mean has the least mean squared error of all methods, for images drawn from the prior.
    gaussian, scan = mri.brain_prior(disc.shape, 1.0), mri.undersampled_scan(jax.random.key(0), disc, 4)
    truth = gaussian.sample(jax.random.key(5))
    scan = scan.replace(
        truth=truth, y=measure(jax.random.key(6), scan.operator, truth, 0.01, weights=scan.operator.mask)
    )
    priors = mri.Priors(gaussian, Exact(PFGMpp(64.0), gaussian), None)
    error = {
        method: jnp.linalg.norm(
            mri.reconstruct(method, TINY._replace(steps=20, cg=5, draws=8))(
                jax.random.key(0), priors, scan
            ).mean(0)
            - truth
        )
        for method in ("gaussian_mean", "zero_filled", "cg_sense", "dds")
    }
    assert error["gaussian_mean"] < 0.98 * min(error["zero_filled"], error["cg_sense"], error["dds"])


def test_the_shipped_priors_denoise_people_they_never_saw():
    # Total variation at its best weight removes this noise to 33.0 dB; both networks were measured at 35.1.
    magnitude = mri.brain_slices("colin27", 1).magnitude[0, 64:192, 32:160]
    phase = mri.smooth_phase(jax.random.key(0), 128, 128)[..., None]
    truth = jnp.asarray(magnitude * np.exp(1j * phase), jnp.complex64)
    noisy = PFGMpp(math.inf).perturb(jax.random.key(1), truth, 0.05)
    for name in ("brain-t1-pfgmpp", "brain-t1-edm"):
        prior = load_prior(name)
        error = jnp.mean(jnp.abs(prior.denoiser()(noisy, 0.05) - truth) ** 2) / 2
        assert -10 * jnp.log10(error) > 34.5
        assert "not a medical device" in prior.card["warning"] and "colin27" in prior.card["never trained on"]


def test_the_prior_warns_outside_of_its_range():
    with pytest.warns(UserWarning, match="fitted on voxels"):
        mri.brain_prior((16, 16), 4.0)
    with pytest.warns(UserWarning, match="intensities"):
        mri.brain_prior((16, 16), 1.0, like=1000 * np.random.default_rng(0).normal(size=(16, 16, 1)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mri.brain_prior((217, 181), 1.0)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="choose one of"):
        mri.reconstruct("magic", TINY)
    with pytest.raises(ValueError, match="Tuned for"):
        mri.settings(3)


@pytest.mark.parametrize("accelerations", rest_slow([(4,), (4, 8)]))
def test_demo_writes_its_table_and_figure(accelerations, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(mri, "settings", lambda acceleration: TINY)
    monkeypatch.setattr("pgm_jax.cli.demo.ACCELERATIONS", accelerations)
    assert cli.main(["demo", "--out", str(tmp_path / "out"), "--slices", "1", "--twin"]) == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["demo.json", "demo.png"]
    table = json.loads((tmp_path / "out" / "demo.json").read_text())
    methods = {"zero_filled", "cg_sense", "tv", "dds_draw", "dds_mean", "edm_dds_mean"}
    for acceleration in accelerations:
        rows = {row["method"]: row for row in table["rows"] if row["acceleration"] == acceleration}
        assert methods <= set(rows)
        columns = {"acceleration", "method", "psnr", "ssim", "nrmse", "nfe", "seconds", "compile_seconds"}
        assert all(set(row) == columns for row in rows.values())
        assert rows["dds_mean"]["nfe"] == TINY.steps * TINY.draws and rows["tv"]["nfe"] == 0
    assert "colin27" in capsys.readouterr().out


@pytest.mark.parametrize("size", rest_slow([(217, 181), (320, 260)]))
def test_any_matrix_size_is_reconstructed_and_padding_is_undone(size):
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.uniform(size=(*size, 1)).astype(np.float32))
    scan = mri.undersampled_scan(jax.random.key(0), image, 4)
    draws = jax.jit(mri.reconstruct("dds", TINY))(jax.random.key(1), mri.brain_priors(size, 1.0), scan)
    assert draws.shape == (2, *size, 1)
    # The measured lines are fitted better than by the zero-filled image's own aliasing.
    gap = [jnp.linalg.norm(scan.y - scan.operator(x)) for x in (draws[0], jnp.zeros_like(draws[0]))]
    assert gap[0] < 0.5 * gap[1]
    padded = pad_or_crop(np.asarray(image), (352, 288))
    np.testing.assert_array_equal(mri.unpad(padded, size), image)


@pytest.mark.parametrize("levels, method", [(None, "cg_sense"), ((1e-5,), "tv")])
def test_draws_start_at_the_image_of_a_classical_method(levels, method, disc):
    """A denoiser that returns its input, and almost no noise, leave the start as it is."""

    class Unchanged:
        process = EDM()
        denoiser = staticmethod(lambda: lambda x, t, cond=None: x)

    scan = mri.undersampled_scan(jax.random.key(0), disc, 4)
    chosen = TINY._replace(sigma_max=1e-5, sigma_min=5e-6, steps=2, draws=1, tv_steps=30)
    (start,) = jax.jit(mri.reconstruct(method, chosen))(None, None, scan)
    draw = mri.posterior_draws(jax.random.key(1), Unchanged, scan, chosen, levels)[0]
    np.testing.assert_allclose(draw, start, atol=1e-3)
    other = "tv" if method == "cg_sense" else "cg_sense"
    assert float(jnp.abs(draw - mri.reconstruct(other, chosen)(None, None, scan)[0]).max()) > 1e-2

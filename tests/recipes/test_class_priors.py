"""Priors of classes: what training is shown, what a draw is told, guidance, and its distillation (lcd)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from prior_runs import run

from pgm_jax import data
from pgm_jax.recipes import generation, prior_config
from pgm_jax.recipes.generation import classes
from pgm_jax.recipes.prior_config import PriorConfig

UNET = {"width": 8, "multipliers": (1,), "blocks": 1, "attention": ()}
BASE = PriorConfig(
    size=(8, 8), options=UNET, classes=True, batch=16, steps=120, warmup=10, rate=2e-3, ema=("half_life_20",),
    mesh_data=1, sigma_data=0.5, sigma_min=0.002, sigma_max=10.0, level_mean=-1.0, level_std=1.2, window=(0.0, 1.0),
)  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A run on dark and bright images, which differ in nothing else."""
    folder = tmp_path_factory.mktemp("classes")
    noise = 0.05 * np.random.default_rng(0).random((2, 8, 8, 8)).astype(np.float32)
    for name, level, part in (("dark", 0.2, noise[0]), ("bright", 0.9, noise[1])):
        np.save(folder / f"{name}.npy", level + part)
    entries = tuple(str(folder / f"{name}.npy") for name in ("dark", "bright"))
    config = dataclasses.replace(BASE, data=entries)
    run(config, folder / "run")
    return folder, config


def brightness(folder, **asked):
    trained = generation.load_run(folder)
    system = generation.build(trained.config, **asked)
    images = jax.jit(generation.draw_batch(system, 8))(jax.random.key(0), trained.params, 0)
    return np.asarray(images).mean((1, 2, 3))


@pytest.mark.parametrize("framing, size", [("whole", (8, 8)), ("patches", (4, 4))])
def test_batches_say_of_which_entry_an_image_is(framing, size, base):
    config = dataclasses.replace(base[1], framing=framing, size=size)
    images = generation.read_images(config)
    assert images.entries.tolist() == [0] * 8 + [1] * 8
    batch = next(generation.image_batches(config, images))
    bright = batch["x0"].mean((1, 2, 3)) > 0.5
    assert batch["x0"].shape == (16, *size, 1) and bright.any() and not bright.all()
    np.testing.assert_array_equal(batch["cond"]["class"], bright)
    with pytest.raises(ValueError, match="pass what read_images returns"):
        generation.image_batches(config, list(images))
    assert "cond" not in next(generation.image_batches(dataclasses.replace(config, classes=False), images))
    with pytest.raises(ValueError, match=r"labels \(2,\) for 16 images"):
        data.patches(images, 4, (4, 4), seed=0, labels=[0, 1])


def test_a_label_chooses_and_guidance_pushes(base):
    """Both classes are drawn without a label; with one, each image is of it, however strong the guidance."""
    folder = base[0] / "run"
    for label, bright in (("dark", False), ("bright", True), (base[1].data[1], True)):
        for scale in (None, 2.0):
            found = brightness(folder, label=label, guidance=scale)
            assert np.all((found > 0.55) == bright), (label, scale, found)
    free = brightness(folder)
    assert (free > 0.55).any() and (free < 0.55).any()
    plain, one, two = (brightness(folder, label="dark", guidance=scale) for scale in (None, 1.0, 2.0))
    np.testing.assert_array_equal(plain, one)
    assert np.abs(two - one).max() > 1e-3


def test_lcd_distils_the_guidance_and_is_told_its_scale(base, tmp_path):
    start = str(base[0] / "run")
    config = dataclasses.replace(base[1], objective="lcd", start=start, knots=8, steps=60, rate=5e-4)
    state = run(config, tmp_path / "few")
    assert set(state.carry) == {"step", "target", "teacher"}
    for label, bright in (("dark", False), ("bright", True)):
        found = brightness(tmp_path / "few", label=label, steps=2)
        assert np.all((found > 0.55) == bright), (label, found)
    free = brightness(tmp_path / "few", steps=1)
    assert (free > 0.55).any() and (free < 0.55).any()
    low, high = (brightness(tmp_path / "few", label="dark", guidance=scale) for scale in (1.0, 4.0))
    assert np.abs(low - high).max() > 1e-5
    with pytest.raises(ValueError, match="distilled at 1 to 4"):
        brightness(tmp_path / "few", label="dark", guidance=5.0)
    with pytest.raises(ValueError, match="no scale of guidance"):
        generation.export(generation.load_run(tmp_path / "few"), tmp_path / "x.npz")


def test_a_prior_of_classes_is_exported(base, tmp_path):
    trained = generation.load_run(base[0] / "run")
    generation.export(trained, tmp_path / "prior.npz")
    again = generation.load_exported(tmp_path / "prior.npz")
    system = generation.build(again.config, label="bright")
    image = system.draw(jax.random.key(0), again.params, None)
    assert float(image.mean()) > 0.55


@pytest.mark.parametrize(
    "label, scale, told",
    [
        ("grey", None, "choose one of"),
        (None, 2.0, "beside the label"),
        ("dark", 0.0, "positive number"),
    ],
)
def test_impossible_draws_are_refused(label, scale, told, base):
    with pytest.raises(ValueError, match=told):
        generation.build(base[1], label=label, guidance=scale)
    with pytest.raises(ValueError, match="trained without classes"):
        generation.build(dataclasses.replace(base[1], classes=False), label="dark")


@pytest.mark.parametrize(
    "fields, told",
    [
        ({"data": ("x",)}, "give two or more"),
        ({"objective": "lcd", "start": "x", "classes": False}, "lcd needs classes"),
        ({"objective": "ect", "start": "x"}, "ect does not know classes"),
        ({"objective": "lcd"}, "needs trained weights"),
        ({"guided": (3.0, 2.0)}, "guided is 3 2"),
    ],
)
def test_impossible_configurations_are_refused(fields, told):
    with pytest.raises(ValueError, match=told):
        prior_config.check(dataclasses.replace(BASE, **{"data": ("x", "y"), **fields}))


def test_a_student_has_its_teachers_classes(base):
    config = dataclasses.replace(base[1], objective="lcd", start=str(base[0] / "run"))
    turned = dataclasses.replace(config, data=config.data[::-1])
    with pytest.raises(ValueError, match="trained with data"):
        generation.train(turned, None)


def test_the_null_class_is_one_more(base):
    assert classes.null(base[1]) == {"class": 2}
    system = generation.build(base[1])
    table = jax.eval_shape(system.network.init, jax.random.key(0))["conditioning"]["table"]
    assert table.shape[0] == 3 and jnp.issubdtype(table.dtype, jnp.floating)

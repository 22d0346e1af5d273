"""A prior from its configuration: its images, its measured noise levels, its draws, its training and its file."""

import dataclasses
import json
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tables import rest_slow

from pgm_jax import data, networks, priors
from pgm_jax.processes import PFGMpp, precondition
from pgm_jax.recipes import generation
from pgm_jax.recipes.prior_config import PriorConfig, to_json
from pgm_jax.training import objectives

TINY = {"widths": (8, 8), "encoder": (1, 1), "decoder": (1,), "embedding": 8, "patch": 1}
LEVELS = {"sigma_data": 0.5, "sigma_min": 0.002, "sigma_max": 40.0, "level_mean": -1.0, "level_std": 1.2}
CONFIG = PriorConfig(
    data=("unread.npy",),
    size=(8, 8),
    network="drunet",
    options=TINY,
    batch=4,
    steps=4,
    warmup=2,
    ema=("half_life_2", "power_0.1"),
    mesh_data=1,
    **LEVELS,
)


def changed(**fields):
    return dataclasses.replace(CONFIG, **fields)


def volume(shape=(12, 16, 16), dtype=np.float32, scale=900.0):
    """A bright block that fills more of each slice, on noise."""
    random = np.random.default_rng(3)
    array = 0.02 * random.random(shape)
    for z in range(shape[0]):
        array[z, 2 : 4 + z % 10, 3:12] += random.random()
    return (scale * array).astype(dtype)


@pytest.fixture
def file(tmp_path):
    def save(array, name="volume.npy"):
        np.save(tmp_path / name, array)
        return str(tmp_path / name)

    return save


def test_slices_are_scaled_shrunk_and_framed(file):
    array = volume()
    chosen = data.axial_slices(data.read(file(array)), 0.3)
    scaled = array[chosen][..., None] / np.percentile(array, 99.5)
    assert 0 < len(chosen) < len(array)
    config = changed(data=(file(array),), min_anatomy=0.3)
    whole = np.stack(generation.read_images(config))
    np.testing.assert_allclose(whole, scaled[:, 4:12, 4:12], rtol=1e-6)
    blocks = scaled.reshape(-1, 4, 4, 4, 4, 1).mean((2, 4))
    small = np.stack(generation.read_images(dataclasses.replace(config, shrink=4)))
    np.testing.assert_allclose(small[:, 2:6, 2:6], blocks, rtol=1e-5)
    # What is added around a slice is the volume's minimum.
    assert np.ptp(small[:, :2]) == 0 and small[0, 0, 0, 0] == pytest.approx(scaled.min(), abs=0.03)
    window = np.stack(generation.read_images(dataclasses.replace(config, window=(-100.0, 900.0))))
    np.testing.assert_allclose(window, (array[chosen][:, 4:12, 4:12, None] + 100) / 1000, rtol=1e-5)


def test_patches_come_from_slices_of_different_sizes(file):
    first, second = volume((6, 16, 20)), volume((5, 6, 12))
    config = changed(data=(file(first, "a.npy"), file(second, "b.npy")), framing="patches", min_anatomy=0.0)
    images = generation.read_images(config)
    assert [image.shape for image in images] == [(16, 20, 1)] * 6 + [(8, 12, 1)] * 5
    batch = next(generation.image_batches(config, images))["x0"]
    everywhere = [np.lib.stride_tricks.sliding_window_view(image[..., 0], (8, 8)) for image in images]
    for patch in batch[..., 0]:
        assert any((windows == patch).all((-1, -2)).any() for windows in everywhere)


def test_a_named_phantom_and_complex_data_are_read(file):
    (head,) = generation.read_images(changed(data=("shepp-logan",), shrink=16, size=(16, 16)))
    phantom = data.shepp_logan().array[0]
    expected = phantom.reshape(16, 16, 16, 16, 1).mean((1, 3)) / np.percentile(phantom, 99.5)
    np.testing.assert_allclose(head, expected, rtol=1e-5, atol=1e-7)
    array = volume(dtype=np.complex64) * np.exp(0.5j).astype(np.complex64)
    images = np.stack(generation.read_images(changed(data=(file(array),), complex=True)))
    assert images.dtype == np.complex64
    np.testing.assert_allclose(
        np.percentile(np.abs(array), 99.5) * images[-1], array[-1][4:12, 4:12, None], rtol=1e-5
    )


@pytest.mark.parametrize(("name", "D"), [("brain-t1-pfgmpp", 64.0), ("brain-t1-edm", None)])
def test_the_shipped_cards_say_how_to_draw(name, D):
    trained = generation.load_exported(name)
    system = generation.build(trained.config)
    assert trained.config.D == D and trained.config.complex
    drawn = jax.eval_shape(system.draw, jax.random.key(0), trained.params, None)
    assert drawn.shape == (96, 96, 1) and drawn.dtype == jnp.complex64


def test_the_rate_rises_and_falls_as_a_cosine():
    """Adam's first step from zero gradients' scale moves every weight by the rate of that step."""
    config = changed(rate=0.1, warmup=4, steps=20, decay="cosine", clip=1e9)
    method = generation.optimiser(config)
    state, rates = method.init(jnp.zeros(())), []
    for _ in range(20):
        # A constant gradient makes Adam's step equal to the rate, to its epsilon.
        update, state = method.update(jnp.ones(()), state)
        rates.append(-float(update))
    rising, falling = np.arange(4) / 4, (1 + np.cos(np.pi * np.arange(16) / 16)) / 2
    expected = 0.1 * np.concatenate([rising, 0.01 + 0.99 * falling])
    np.testing.assert_allclose(rates, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("array", "fields", "words"),
    [
        (np.zeros((2, 3, 4, 5, 1)), {}, "has 5 axes"),
        (np.full((4, 8, 8), np.nan), {}, "pixels are NaN or infinite"),
        (np.zeros((0, 8, 8)), {}, "no numeric pixels"),
        (np.full((4, 8, 8), 3.0), {}, "every pixel is 3, so there is nothing to learn"),
        (volume()[..., None].repeat(3, -1), {}, "has 3 channels and the configuration 1"),
        (volume().astype(np.complex64), {}, "is complex and the configuration real"),
        (volume(), {"window": (-1000.0, 100000.0)}, "do not fit the window"),
        (volume(), {"window": (0.0, 1.0)}, "do not fit the window"),
        (-volume(), {}, "do not fit the window"),
        (volume(), {"shrink": 17}, "cannot be shrunk 17 times"),
        (volume(), {"min_anatomy": 1.0}, "lower min_anatomy"),
    ],
)
def test_data_that_do_not_fit_are_one_line(file, array, fields, words):
    with pytest.raises(data.DataError, match=words) as caught:
        generation.read_images(changed(data=(file(array),), **fields))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        (("colin28",), "neither a named data set nor a file; did you mean colin27"),
        (("there/is/none.nii.gz",), "no such file"),
        (("scan.jpeg",), "no such file"),
    ],
)
def test_data_that_are_not_there_are_named(entries, words):
    with pytest.raises(data.DataError, match=words):
        generation.read_images(changed(data=entries))


def test_units_are_not_mixed_and_hounsfield_needs_a_window(file, tmp_path):
    np.savez(tmp_path / "ct.npz", image=volume() - 500, units="HU")
    ct = str(tmp_path / "ct.npz")
    with pytest.raises(data.DataError, match=r"different units \(volume in a.u., ct in HU\)"):
        generation.read_images(changed(data=(file(volume()), ct)))
    with pytest.raises(data.DataError, match="is in HU: give the window"):
        generation.read_images(changed(data=(ct,)))
    windowed = generation.read_images(changed(data=(ct,), window=(-500.0, 500.0)))
    np.testing.assert_allclose(windowed[-1], volume()[-1][4:12, 4:12, None] / 1000, atol=1e-5)


def test_levels_are_measured_on_the_images_that_the_network_sees():
    empty = {name: None for name in LEVELS}
    images = list(0.3 * np.random.default_rng(0).normal(size=(300, 8, 8, 1)).astype(np.float32))
    found = generation.measured(changed(**empty), images)
    assert found.sigma_data == pytest.approx(0.3, rel=0.02)
    assert found.level_mean == pytest.approx(-1.2 + math.log(0.3 / 0.5), abs=0.03)
    # Two such images are 0.3 sqrt(2 N) apart, the farthest of 30,000 pairs not much more.
    assert 1 < found.sigma_max / (0.3 * math.sqrt(2 * 64)) < 1.5
    rotated = generation.measured(changed(**empty, complex=True), images)
    assert rotated.sigma_data == pytest.approx(0.3 / math.sqrt(2), rel=0.02)
    large = [np.random.default_rng(1).normal(size=(64, 64, 1)).astype(np.float32)]
    patches = generation.measured(changed(**empty, framing="patches"), large)
    assert patches.sigma_data == pytest.approx(1.0, rel=0.05)
    kept = generation.measured(changed(**empty | {"sigma_data": 0.7}), images)
    assert kept.sigma_data == 0.7 and kept.sigma_max == found.sigma_max
    assert generation.measured(CONFIG, None) is CONFIG
    with pytest.raises(ValueError, match="cannot be measured on one image: add data"):
        generation.measured(changed(**empty), images[:1])


# Process, sampler, and the mean square of noise whose deviation is one.
CASES = {
    "edm": ({"process": "edm"}, "heun", 1.0),
    "edm ddim": ({"process": "edm"}, "ddim", 1.0),
    "pfgmpp": ({"process": "pfgmpp", "D": 10.0}, "heun", 10 / 8),
    "vp 2m": ({"process": "vp"}, "dpmpp_2m", 1.0),
    "ve": ({"process": "ve"}, "heun", 1.0),
    "flow": ({"process": "flow"}, "heun", 1.0),
    "complex": ({"process": "pfgmpp", "D": math.inf, "complex": True}, "heun", 1.0),
}


@pytest.mark.parametrize("case", rest_slow(CASES.values(), keep=3, ids=CASES))
def test_a_network_that_returns_zero_draws_the_gaussian_of_sigma_data(case):
    """Under EDM's preconditioning F = 0 is the exact denoiser of N(0, sigma_data^2); finite D widens the start."""
    fields, sampler, power = case
    config = changed(**fields)
    system = generation.build(config, sampler=sampler, steps=60)
    params = system.network.init(jax.random.key(0))
    images = jax.jit(generation.draw_batch(system, 256))(jax.random.key(1), params, 0)
    parts = np.stack([images.real, images.imag]) if config.complex else np.asarray(images)
    assert images.shape == (256, 8, 8, 1)
    # 16384 numbers, and the first-order rows are a few per cent off.
    assert np.mean(parts**2) == pytest.approx(0.25 * power, rel=0.12 if sampler == "ddim" else 0.06)


def test_the_objective_is_the_one_composed_by_hand():
    changes = {"flip": (1,), "rotate": 5.0, "zoom": (0.9, 1.1), "gain": (0.8, 1.2), "gamma": (0.8, 1.3)}
    config = changed(process="pfgmpp", D=64.0, complex=True, **changes)
    network = networks.drunet(2, **TINY)
    by_hand = objectives.augmented(
        data.compose(
            data.flip((1,)),
            data.affine(5.0, (0.9, 1.1)),
            data.intensity((0.8, 1.2), (0.8, 1.3)),
            data.smooth_phase(),
        ),
        objectives.denoising(
            PFGMpp(64.0),
            network,
            precondition.edm(0.5),
            objectives.levels.lognormal(-1.0, 1.2),
            stratified=True,
        ),
    )
    params, batch = (
        network.init(jax.random.key(0)),
        {"x0": jnp.asarray(volume((4, 8, 8), scale=1.0))[..., None]},
    )
    losses = [
        jax.jit(objective)(params, (), batch, jax.random.key(1))[0]
        for objective in (by_hand, generation.build(config).objective)
    ]
    assert losses[0] == losses[1] and np.isfinite(losses[0])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"sigma_data": None}, "sigma_data are not given: measure them"),
        ({"options": {"width": 8}}, "drunet has no option 'width': choose from widths"),
        ({"options": {"dims": 3}}, "drunet has no option 'dims'"),
        ({"options": {"patch": "two"}}, "option patch of drunet is 'two': give int"),
        ({"options": {"widths": ("a",)}}, r"option widths of drunet is \('a',\): give whole numbers"),
        ({"size": (8, 9)}, r"drunet cannot take images of size \(8, 9\): .*multiples of 2"),
        (
            {"network": "unet", "options": {"width": 8, "blocks": 1}, "size": (10, 10)},
            "unet cannot take .* multiple of 4",
        ),
        ({"network": "dit", "options": {"width": 7}}, "width 7 must be a multiple"),
    ],
)
def test_an_impossible_prior_is_refused_when_it_is_built(fields, words):
    with pytest.raises(ValueError, match=words):
        generation.build(changed(**fields))
    if "sigma_data" not in fields:
        with pytest.raises(ValueError, match=words):
            generation.network_of(changed(**fields))


def test_options_reach_the_network():
    """A single number stands for a tuple of one, and bfloat16 is used inside, not for parameters."""
    options = {"width": 8, "multipliers": [1, 2], "blocks": 1, "attention": 1, "head_channels": 8}
    network = generation.network_of(
        changed(network="unet", options=options, precision="bfloat16", complex=True)
    )
    params = network.init(jax.random.key(0))
    direct = networks.unet(2, width=8, multipliers=(1, 2), blocks=1, attention=(1,), head_channels=8)
    chex.assert_trees_all_equal(params, direct.init(jax.random.key(0)))
    x, t = jax.ShapeDtypeStruct((1, 8, 8, 2), "float32"), jax.ShapeDtypeStruct((1,), "float32")
    assert "bf16" in str(jax.make_jaxpr(network.apply)(params, jnp.zeros(x.shape), jnp.zeros(t.shape)))


def test_a_sampler_that_does_not_exist_is_named():
    with pytest.raises(ValueError, match="sampler is 'hun': choose one of heun, ddim, dpmpp_2m"):
        generation.build(CONFIG, sampler="hun")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"mesh_data": None, "batch": 12}, "batch 12 does not divide over 8 devices times accumulate 1"),
        ({"accumulate": 3}, "does not divide over 1 devices times accumulate 3: use a multiple of 3"),
        ({"mesh_data": 4, "mesh_fsdp": 4}, "a mesh of 4 x 4 devices, and there are 8"),
        ({"mesh_data": None, "mesh_fsdp": 3}, "does not divide the 8 devices"),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        generation.devices(changed(**fields))


def test_averages_have_the_names_that_they_are_given():
    rules = generation.averages(changed(ema=("half_life_50", "power_0.10", "constant_0.9")))
    assert [rule.name for rule in rules] == ["half_life_50", "power_0.10", "constant_0.9"]
    moved = rules[2].update({"a": jnp.zeros(())}, {"a": jnp.ones(())}, 5)["a"]
    assert moved == pytest.approx(0.1)
    for name in ("half_life", "median_3", "power_x"):
        with pytest.raises(ValueError, match="name averages half_life_STEPS"):
            generation.averages(changed(ema=(name,)))


def test_the_optimiser_warms_up_and_clips():
    optimiser = generation.optimiser(changed(rate=0.1, warmup=4, clip=1.0))

    def moves(*gradients):
        params = {"a": jnp.zeros(2)}
        state, found = optimiser.init(params), []
        for gradient in gradients:
            updates, state = optimiser.update({"a": jnp.asarray(gradient)}, state, params)
            found.append(-np.asarray(updates["a"]))
        return np.array(found)

    # Adam's step along a constant gradient is the rate itself.
    rates = moves(*[(0.5, 0.5)] * 6)[:, 0]
    np.testing.assert_allclose(rates, [0.0, 0.025, 0.05, 0.075, 0.1, 0.1], rtol=1e-4)
    clipped, unit, half = (moves((size, 0.0), (0.1, 0.1)) for size in (30.0, 1.0, 0.5))
    np.testing.assert_allclose(clipped, unit, rtol=1e-5)
    assert abs(clipped - half).max() > 1e-3


def test_a_prior_learns_and_its_file_draws_what_its_run_draws(tmp_path):
    """One image at several gains: denoising by the network beats the Gaussian it starts as."""
    images = [np.full((8, 8, 1), gain, np.float32) for gain in np.linspace(0.5, 1.5, 16)]
    config, losses = changed(steps=60, batch=8, rate=5e-3), []
    hook = lambda step, metrics, state: losses.append(metrics["loss"])
    state = generation.train(config, tmp_path, images=images, hooks=[hook], log_every=1)
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:5])
    (tmp_path / "config.json").write_text(json.dumps(to_json(config)))
    for average in config.ema:
        trained = generation.load_run(tmp_path, average=average)
        assert (trained.config, trained.average, trained.step) == (config, average, 60)
        chex.assert_trees_all_equal(trained.params, state.ema[average])
    generation.export(trained, tmp_path / "prior.npz", licence="CC0")
    loaded = generation.load_exported(tmp_path / "prior.npz")
    assert (loaded.config, loaded.average, loaded.step) == (config, "power_0.1", 60)
    rounded = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16).astype(jnp.float32), trained.params)
    chex.assert_trees_all_equal(loaded.params, rounded)
    with pytest.raises(ValueError, match="parameterisation edm, and this run has v"):
        generation.export(trained._replace(config=changed(parameterisation="v")), tmp_path / "v.npz")


@pytest.mark.parametrize("fields", [case[0] for case in CASES.values()], ids=CASES)
def test_the_card_names_the_process_and_network_of_the_configuration(fields, tmp_path):
    config = changed(**fields)
    system = generation.build(config)
    params = system.network.init(jax.random.key(0))
    generation.export(generation.Trained(config, params, "half_life_2", 1), tmp_path / "p.npz")
    prior = priors.load_prior(tmp_path / "p.npz")
    chex.assert_trees_all_close(prior.process, system.process)
    assert type(prior.process.law) is type(system.process.law)
    assert type(prior.process.schedule) is type(system.process.schedule)

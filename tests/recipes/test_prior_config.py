"""The configuration of a prior: JSON and back, refusals by name, and what a run that goes on may change."""

import dataclasses
import json
import math

import pytest

from pgm_jax.recipes import prior_config
from pgm_jax.recipes.prior_config import PriorConfig

USED = PriorConfig(data=("a.npy",))
# No field has its default.
OTHER = PriorConfig(
    data=("mni152", "scan.nii.gz"),
    size=(32, 48),
    framing="patches",
    shrink=2,
    min_anatomy=0.25,
    window=(0.0, 900.0),
    channels=2,
    complex=True,
    flip=(0, 1),
    rotate=3.0,
    zoom=(0.9, 1.1),
    gain=(0.8, 1.2),
    gamma=(0.9, 1.1),
    process="pfgmpp",
    D=math.inf,
    parameterisation="x0",
    weighting="min_snr",
    levels="uniform",
    classes=True,
    objective="ect",
    start="teacher",
    stages=4,
    adversarial=0.5,
    adversarial_start=3,
    knots=24,
    guided=(2.0, 5.0),
    level_mean=-2.0,
    level_std=1.0,
    sigma_data=0.25,
    sigma_min=0.001,
    sigma_max=30.0,
    network="unet",
    options={"width": 8, "multipliers": (1, 2), "adaptive": True, "dropout": 0.1, "skip": "add"},
    precision="bfloat16",
    rate=1e-3,
    warmup=10,
    decay="cosine",
    clip=2.0,
    batch=4,
    accumulate=2,
    steps=7,
    ema=("power_0.1", "half_life_50"),
    seed=5,
    mesh_data=2,
    mesh_fsdp=4,
)


@pytest.mark.parametrize("config", [PriorConfig(), OTHER])
def test_json_and_back_is_the_same(config, tmp_path):
    text = json.dumps(prior_config.to_json(config), allow_nan=False)
    assert prior_config.from_json(json.loads(text)) == config
    (tmp_path / "config.json").write_text(text)
    assert prior_config.read(tmp_path) == prior_config.read(tmp_path / "config.json") == config


def test_every_field_was_tried_and_a_part_keeps_the_other_defaults():
    same = [
        f.name for f in dataclasses.fields(OTHER) if getattr(OTHER, f.name) == getattr(PriorConfig(), f.name)
    ]
    assert same == ["network"]
    assert prior_config.from_json({"rate": 1, "D": "inf"}) == PriorConfig(rate=1.0, D=math.inf)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([1], "holds list, not an object"),
        ({"framming": "whole"}, "no field 'framming'; did you mean framing?"),
        ({"size": 64}, "size is 64: give tuple[int, int]"),
        ({"size": [64, 64, 64]}, "size is [64, 64, 64]: give tuple[int, int]"),
        ({"batch": 2.5}, "batch is 2.5: give int"),
        ({"batch": True}, "batch is true: give int"),
        ({"rate": "fast"}, 'rate is "fast": give float'),
        ({"data": "mni152"}, "data is"),
        ({"complex": 1}, "complex is 1: give bool"),
        ({"options": []}, "options is []: give dict"),
    ],
)
def test_a_value_of_another_type_is_named(values, words):
    with pytest.raises(ValueError) as caught:
        prior_config.from_json(values, "run/config.json")
    assert str(caught.value).startswith("run/config.json: ") and words in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ValueError, match="none.json: No such file"):
        prior_config.read(tmp_path / "none.json")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json: not a JSON file"):
        prior_config.read(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"process": "edn"}, "process is 'edn': choose one of edm.*did you mean edm"),
        ({"network": "resnet"}, "network is 'resnet': choose one of unet"),
        ({"batch": 0}, "batch is 0: give a positive number"),
        ({"rate": math.nan}, "rate is nan: give a positive number"),
        ({"sigma_data": -1.0}, "sigma_data is -1.0"),
        ({"size": (0, 4)}, "size must be positive"),
        ({"window": (1.0, 1.0)}, "window is .*then a larger one"),
        ({"data": ()}, "no data"),
        ({"ema": ()}, "ema is empty"),
        ({"process": "pfgmpp"}, "process pfgmpp and D None"),
        ({"D": 64.0}, "process edm and D 64.0"),
        ({"complex": True, "window": (-1.0, 1.0)}, "let it begin at 0"),
        ({"levels": "uniform"}, "uniform levels need an end of time"),
        ({"weighting": "likelihood", "process": "pfgmpp", "D": 8.0}, "likelihood weighting holds for Normal"),
        ({"sigma_min": 2.0, "sigma_max": 1.0}, "sigma_min 2.0 must be below"),
        ({"zoom": (1.1, 0.9)}, "zoom is 1.1 0.9: give two positive numbers"),
        ({"gamma": (0.0, 1.0)}, "gamma is 0 1: give two positive numbers"),
        ({"flip": (2,)}, r"flip is \(2,\).*takes axes 0 and 1"),
        ({"rotate": -1.0}, "rotate -1: .*degrees from 0"),
        (
            {"gain": (0.9, 1.1), "window": (0.0, 900.0)},
            "gain and gamma change values that a window has fixed",
        ),
        ({"decay": "cosine", "warmup": 10, "steps": 10}, "warmup 10 leaves no step of 10 for the cosine"),
    ],
)
def test_a_meaningless_configuration_is_refused_by_field(change, words):
    prior_config.check(USED)
    with pytest.raises(ValueError, match=words):
        prior_config.check(dataclasses.replace(USED, **change))


def test_a_cosine_goes_on_to_its_own_last_step_only():
    saved = dataclasses.replace(USED, decay="cosine")
    assert prior_config.continued(saved, dataclasses.replace(saved, mesh_data=4), "run").mesh_data == 4
    with pytest.raises(ValueError, match="with steps = 10000, and this one has steps = 20000"):
        prior_config.continued(saved, dataclasses.replace(saved, steps=20000), "run")


def test_a_run_goes_on_with_what_was_measured_and_other_steps_and_devices():
    saved = dataclasses.replace(USED, sigma_data=0.3, level_mean=-2.0, steps=10)
    asked = dataclasses.replace(USED, steps=20, mesh_data=4, mesh_fsdp=2)
    expected = dataclasses.replace(asked, sigma_data=0.3, level_mean=-2.0)
    assert prior_config.continued(saved, asked, "run") == expected


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sigma_data": 0.5}, "run holds a run with sigma_data = 0.3, and this one has sigma_data = 0.5"),
        ({"window": (0.0, 2.0)}, r"with window = null, and this one has window = \[0.0, 2.0\]"),
        ({"process": "pfgmpp", "D": math.inf}, "with process = edm, and this one has process = pfgmpp"),
        ({"options": {"width": 8}}, r'with options = {}, .* options = {"width": 8}'),
    ],
)
def test_another_run_is_refused_by_the_first_field_that_differs(change, words):
    saved = dataclasses.replace(USED, sigma_data=0.3)
    with pytest.raises(ValueError, match=words):
        prior_config.continued(saved, dataclasses.replace(USED, **change), "run")

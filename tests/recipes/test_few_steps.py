"""Few-step priors from a configuration: trained from a run, resumed, read back, drawn, and refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from prior_runs import run

from pgm_jax.recipes import generation, prior_config
from pgm_jax.recipes.generation import adversary
from pgm_jax.recipes.prior_config import PriorConfig

UNET = {"width": 8, "multipliers": (1,), "blocks": 1, "attention": ()}
BASE = PriorConfig(
    size=(8, 8), options=UNET, process="pfgmpp", D=64.0, batch=4, steps=3, warmup=0, ema=("half_life_2",),
    mesh_data=1, sigma_data=0.5, sigma_min=0.002, sigma_max=40.0, level_mean=-1.0, level_std=1.2,
)  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A run of denoising, and its images."""
    folder = tmp_path_factory.mktemp("base")
    array = np.random.default_rng(0).random((6, 8, 8)).astype(np.float32)
    np.save(folder / "images.npy", array)
    config = dataclasses.replace(BASE, data=(str(folder / "images.npy"),))
    run(config, folder / "run")
    return folder, config


def few(base, name, **fields):
    folder, config = base
    start = None if name in ("ict", "meanflow", "scm") else str(folder / "run")
    plain = "trigflow" if name == "scm" else "edm"
    return dataclasses.replace(config, objective=name, start=start, knots=6, parameterisation=plain, **fields)


OPPOSED = {"adversarial": 0.5, "adversarial_start": 2}


@pytest.mark.parametrize(
    "name, fields",
    [(name, {}) for name in ("ect", "ict", "cd", "ctm", "scm", "meanflow")]
    + [("ect", OPPOSED)]
    + [pytest.param(name, OPPOSED, marks=pytest.mark.slow) for name in ("ict", "cd", "ctm")],
)
def test_an_objective_trains_resumes_and_is_sampled(name, fields, base, tmp_path):
    config = few(base, name, steps=8, **fields)
    whole = run(config, tmp_path / "whole")

    class Stop(Exception):
        pass

    def stop(step, metrics, state):
        if step == 5:
            raise Stop

    (tmp_path / "parts").mkdir()
    with pytest.raises(Stop):
        generation.train(config, tmp_path / "parts", save_every=2, log_every=1, hooks=[stop])
    resumed = run(config, tmp_path / "parts")
    assert resumed.step == 8
    both = (whole.params, whole.carry), (resumed.params, resumed.carry)
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool(jnp.array_equal(a, b)), *both)))
    if fields:
        first = adversary.carried(config, ())["discriminator"]
        moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), first, whole.carry["discriminator"])
        assert moved["head"]["kernel"] and int(whole.carry["step"]) == 8 and 0 < whole.carry["hinge"] < 4
    trained = generation.load_run(tmp_path / "whole")
    for steps in (1, 2):
        system = generation.build(trained.config, steps=steps)
        image = system.draw(jax.random.key(0), trained.params, None)
        assert image.shape == (8, 8, 1) and bool(jnp.all(jnp.isfinite(image)))


def test_the_adversarial_term_begins_at_its_step(base, tmp_path):
    """Steps before it are those of the plain run; from there its gradient has the asked share at the head."""
    rows = {}
    for name, fields in (("plain", {}), ("late", {"adversarial": 0.5, "adversarial_start": 4})):
        seen = rows[name] = []
        hook = lambda step, metrics, state, seen=seen: seen.append(metrics)
        generation.train(few(base, "ect", steps=8, **fields), None, log_every=1, hooks=[hook])
    losses = {name: np.array([row["loss"] for row in seen]) for name, seen in rows.items()}
    np.testing.assert_allclose(losses["late"][:4], losses["plain"][:4], rtol=1e-5)
    weights = np.array([row["adversarial_weight"] for row in rows["late"]])
    # It starts as the zero function, so that its first step pushes nowhere.
    assert not weights[:5].any() and (weights[5:] > 0).all()
    assert not np.isclose(losses["late"][7], losses["plain"][7], rtol=1e-5)


def test_a_student_starts_from_its_teacher(base):
    """With no step taken, tuning has the teacher's weights; jumps add what tells them their target."""
    from pgm_jax.recipes.generation import few_steps
    from pgm_jax.recipes.generation.learned_prior import network_of, teacher_of

    teacher = generation.load_run(base[0] / "run")
    start = few_steps.Start(teacher.config, teacher.params)
    for name in ("ect", "cd", "ctm"):
        config = few(base, name)
        network = network_of(config)
        params, carry = few_steps.first_state(config, network, teacher_of(config), start)
        flat = {
            jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        }
        for path, leaf in jax.tree_util.tree_leaves_with_path(teacher.params):
            assert jnp.array_equal(flat[jax.tree_util.keystr(path)], leaf)
        assert set(carry) == {"step"} | ({"target", "teacher"} if name != "ect" else set())
        extra = set(flat) - {
            jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(teacher.params)
        }
        assert bool(extra) == (name == "ctm") and all("vector" in path for path in extra)


def test_scm_distils_where_it_starts_from_a_run(base, tmp_path):
    """Its teacher is fixed, and weights of another parameterisation are refused."""
    config = dataclasses.replace(base[1], parameterisation="trigflow")
    teacher = run(config, tmp_path / "teacher")
    student = run(
        dataclasses.replace(config, objective="scm", start=str(tmp_path / "teacher")), tmp_path / "student"
    )
    kept = generation.load_run(tmp_path / "teacher").params
    taught = student.carry["teacher"]
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool(jnp.array_equal(a, b)), taught, kept)))
    assert teacher.carry == () and not jnp.array_equal(*map(_first_leaf, (student.params, kept)))
    with pytest.raises(ValueError, match="trained with parameterisation = edm"):
        generation.train(dataclasses.replace(few(base, "scm"), start=str(base[0] / "run")), None)


def _first_leaf(tree):
    return jax.tree.leaves(tree)[0]


def test_a_run_of_before_a_field_existed_is_read(base, monkeypatch):
    """An absent field of its description has its default; one that differs is refused."""
    from pgm_jax.core import checkpoint

    read = checkpoint.read_meta

    def described(**changes):
        def older(path, step=None):
            found = read(path, step)
            kept = {name: value for name, value in found["meta"].items() if name not in ("classes", "guided")}
            return found | {"meta": kept | changes}

        return older

    whole = generation.load_run(base[0] / "run")
    monkeypatch.setattr(checkpoint, "read_meta", described())
    older = generation.load_run(base[0] / "run")
    assert jnp.array_equal(*map(_first_leaf, (whole.params, older.params)))
    monkeypatch.setattr(checkpoint, "read_meta", described(classes=True))
    with pytest.raises(checkpoint.CheckpointError, match="classes = True"):
        generation.load_run(base[0] / "run")


@pytest.mark.parametrize(
    "fields, told",
    [
        ({"D": 128.0}, "trained with D = 64"),
        ({"sigma_max": 80.0}, "trained with sigma_max = 40"),
        ({"options": UNET | {"width": 16}}, "trained with options"),
        ({"process": "edm", "D": None}, "trained with process = pfgmpp"),
        ({"start": "nowhere"}, "no folder of"),
    ],
)
def test_another_teacher_is_refused(fields, told, base):
    config = dataclasses.replace(few(base, "ect"), **fields)
    with pytest.raises(ValueError, match=told):
        generation.train(config, None)


@pytest.mark.parametrize(
    "fields, told",
    [
        ({"objective": "ect"}, "needs trained weights"),
        ({"objective": "ect", "process": "vp", "D": None}, "process edm or pfgmpp"),
        ({"objective": "ict", "weighting": "edm"}, "its own weighting"),
        ({"objective": "cd", "start": "x", "knots": 3}, "knots is 3"),
        ({"objective": "scm", "start": "x"}, "parameterisation trigflow"),
        ({"objective": "ict", "steps": 7}, "at least 8"),
        ({"objective": "fast"}, "choose one of"),
        ({"objective": "meanflow", "adversarial": 0.5}, "it is for ect, ict, cd, ctm"),
        ({"adversarial": 0.5}, "with objective denoising"),
        ({"adversarial": -1.0}, "give 0 or more"),
        ({"objective": "ict", "steps": 8, "adversarial": 0.5, "size": (8, 10)}, "that 4 divides"),
    ],
)
def test_impossible_configurations_are_refused(fields, told):
    with pytest.raises(ValueError, match=told):
        prior_config.check(dataclasses.replace(BASE, data=("x",), **fields))


@pytest.mark.parametrize("network", ["unet", "drunet", "dit"])
def test_every_network_hears_the_target_of_a_jump(network):
    from pgm_jax.recipes.generation.learned_prior import network_of

    options = {
        "unet": UNET,
        "drunet": {"widths": (8,), "encoder": (1,), "decoder": (), "embedding": 8},
        "dit": {"width": 16, "depth": 1, "heads": 2, "patch": 4},
    }
    config = dataclasses.replace(
        BASE, data=("x",), objective="meanflow", network=network, options=options[network]
    )
    prior_config.check(config)
    net = network_of(config)
    params = jax.tree.map(
        lambda leaf: 0.1 * jax.random.normal(jax.random.key(leaf.size), leaf.shape, leaf.dtype),
        jax.eval_shape(net.init, jax.random.key(0)),
    )
    told = lambda v: {"vector": jnp.full((1, 16), v)}
    out = [net.apply(params, jnp.ones((1, 8, 8, 1)), jnp.zeros(1), told(v)) for v in (0.0, 1.0)]
    assert float(jnp.abs(out[0] - out[1]).max()) > 1e-4


def test_a_sampler_is_not_named_for_few_steps():
    config = dataclasses.replace(BASE, data=("x",), objective="ict", steps=8)
    with pytest.raises(ValueError, match="leave it out"):
        generation.build(config, sampler="heun")


def test_a_curriculum_is_not_stretched_by_going_on():
    """Levels of ect depend on the whole number of steps: a run of other length is another run."""
    few = dataclasses.replace(BASE, data=("x",), objective="ect", start="run")
    longer = dataclasses.replace(few, steps=9)
    with pytest.raises(ValueError, match="steps"):
        prior_config.continued(few, longer, "run")
    plain = dataclasses.replace(few, objective="denoising", start=None)
    assert prior_config.continued(plain, dataclasses.replace(plain, steps=9), "run").steps == 9


@pytest.mark.parametrize("steps", [None, 1])
def test_a_shipped_few_step_prior_is_sampled_by_its_name(steps):
    """Its card holds a whole configuration, and it jumps as its objective says."""
    trained = generation.load_exported("chest-ct-edm-ect")
    system = generation.build(dataclasses.replace(trained.config, size=(16, 16)), steps=steps)
    image = system.draw(jax.random.key(0), trained.params, None)
    assert image.shape == (16, 16, 1) and bool(jnp.all(jnp.isfinite(image)))
    assert float(jnp.abs(image).max()) < 10

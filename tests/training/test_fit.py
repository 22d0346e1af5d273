"""The loop: resume, damage, other devices, signals, divergence, full disks and wrong input, each in one line."""

import functools
import json
import os
import resource
import signal
from concurrent.futures import ThreadPoolExecutor

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import training_toys as toys

from pgm_jax import networks, parallel, processes, training
from pgm_jax.core import checkpoint
from pgm_jax.networks import convolution
from pgm_jax.training import objectives, resume

AVERAGE = toys.average(0.25)
OPTIMISER = optax.sgd(0.05, momentum=0.9)


@functools.cache
def _params():
    return toys.init(jax.random.key(0))


def _fit(steps, batches=None, devices=1, params=None, objective=toys.objective, **options):
    return training.fit(
        objective,
        OPTIMISER,
        _params() if params is None else params,
        toys.Rows() if batches is None else batches,
        key=jax.random.key(1),
        steps=steps,
        ema=(AVERAGE,),
        carry=toys.CARRY,
        mesh=parallel.make_mesh(devices=jax.devices()[:devices]),
        **options,
    )


def _numbers(state):
    return jax.tree.map(np.asarray, state.replace(key=jax.random.key_data(state.key)))


def _equal(state, expected):
    chex.assert_trees_all_equal(_numbers(state), _numbers(expected))


@pytest.fixture(scope="module")
def whole():
    """Nine steps without a break, by number of devices."""
    return {devices: _fit(9, devices=devices) for devices in (1, 8)}


def test_the_loop_is_the_step_called_in_order_and_learns(whole):
    state = training.create_state(jax.random.key(1), _params(), OPTIMISER, ema=(AVERAGE,), carry=toys.CARRY)
    step = jax.jit(training.train_step(toys.objective, OPTIMISER, ema=(AVERAGE,)))
    rows = toys.Rows()
    for _ in range(9):
        state, _ = step(state, next(rows))
    _equal(whole[1], state)
    losses = []
    _fit(200, hooks=(lambda step, metrics, state: losses.append(metrics["loss"]),), log_every=1)
    assert np.mean(losses[-50:]) < 0.75 * np.mean(losses[:10])


@pytest.mark.parametrize("batches", [toys.Rows, toys.stateless])
def test_a_run_in_three_pieces_is_the_run_in_one(tmp_path, whole, batches):
    """Also where the iterator cannot tell its place, and whatever key and parameters later pieces are given."""
    for steps in (4, 4, 7):
        _fit(steps, batches(), checkpoint=tmp_path, save_every=3, keep=2)
    assert checkpoint.steps(tmp_path) == [6, 7]
    other = jax.tree.map(jnp.zeros_like, whole[1].params)
    _equal(_fit(9, batches(), params=other, checkpoint=tmp_path), whole[1])


def test_parameters_made_in_place_are_those_given(whole):
    made = []
    hook = lambda step, metrics, state: made.append(step)
    _equal(_fit(9, params=lambda key: _params(), devices=8, hooks=(hook,), log_every=4), whole[8])
    assert made == [4, 8, 9]


def test_a_run_moves_between_numbers_of_devices(tmp_path, whole):
    for steps, devices in ((3, 8), (6, 2), (9, 1)):
        state = _fit(steps, devices=devices, checkpoint=tmp_path)
    # Sums over devices round differently; nothing else changes.
    chex.assert_trees_all_close(_numbers(state), _numbers(whole[8]), rtol=1e-6, atol=1e-7)
    _equal(_fit(9, devices=8), whole[8])


def test_the_step_is_traced_once_and_the_state_is_donated():
    traces, states = [], []

    def objective(*arguments):
        traces.append(1)
        return toys.objective(*arguments)

    hook = lambda step, metrics, state: states.append(state)
    _fit(4, objective=objective, hooks=(hook,), log_every=1)
    assert len(traces) == 1
    deleted = [
        all(leaf.is_deleted() for leaf in jax.tree.leaves((s.params, s.opt_state, s.ema))) for s in states
    ]
    assert deleted == [True, True, True, False]
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(_params()))


@pytest.mark.parametrize("per_call", [1, 2, 4])
def test_steps_of_one_call_are_steps_of_many(tmp_path, whole, per_call):
    """Also where a call of fewer steps ends at a save, a row of metrics or the end."""
    rows = []
    hook = lambda step, metrics, state: rows.append((step, int(state.step)))
    state = _fit(
        9, per_call=per_call, devices=8, hooks=(hook,), log_every=5, checkpoint=tmp_path, save_every=3
    )
    _equal(state, whole[8])
    assert rows == [(5, 5), (9, 9)] and checkpoint.steps(tmp_path) == [3, 6, 9]
    with pytest.raises(ValueError, match="per_call is the number of steps of one call and at least 1, got 0"):
        _fit(9, per_call=0)


def test_a_convolutional_run_in_pieces_is_the_run_in_one(tmp_path, monkeypatch):
    """On one CPU, where its derivatives may stand in a loop; calls of three steps where the whole has eight."""
    monkeypatch.setattr(convolution, "on_one_cpu", lambda: True)
    network = networks.drunet(1, widths=(8, 16), encoder=(1, 1), decoder=(1,))
    levels = objectives.levels.lognormal()
    objective = objectives.denoising(processes.EDM(), network, processes.precondition.edm(), levels)
    chosen = []
    choose = training.loop.program_of

    def seen(*arguments):
        chosen.append(choose(*arguments))
        return chosen[-1]

    monkeypatch.setattr(training.loop, "program_of", seen)

    def run(steps, **options):
        batches = (
            {"x0": np.random.default_rng(n).normal(size=(2, 16, 16, 1)).astype("f4")} for n in range(20)
        )
        mesh = parallel.make_mesh(devices=jax.devices()[:1])
        state = training.fit(
            objective,
            OPTIMISER,
            network.init,
            batches,
            key=jax.random.key(3),
            steps=steps,
            mesh=mesh,
            **options,
        )
        return _numbers(state)

    expected = run(9)
    run(4, checkpoint=tmp_path, per_call=3)
    chex.assert_trees_all_equal(run(9, checkpoint=tmp_path, per_call=3), expected)
    assert [most for _, most in chosen] == [8, 3, 3]


def _damage(path, step):
    file = max((path / str(step) / "state").rglob("*"), key=lambda f: f.stat().st_size if f.is_file() else 0)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return file.name


def test_a_truncated_checkpoint_is_named_and_the_one_before_is_used(tmp_path, whole):
    _fit(6, checkpoint=tmp_path, save_every=2, keep=3)
    name = _damage(tmp_path, 6)
    with pytest.warns(UserWarning, match=f"{name} is damaged.*step 4 is used, 6 is now 6.damaged") as caught:
        # With keep=1, a damaged step counted as the newest would outlive all good ones.
        _equal(_fit(9, checkpoint=tmp_path, save_every=2, keep=1), whole[1])
    assert len(caught) == 1 and "\n" not in str(caught[0].message)
    assert checkpoint.steps(tmp_path) == [9] and (tmp_path / "6.damaged").exists()


def test_a_run_never_starts_again_where_all_checkpoints_are_damaged(tmp_path):
    _fit(2, checkpoint=tmp_path, save_every=1, meta={"D": 64})
    for step in (1, 2):
        _damage(tmp_path, step)
    (tmp_path / "2" / "_CHECKPOINT_METADATA").unlink()
    with pytest.raises(checkpoint.CheckpointError, match="2/_CHECKPOINT_METADATA is missing"):
        _fit(3, checkpoint=tmp_path, meta={"D": 64})
    assert checkpoint.steps(tmp_path) == [1, 2]


META = {"process": {"name": "PFGMpp", "D": 64}, "network": {"widths": [8, 16]}, "shape": [8, 8, 1]}


def test_a_checkpoint_of_another_run_is_refused_by_the_first_key_that_differs(tmp_path):
    _fit(1, checkpoint=tmp_path, meta=META)
    for change, message in [
        ({"process": {"name": "EDM", "D": float("inf")}}, "process.name = PFGMpp, and this run has .* = EDM"),
        ({"process": {"name": "PFGMpp", "D": float("inf")}}, "process.D = 64, .*process.D = inf"),
        ({"network": {"widths": [8, 32]}}, r"network.widths = \[8, 16\], .* = \[8, 32\]"),
        ({"shape": (8, 8, 2)}, r"shape = \[8, 8, 1\], .*\[8, 8, 2\]"),
        ({"seed": 3}, "seed = nothing, .* = 3"),
    ]:
        with pytest.raises(checkpoint.CheckpointError, match=message) as caught:
            _fit(2, checkpoint=tmp_path, meta=META | change)
        assert "\n" not in str(caught.value)
    # Another network changes the arrays too: the line of the configuration is the one that is shown.
    wide = lambda key: toys.init(key, 32)
    with pytest.raises(checkpoint.CheckpointError, match="network.widths"):
        _fit(2, params=wide, checkpoint=tmp_path, meta=META | {"network": {"widths": [8, 32]}})
    with pytest.raises(checkpoint.CheckpointError, match=r"'params/in/bias' is float32\[16\]"):
        _fit(2, params=wide, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="has 1 steps and this run asks for 0"):
        _fit(0, checkpoint=tmp_path)
    weights = tmp_path / "weights"
    checkpoint.save(weights, _params())
    with pytest.raises(
        checkpoint.CheckpointError, match="weights/0 has, and the given state lacks|weights/0 lacks"
    ):
        _fit(2, checkpoint=weights, meta=META)
    # A run without a description keeps the saved one.
    _fit(2, checkpoint=tmp_path)
    assert checkpoint.read_meta(tmp_path)["meta"] == META


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_is_obeyed_after_the_step_and_its_save(tmp_path, whole, name):
    number = signal.Signals[name]
    before = signal.getsignal(number)
    hook = lambda step, metrics, state: step == 5 and os.kill(os.getpid(), number)
    with pytest.raises(
        training.Interrupted, match=f"{name} after step 5 of 9: saved in .*start again"
    ) as caught:
        _fit(9, checkpoint=tmp_path, hooks=(hook,), log_every=5)
    assert caught.value.step == 5 and checkpoint.steps(tmp_path) == [5]
    assert signal.getsignal(number) is before
    _equal(_fit(9, checkpoint=tmp_path), whole[1])


def test_without_a_checkpoint_ctrl_c_acts_as_ever():
    hook = lambda step, metrics, state: os.kill(os.getpid(), signal.SIGINT)
    # A shell that starts the tests in the background makes them ignore SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            _fit(9, hooks=(hook,), log_every=5)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_run_in_another_thread_leaves_signals_alone(tmp_path, whole):
    with ThreadPoolExecutor(1) as pool:
        _equal(pool.submit(_fit, 9, checkpoint=tmp_path).result(), whole[1])


class Poisoned(toys.Rows):
    """Rows whose fifth batch holds an infinity."""

    def __next__(self):
        batch = super().__next__()
        if self.next == 5:
            batch["x0"][3] = np.inf
        return batch


@pytest.mark.parametrize("save_every", [2, 5])
def test_divergence_is_named_with_its_level_and_the_last_good_checkpoint_stays(tmp_path, save_every):
    rows = []
    hook = lambda step, metrics, state: rows.append(step)
    with pytest.raises(training.Diverged, match="not finite at step 5 .*noise level") as caught:
        _fit(9, Poisoned(), checkpoint=tmp_path, save_every=save_every, hooks=(hook,), log_every=1)
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(1), 4), 3)
    level = jnp.exp(jax.random.normal(jax.random.split(key)[0]))
    assert caught.value.step == 5 and "\n" not in str(caught.value)
    np.testing.assert_allclose(caught.value.level, level, rtol=1e-6)
    good = [2, 4] if save_every == 2 else []
    assert checkpoint.steps(tmp_path) == good and rows == [1, 2, 3, 4]
    assert ("step 4 in" if good else "no checkpoint was saved") in str(caught.value)


def test_divergence_is_seen_one_call_later_where_nothing_asks_for_the_metrics():
    with pytest.raises(training.Diverged, match="not finite at step 5 "):
        _fit(1000, Poisoned())


# orbax's writing threads report to an event loop that the first failure has closed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_full_disk_keeps_the_last_good_checkpoint(tmp_path, whole, monkeypatch):
    _fit(3, checkpoint=tmp_path)
    refused = "step 5 could not be saved in .*: .*; the last complete step is 3: mend"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The system refuses every write beyond 300 bytes, in the threads that write arrays too.
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, limits[1]))
    try:
        with pytest.raises(checkpoint.CheckpointError, match=refused) as caught:
            _fit(9, checkpoint=tmp_path, save_every=5, keep=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "File too large" in str(caught.value) and "\n" not in str(caught.value)
    assert checkpoint.steps(tmp_path) == [3]

    checksums = checkpoint._checksums

    def full(folder):
        if folder.name == "5":
            raise OSError(28, "No space left on device")
        return checksums(folder)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_checksums", full)
        with pytest.raises(checkpoint.CheckpointError, match=refused) as caught:
            _fit(9, checkpoint=tmp_path, save_every=5, keep=1)
    assert "No space left" in str(caught.value) and checkpoint.steps(tmp_path) == [3]
    _equal(_fit(9, checkpoint=tmp_path), whole[1])


def test_batches_that_do_not_fit_are_named_before_anything_is_compiled(monkeypatch):
    monkeypatch.setattr(training.loop.jax, "jit", None)
    create = lambda *arguments, **options: None
    monkeypatch.setattr(training.loop, "create_state", create)
    with pytest.raises(ValueError, match="x0 has 12 rows.*8 parts.*multiple of 8"):
        _fit(1, toys.Rows(12), devices=8)
    with pytest.raises(
        ValueError, match="16 rows does not divide over 8 parts .*accumulate=3; use a multiple of 24"
    ):
        _fit(1, devices=8, accumulate=3)


def test_batches_that_change_or_end_are_named(tmp_path):
    uneven = iter([{"x0": np.ones((4, 4), "f4")}, {"x0": np.ones((3, 4), "f4")}])
    with pytest.raises(
        ValueError, match=r"x0 is float32\[3, 4\] in the batch of step 2 and was float32\[4, 4\]"
    ):
        _fit(3, uneven)
    with pytest.raises(ValueError, match="ended before step 3: give an iterator that repeats"):
        _fit(3, [{"x0": np.ones((4, 4), "f4")}] * 2)
    _fit(3, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="ended after 2 while moving to step 3"):
        _fit(4, [{"x0": np.ones((4, 4), "f4")}] * 2, checkpoint=tmp_path)


def test_rows_of_metrics_survive_kills_without_doubles(tmp_path):
    path = tmp_path / "log" / "metrics.jsonl"
    options = {"checkpoint": tmp_path / "run", "save_every": 4, "log_every": 2}
    _fit(8, hooks=(training.jsonl(path),), **options)
    expected = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["step"] for row in expected] == [2, 4, 6, 8]
    # As if it had been killed while it wrote the row of step 8, with step 4 the last one saved.
    resume.checkpoint._directory(tmp_path / "run").joinpath("8").rmtree()
    text = path.read_text()
    path.write_text(text[: len(text) - 20])
    _fit(9, hooks=(training.jsonl(path),), **options)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 9]
    for row, was in zip(rows, expected, strict=False):
        assert row.pop("images_per_s") > 0 and was.pop("images_per_s") > 0
        assert row == was


def test_a_value_that_is_not_finite_is_null_in_the_rows(tmp_path):
    training.jsonl(tmp_path / "m.jsonl")(3, {"a": float("nan"), "b": 1.5}, None)
    assert json.loads((tmp_path / "m.jsonl").read_text()) == {"step": 3, "a": None, "b": 1.5}


def test_images_a_second_leave_out_compilation_hooks_and_saves(tmp_path, monkeypatch):
    """A clock that advances only where told: each batch takes a second, a hook 100 and a save 1000."""
    clock = [0.0]
    monkeypatch.setattr(training.loop.time, "perf_counter", lambda: clock[0])
    seen = []

    class Slow(toys.Rows):
        def __next__(self):
            clock[0] += 1
            return super().__next__()

    def hook(step, metrics, state):
        seen.append(metrics["images_per_s"])
        clock[0] += 100

    def save(*arguments):
        clock[0] += 1000

    monkeypatch.setattr(training.loop, "save", save)
    _fit(7, Slow(), hooks=(hook,), log_every=3, checkpoint=tmp_path, save_every=2)
    # The two batches of the first call are drawn to compile, before the clock starts.
    assert seen == [16 * 3 / 1, 16 * 3 / 3, 16]


def test_positions_of_other_processes(tmp_path, whole, monkeypatch):
    """A run of two processes goes on in one: equal positions are taken over, others are counted from the start."""
    for positions in ([{"next": 4}, {"next": 4}], [{"next": 4}, {"next": 11}]):
        path = tmp_path / str(positions[1]["next"])
        with monkeypatch.context() as patch:
            patch.setattr(resume, "_positions", lambda iterator, found=positions: found)
            _fit(4, checkpoint=path)
        _equal(_fit(9, checkpoint=path), whole[1])

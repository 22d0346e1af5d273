"""One step: accumulation, pmap and sharding change nothing; what is not finite changes nothing either."""

import math
import operator
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import training_toys as toys
from jax.sharding import PartitionSpec as P

from pgm_jax import parallel, training
from pgm_jax.training import calls

AVERAGE = toys.average(0.25)
OPTIMISER = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1, momentum=0.9))


def _state(key, mesh=None, **options):
    return training.create_state(
        key, toys.init, OPTIMISER, ema=(AVERAGE,), carry=toys.CARRY, mesh=mesh, **options
    )


def _step(**options):
    return training.train_step(toys.objective, OPTIMISER, ema=(AVERAGE,), **options)


def _numbers(state):
    return jax.tree.map(np.asarray, state.replace(key=jax.random.key_data(state.key)))


def _close(state, expected, rtol=1e-5):
    chex.assert_trees_all_close(_numbers(state), _numbers(expected), rtol=rtol, atol=1e-7)


def test_one_step_by_hand(key):
    """Mean loss, key folded with the step, plain descent, an average that sees the new parameters."""
    batch = {"x": jnp.array([1.0, 2.0, 6.0])}

    def objective(params, carry, batch, key):
        noise = jax.random.normal(key)
        loss = jnp.mean((params["w"] - batch["x"]) ** 2) / 2
        return loss, (carry * 2, {"noise": noise, "rows": batch["index"].sum()})

    state = training.create_state(
        key, {"w": jnp.array(5.0)}, optax.sgd(0.5), ema=(AVERAGE,), carry=jnp.array(3.0)
    )
    state = state.replace(step=jnp.int32(7))
    new, metrics = jax.jit(training.train_step(objective, optax.sgd(0.5), ema=(AVERAGE,)))(state, batch)
    assert int(new.step) == 8 and float(new.carry) == 6 and jnp.array_equal(new.key, key)
    np.testing.assert_allclose(new.params["w"], 5 - 0.5 * (5 - 3), rtol=1e-6)
    np.testing.assert_allclose(new.ema["half"]["w"], 5 + 0.25 * (4 - 5), rtol=1e-6)
    np.testing.assert_allclose(metrics["loss"], (16 + 9 + 1) / 6, rtol=1e-6)
    assert metrics["noise"] == jax.random.normal(jax.random.fold_in(key, 7))
    assert (metrics["finite"], metrics["rows"]) == (1, 3)
    np.testing.assert_allclose(metrics["grad_norm"], 2, rtol=1e-6)


def test_a_complex_parameter_descends(key):
    objective = lambda params, carry, batch, key: (
        jnp.mean(jnp.abs(params - batch["x"]) ** 2) / 2,
        (carry, {}),
    )
    step = training.train_step(objective, optax.sgd(0.5))
    state = training.create_state(key, jnp.array(0j), optax.sgd(0.5))
    for _ in range(30):
        state, _ = step(state, {"x": jnp.array([2 - 3j])})
    np.testing.assert_allclose(state.params, 2 - 3j, rtol=1e-5)


@pytest.mark.parametrize("accumulate", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_accumulation_equals_the_whole_batch(key, accumulate):
    batch = {"x0": next(toys.Rows())["x0"]}
    whole, expected = jax.jit(_step())(_state(key), batch)
    parts, metrics = jax.jit(_step(accumulate=accumulate))(_state(key), batch)
    _close(parts, whole)
    # The level of the worst row of all is that of one microbatch's worst, the largest of which is reported.
    assert metrics.pop("worst_level") >= expected.pop("worst_level") * (1 - 1e-6)
    chex.assert_trees_all_close(metrics, expected, rtol=1e-5)
    assert int(parts.carry["steps"]) == 1


def test_half_precision_gradients_are_summed_in_float32(key):
    """Gradients of 1, 256 times, then of 1/4: a bfloat16 sum would stay at 256 and give 0.5."""
    params = jnp.ones((), jnp.bfloat16)
    objective = lambda params, carry, batch, key: (jnp.mean(params * batch["x"]).astype("f4"), (carry, {}))
    step = jax.jit(training.train_step(objective, optax.sgd(1.0), accumulate=512))
    x = jnp.where(jnp.arange(512) < 256, 1.0, 0.25).astype(jnp.bfloat16)
    _, metrics = step(training.create_state(key, params, optax.sgd(1.0)), {"x": x})
    assert float(metrics["grad_norm"]) == 0.625


@pytest.mark.parametrize("accumulate", [1, 2])
def test_pmap_equals_jit(key, accumulate):
    batch = next(toys.Rows())
    expected, expected_metrics = jax.jit(_step())(_state(key), batch)
    step = jax.pmap(
        _step(axis="batch", accumulate=accumulate),
        axis_name="batch",
        in_axes=(None, 0),
        devices=jax.devices()[:4],
    )
    state, metrics = step(_state(key), {"x0": batch["x0"].reshape(4, 4, 4)})
    for device in range(4):
        _close(jax.tree.map(operator.itemgetter(device), state), expected)
        for name in ("loss", "grad_norm", "level", "worst_error"):
            np.testing.assert_allclose(metrics[name][device], expected_metrics[name], rtol=1e-5)


SHARDED = [("kernel", parallel.fsdp(min_size=1)), (".*", parallel.replicate)]


@pytest.mark.parametrize("sizes", [{}, {"fsdp": 4}])
def test_any_mesh_gives_the_step_of_one_device(key, sizes):
    mesh = parallel.make_mesh(**sizes)
    batch = next(toys.Rows())
    expected, metrics = jax.jit(_step())(_state(key), batch)
    state, found = jax.jit(_step(accumulate=2))(
        _state(key, mesh, rules=SHARDED), parallel.shard_batch(mesh, batch)
    )
    _close(state, expected)
    np.testing.assert_allclose(found["loss"], metrics["loss"], rtol=1e-5)


def test_optimiser_and_averages_are_sharded_like_the_parameters_and_the_init_is_that_of_one_device(key):
    state = _state(key, parallel.make_mesh(fsdp=4), rules=SHARDED)
    _close(state, _state(key), rtol=0)
    momentum = state.opt_state[1][0].trace
    for tree in (state.params, momentum, state.ema["half"]):
        assert tree["in"]["kernel"].sharding.spec == P(None, "fsdp")
        assert tree["in"]["bias"].sharding.is_fully_replicated
    assert (
        state.key.sharding.is_fully_replicated
        and state.step.sharding.mesh == state.params["in"]["bias"].sharding.mesh
    )


def test_given_parameters_are_copied_and_never_donated(key):
    params = toys.init(key)
    state = training.create_state(key, params, OPTIMISER, ema=(AVERAGE,), carry=toys.CARRY)
    step = jax.jit(_step(), donate_argnums=0)
    new, _ = step(state, next(toys.Rows()))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves((state.params, state.ema, state.opt_state)))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(params))
    assert step._cache_size() == 1
    step(new, next(toys.Rows()))
    assert step._cache_size() == 1


def _collectives(text):
    """Lists `(kind, bytes)` of the collectives in a compiled program."""
    kinds = "all-reduce|all-gather|reduce-scatter|collective-permute|all-to-all|collective-broadcast"
    found = []
    for line in text.splitlines():
        # A long tuple holds comments such as /*index=5*/.
        if match := re.match(rf"\s*(?:ROOT )?\S+ = (.*?) ({kinds})(?:-start)?\(", line):
            shapes = re.findall(r"(?:pred|s|u|bf|f)(\d*)\[([\d,]*)\]", match[1])
            sizes = [
                int(bits or 8) // 8 * math.prod(map(int, filter(None, dims.split(","))))
                for bits, dims in shapes
            ]
            found.append((match[2], sum(sizes)))
    return found


def test_collectives_are_seen():
    lines = [
        "  a = (f32[5,16]{1,0}, /*index=1*/bf16[]) all-reduce(x)",
        "  ROOT b = s32[8]{0} all-gather-start(y)",
    ]
    assert _collectives("\n".join([*lines, "c = f32[2] add(b)"])) == [
        ("all-reduce", 5 * 16 * 4 + 2),
        ("all-gather", 32),
    ]


def _convolutional(params, carry, batch, key):
    """A residual block on images with noise drawn row by row: convolution, group norm, a dense time scale."""

    def draw(index, x0):
        return x0 + jax.random.normal(jax.random.fold_in(key, index), x0.shape)

    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    x = jax.vmap(draw)(batch["index"], batch["x0"])
    h = convolve(x, params["first"]["kernel"])
    groups = h.reshape(*h.shape[:3], 2, -1)
    groups = (groups - groups.mean((1, 2, 4), keepdims=True)) / (groups.std((1, 2, 4), keepdims=True) + 0.1)
    h = groups.reshape(h.shape) * (1 + params["scale"][None, None, None])
    out = x + convolve(jax.nn.silu(h), params["last"]["kernel"])
    return jnp.mean((out - batch["x0"]) ** 2), (carry, {})


@pytest.mark.parametrize(("problem", "accumulate"), [("dense", 2), ("convolutional", 1)])
def test_data_parallel_training_moves_the_gradients_and_nothing_else(key, problem, accumulate):
    mesh = parallel.make_mesh()
    if problem == "dense":
        objective, params, carry, x0 = toys.objective, toys.init(key), toys.CARRY, np.ones((16, 4), "f4")
    else:
        kernels = {"first": {"kernel": jnp.ones((3, 3, 2, 8))}, "last": {"kernel": jnp.ones((3, 3, 8, 2))}}
        objective, params, carry = _convolutional, {**kernels, "scale": jnp.zeros(8)}, ()
        x0 = np.ones((16, 8, 8, 2), "f4")
    optimiser = optax.adam(1e-3)
    state = training.create_state(key, params, optimiser, ema=(AVERAGE,), carry=carry, mesh=mesh)
    step = training.train_step(objective, optimiser, ema=(AVERAGE,), accumulate=accumulate)
    batch = parallel.shard_batch(mesh, {"x0": x0})
    several = training.several_steps(jax.jit(step))
    gradients = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    for program, given in ((step, (state, batch)), (several, (state, (batch, batch), np.int32(2)))):
        found = _collectives(jax.jit(program).lower(*given).compile().as_text())
        assert {kind for kind, _ in found} == {"all-reduce"}
        # The rest are scalars: the loss, the mean level and the worst rows of the metrics.
        assert gradients <= sum(size for _, size in found) <= gradients + 64


def test_a_step_that_is_not_finite_changes_nothing_but_its_number(key):
    step = jax.jit(_step())
    state, _ = step(_state(key), next(toys.Rows()))
    bad = next(toys.Rows())
    bad["x0"][3, 1] = np.inf
    after, metrics = step(state, bad)
    assert metrics["finite"] == 0 and not np.isfinite(metrics["loss"])
    chex.assert_trees_all_equal(_numbers(after.replace(step=state.step)), _numbers(state))
    assert int(after.step) == 2
    # The square root has an infinite slope at zero, where the loss itself is finite.
    slope = training.train_step(lambda p, c, b, k: (jnp.sqrt(p), (c, {})), optax.sgd(1.0))
    after, metrics = slope(training.create_state(key, jnp.array(0.0), optax.sgd(1.0)), {"x": jnp.ones(1)})
    assert metrics["loss"] == 0 and metrics["finite"] == 0 and after.params == 0
    # A finite gradient times a rate too large.
    huge = training.train_step(lambda p, c, b, k: (3 * p, (c, {})), optax.sgd(3e38))
    after, metrics = huge(training.create_state(key, jnp.array(0.0), optax.sgd(3e38)), {"x": jnp.ones(1)})
    assert metrics["grad_norm"] == 3 and metrics["finite"] == 0 and after.params == 0


def test_several_steps_are_the_steps_in_order_up_to_the_count_or_the_first_that_is_not_finite(key):
    step = jax.jit(_step())
    rows = toys.Rows()
    batches = tuple(next(rows) for _ in range(4))
    expected = [_state(key)]
    for batch in batches:
        state, metrics = step(expected[-1], batch)
        expected.append(state)
    several = jax.jit(training.several_steps(jax.jit(_step())))
    for count in (0, 1, 3, 4):
        state, last, taken = several(_state(key), batches, np.int32(count))
        assert taken == count
        chex.assert_trees_all_equal(_numbers(state), _numbers(expected[count]))
    chex.assert_trees_all_equal(last, metrics)
    batches[2]["x0"][3] = np.inf
    state, last, taken = several(_state(key), batches, np.int32(4))
    assert taken == 3 and last["finite"] == 0
    chex.assert_trees_all_equal(_numbers(state), _numbers(expected[2].replace(step=expected[3].step)))


def test_a_step_whose_convolutions_a_loop_slows_takes_one_a_call(key, monkeypatch):
    """lax's derivatives, for which XLA's CPU backend has fast code at the top of a program only."""
    kernels = {"first": {"kernel": jnp.ones((3, 3, 2, 8))}, "last": {"kernel": jnp.ones((3, 3, 8, 2))}}
    optimiser = optax.sgd(1e-3)
    state = training.create_state(key, {**kernels, "scale": jnp.zeros(8)}, optimiser)
    batch = {"x0": np.ones((4, 8, 8, 2), "f4")}
    slow = jax.jit(training.train_step(_convolutional, optimiser))
    assert calls.slow_in_a_loop(slow, state, batch)
    assert not calls.slow_in_a_loop(jax.jit(_step()), _state(key), next(toys.Rows()))
    assert calls.program_of(slow, state, batch)[1] == 1
    assert calls.program_of(_step(), _state(key), next(toys.Rows()), 5)[1] == 5
    counts = []
    monkeypatch.setattr(calls, "several_steps", lambda step: counts.append("several"))
    training.fit(
        _convolutional,
        optimiser,
        lambda key: {**kernels, "scale": jnp.zeros(8)},
        iter([batch] * 3),
        key=key,
        steps=3,
        mesh=parallel.make_mesh(devices=jax.devices()[:1]),
        hooks=(lambda step, metrics, state: counts.append(int(state.step)),),
    )
    assert counts == [3]
    monkeypatch.setattr(calls.jax, "default_backend", lambda: "gpu")
    assert not calls.slow_in_a_loop(slow, state, batch)


def test_wrong_batches_and_states_are_named(key):
    state = _state(key)
    rows = next(toys.Rows())["x0"]
    trace = lambda batch, objective=toys.objective, **options: jax.eval_shape(
        training.train_step(objective, OPTIMISER, ema=(AVERAGE,), **options), state, batch
    )
    with pytest.raises(ValueError, match="16 rows do not divide into accumulate=3"):
        trace({"x0": rows}, accumulate=3)
    with pytest.raises(ValueError, match="cond/class has 4 rows and x0 has 16|x0 has 16 rows and cond/class"):
        trace({"x0": rows, "cond": {"class": np.zeros(4)}})
    with pytest.raises(ValueError, match="'index', which train_step sets"):
        trace({"x0": rows, "index": np.arange(16)})
    float_count = lambda p, c, b, k: (toys.objective(p, c, b, k)[0], ({"steps": c["steps"] + 0.5}, {}))
    with pytest.raises(ValueError, match=r"'carry/steps' from int32\[\] into float32\[\]"):
        trace({"x0": rows}, float_count)
    with pytest.raises(ValueError, match="drops 'carry/steps'"):
        trace({"x0": rows}, lambda p, c, b, k: (toys.objective(p, c, b, k)[0], ((), {})))
    with pytest.raises(ValueError, match=r"one name: \['half', 'half'\]"):
        training.create_state(key, toys.init, OPTIMISER, ema=(AVERAGE, AVERAGE))

"""The driver of iterative solvers on gradient descent, whose iterates have a closed form."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgm_jax.reconstruction.iteration import Iteration, Trace, run, run_in_chunks


def _descent(target, rate=0.5):
    """Gradient descent on `(x - target)^2 / 2` from 0: `x_k = target (1 - (1 - rate)^k)`."""

    def measure(x):
        return 0.5 * jnp.sum((x - target) ** 2), jnp.sqrt(jnp.sum((x - target) ** 2))

    return Iteration(
        lambda: jnp.zeros_like(target), lambda x: x - rate * (x - target), lambda x: 2 * x, measure
    )


def test_a_run_takes_every_step_and_measures_each(x64):
    target = jnp.asarray([3.0, 4.0])
    image, trace = run(_descent(target), 4)
    np.testing.assert_allclose(image, 2 * target * (1 - 0.5**4), rtol=1e-14)
    np.testing.assert_allclose(trace.residual, 5 * 0.5 ** np.arange(1, 5), rtol=1e-14)
    np.testing.assert_allclose(trace.objective, 12.5 * 0.25 ** np.arange(1, 5), rtol=1e-14)
    assert trace.taken == 4 and trace.taken.dtype == jnp.int32


def test_it_stops_when_the_residual_has_vanished(x64):
    # 2^-7 is the first power of 1/2 below 1e-2.
    image, trace = run(_descent(jnp.asarray([3.0, 4.0])), 20, rtol=1e-2)
    assert trace.taken == 7
    np.testing.assert_allclose(trace.residual[:7], 5 * 0.5 ** np.arange(1, 8), rtol=1e-14)
    np.testing.assert_array_equal(trace.residual[7:], trace.residual[6])
    np.testing.assert_array_equal(trace.objective[7:], trace.objective[6])
    np.testing.assert_allclose(image, 2 * np.array([3.0, 4.0]) * (1 - 0.5**7))


def test_it_stops_when_neither_number_changes(x64):
    def measure(x):
        # Both tend to 1 + x -> 2: the residual never vanishes.
        return 1 + x, 1 + x

    slow = Iteration(lambda: jnp.asarray(0.0), lambda x: x + 0.5 * (1 - x), lambda x: x, measure)
    _, trace = run(slow, 50, rtol=1e-3)
    change = np.abs(np.diff(trace.residual[: int(trace.taken)])) / trace.residual[: int(trace.taken) - 1]
    assert trace.taken < 50 and change[-1] <= 1e-3 and (change[:-1] > 1e-3).all()
    # One number that still changes keeps it going.
    moving = slow._replace(measure=lambda x: (1 + x, jnp.where(x > 0.99999, 3.0, 2 + jnp.sin(1e3 * x))))
    assert run(moving, 50, rtol=1e-3)[1].taken > trace.taken


def test_a_start_without_a_measure_is_left_out_of_the_rule(x64):
    plain = _descent(jnp.asarray([3.0, 4.0]))
    blind = Iteration(
        lambda: (plain.init(), jnp.inf),
        lambda s: (plain.step(s[0]), plain.measure(plain.step(s[0]))[1]),
        lambda s: s[0],
        lambda s: (s[1], s[1]),
    )
    # The first step halves the residual, so that 2^-7 of what it leaves takes eight.
    _, trace = run(blind, 20, rtol=1e-2)
    assert trace.taken == 8 and np.isfinite(trace.residual).all()


def test_each_problem_of_a_batch_stops_at_its_own_step(x64):
    starts, rates = jnp.asarray([1.0, 8.0]), jnp.asarray([0.5, 0.95])
    solve = lambda target, rate: run(_descent(target, rate), 30, rtol=1e-3)
    images, trace = jax.jit(jax.vmap(solve))(starts, rates)
    np.testing.assert_array_equal(trace.taken, [10, 3])
    for i in range(2):
        image, alone = solve(starts[i], rates[i])
        np.testing.assert_allclose(images[i], image, rtol=1e-14)
        np.testing.assert_allclose(trace.residual[i], alone.residual, rtol=1e-12)


def test_a_scan_is_differentiable_in_reverse(x64):
    slope = jax.grad(lambda rate: run(_descent(jnp.asarray(1.0), rate), 3)[0])(0.5)
    np.testing.assert_allclose(slope, 2 * 3 * 0.5**2, rtol=1e-12)
    assert jax.jvp(lambda r: run(_descent(jnp.asarray(1.0), r), 3, rtol=1e-9)[0], (0.5,), (1.0,))[1] == slope


@pytest.mark.parametrize("rtol", [0.0, 1e-3])
def test_chunks_give_the_numbers_of_one_run(rtol, x64):
    iteration, seen = _descent(jnp.asarray([3.0, 4.0])), []
    image, trace = run_in_chunks(iteration, 17, 4, lambda image, t: seen.append((image, t)), rtol=rtol)
    expected, whole = run(iteration, 17, rtol=rtol)
    np.testing.assert_allclose(image, expected, rtol=1e-14)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-14), trace, whole)
    assert [int(t.taken) for _, t in seen] == ([4, 8, 12, 16, 17] if rtol == 0 else [4, 8, 10])
    # Entries that are still to come repeat the last one.
    np.testing.assert_array_equal(seen[0][1].residual[4:], seen[0][1].residual[3])
    np.testing.assert_allclose(seen[0][0], 2 * np.array([3.0, 4.0]) * (1 - 0.5**4))


def test_chunks_are_compiled_once_and_hold_no_constants():
    traced, table = [], jnp.arange(1000.0)

    def step(x):
        traced.append(1)
        return x + table

    iteration = Iteration(lambda: jnp.zeros(1000), step, lambda x: x, lambda x: (x[1], x[2]))
    limit = jax.config.jax_captured_constants_warn_bytes
    jax.config.update("jax_captured_constants_warn_bytes", 1000)
    try:
        with pytest.warns(UserWarning, match="constants"):
            jax.jit(lambda: run(iteration, 1))()
        traced.clear()
        with warnings.catch_warnings(action="error"):
            image, _ = run_in_chunks(iteration, 12, 5, lambda image, trace: None)
    finally:
        jax.config.update("jax_captured_constants_warn_bytes", limit)
    np.testing.assert_array_equal(image, 12 * table)
    assert len(traced) == 1


def test_a_state_may_be_any_pytree_and_steps_zero():
    iteration = Iteration(
        lambda: {"x": jnp.zeros(2), "n": jnp.int32(0)},
        lambda s: {"x": s["x"] + 1, "n": s["n"] + 1},
        lambda s: s["x"],
        lambda s: (s["x"][0], s["x"][1]),
    )
    assert isinstance(run(iteration, 2, rtol=1e-6)[1], Trace)
    np.testing.assert_array_equal(run(iteration, 0)[0], [0, 0])


@pytest.mark.parametrize("call", [lambda i: run(i, -1), lambda i: run_in_chunks(i, 3, 0, print)])
def test_wrong_counts_are_refused(call):
    with pytest.raises(ValueError, match="must be at least"):
        call(_descent(jnp.ones(2)))

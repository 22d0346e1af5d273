"""One optimiser step as a pure function of the state and a batch."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import optax

from pgm_jax.training.state import TrainState

_WORST = "worst_"


def train_step(
    objective: Callable, optimiser, *, ema: Sequence = (), accumulate: int = 1, axis: str | None = None
) -> Callable:
    """Makes the step `(state, batch) -> (state, metrics)`.

    The objective is differentiated with the key `fold_in(state.key, state.step)`, the optimiser applied and the
    averages updated. The batch that the objective sees also holds `index`, int32 (rows,): the number of each
    row in the whole batch. An objective that draws row i from `fold_in(key, index[i])` gives the same numbers
    for any accumulation and any number of devices.

    With `accumulate` n, the rows i, i + n, i + 2 n, ... form microbatch i, so that rows stay on their device.
    Gradients are summed in float32; for a loss that is a mean over rows the step is that of the whole batch.
    Every microbatch starts from the state's carry and that of the last one is kept: a carry may count steps or
    hold a teacher, and may not depend on which rows were seen.

    A step whose loss, gradient or update is not finite changes nothing but the step number: `finite` is then 0.

    Args:
        objective: `(params, carry, batch, key) -> (loss (), (carry, metrics))`; metrics are real scalars.
        optimiser: optax `GradientTransformation`; clipping is part of its chain.
        ema: rules `(name, init, update)` with `update(average, params, step) -> average`, step counted from 1.
        accumulate: number of microbatches.
        axis: name of the `jax.pmap` axis over which the batch is split and the gradients are averaged; leave it
            out under `jax.jit`, where the sharding of the batch does this.

    Returns:
        The step. Its metrics are float32 scalars: `loss`, `grad_norm` before clipping, `finite` (1 or 0), and
        the objective's own, averaged over microbatches; those named `worst_...` are the maximum.

    Raises:
        ValueError: while tracing, if the rows do not divide by `accumulate`, leaves have different numbers of
            rows, the batch already holds `index`, or a leaf of the state would change its shape or dtype.
    """

    def evaluate(params, carry, batch, key):
        value_and_grad = jax.value_and_grad(objective, has_aux=True)
        (loss, (carry, metrics)), grads = value_and_grad(params, carry, batch, key)
        metrics = {name: jnp.asarray(value, jnp.float32) for name, value in {"loss": loss, **metrics}.items()}
        # For a complex parameter JAX gives the conjugate of the direction of steepest ascent.
        return metrics, jax.tree.map(jnp.conj, grads), carry

    def step(state: TrainState, batch):
        key = jax.random.fold_in(state.key, state.step)
        batch = _indexed(batch, accumulate, axis)
        if accumulate == 1:
            metrics, grads, carry = evaluate(state.params, state.carry, batch, key)
        else:
            metrics, grads, carry = _accumulated(evaluate, state, batch, key, accumulate)
        if axis is not None:
            grads = jax.lax.pmean(grads, axis)
            metrics = {name: _across(name, value, axis) for name, value in metrics.items()}
        metrics["grad_norm"] = _norm(grads)
        updates, opt_state = optimiser.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        count = state.step + 1
        averages = {rule.name: rule.update(state.ema[rule.name], params, count) for rule in ema}
        new = state.replace(step=count, params=params, opt_state=opt_state, ema=averages, carry=carry)
        _same_types(state, new)
        finite = jnp.isfinite(metrics["loss"] + metrics["grad_norm"] + _norm(updates))
        metrics["finite"] = finite.astype(jnp.float32)
        kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new, state)
        return kept.replace(step=count), metrics

    return step


def _indexed(batch, accumulate, axis):
    if "index" in batch:
        raise ValueError("the batch holds 'index', which train_step sets to the row numbers; rename it")
    pairs = jax.tree_util.tree_leaves_with_path(batch)
    rows = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape[0] for path, leaf in pairs}
    count = next(iter(rows.values()))
    for name, number in rows.items():
        if number != count:
            raise ValueError(f"{name} has {number} rows and {next(iter(rows))} has {count}: one row a sample")
    if count % accumulate:
        raise ValueError(f"{count} rows do not divide into accumulate={accumulate} microbatches")
    first = 0 if axis is None else jax.lax.axis_index(axis) * count
    return {**batch, "index": first + jnp.arange(count, dtype=jnp.int32)}


def _accumulated(evaluate, state, batch, key, accumulate):
    def split(leaf):
        return jnp.moveaxis(leaf.reshape(-1, accumulate, *leaf.shape[1:]), 1, 0)

    def add(total, part):
        sums, _ = total
        metrics, grads, carry = evaluate(state.params, state.carry, part, key)
        return (jax.tree.map(lambda a, b: a + b.astype(a.dtype), sums, grads), carry), metrics

    zeros = jax.tree.map(lambda leaf: jnp.zeros_like(_float32(leaf)), state.params)
    (sums, carry), metrics = jax.lax.scan(add, (zeros, state.carry), jax.tree.map(split, batch))
    grads = jax.tree.map(lambda s, p: (s / accumulate).astype(p.dtype), sums, state.params)
    reduced = {n: v.max() if n.startswith(_WORST) else v.mean() for n, v in metrics.items()}
    return reduced, grads, carry


def _across(name, value, axis):
    return jax.lax.pmax(value, axis) if name.startswith(_WORST) else jax.lax.pmean(value, axis)


def _norm(tree):
    return optax.tree.norm(jax.tree.map(_float32, tree))


def _float32(leaf):
    return leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))


def _same_types(old, new):
    before, after = jax.tree_util.tree_leaves_with_path(old), jax.tree_util.tree_leaves_with_path(new)
    name = lambda path: jax.tree_util.keystr(path, simple=True, separator="/")
    describe = lambda leaf: f"{leaf.dtype}{list(leaf.shape)}"
    changed = {name(path) for path, _ in before} ^ {name(path) for path, _ in after}
    if changed:
        raise ValueError(f"the step adds or drops {sorted(changed)[0]!r} of the state; keep its structure")
    for (path, was), (_, now) in zip(before, after, strict=True):
        if describe(was) != describe(jnp.asarray(now)):
            raise ValueError(
                f"the step turns {name(path)!r} from {describe(was)} into {describe(jnp.asarray(now))}; "
                "objective, optimiser and averages must keep shapes and dtypes"
            )

"""The training loop: one compiled step, called until the run has its steps."""

import time
from collections.abc import Callable, Iterable, Sequence

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pgm_jax import parallel
from pgm_jax.core import checkpoint as checkpoints
from pgm_jax.training.preemption import Interrupted, StopRequest
from pgm_jax.training.resume import resume, save
from pgm_jax.training.state import REPLICATED, TrainState, abstract_state, create_state
from pgm_jax.training.step import train_step


class Diverged(FloatingPointError):
    """The loss, gradient or update was not finite; the last good checkpoint is untouched.

    Attributes:
        step: number of the step, from 1.
        level: the objective's metric `worst_level` at that step, or None.
    """

    def __init__(self, message: str, step: int, level: float | None):
        super().__init__(message)
        self.step, self.level = step, level


def fit(
    objective: Callable,
    optimiser,
    params,
    batches: Iterable,
    *,
    key,
    steps: int,
    ema: Sequence = (),
    carry=(),
    mesh: Mesh | None = None,
    rules: Sequence[parallel.Rule] = REPLICATED,
    accumulate: int = 1,
    checkpoint=None,
    save_every: int = 1000,
    keep: int = 3,
    hooks: Sequence[Callable] = (),
    meta=None,
    log_every: int = 100,
) -> TrainState:
    """Trains until the state has taken `steps` steps, going on from the newest checkpoint where there is one.

    The step is compiled once, its state donated and sharded by the rules. A run that is killed and called again
    with the same arguments ends with the same numbers, bit for bit on the same devices: an iterator with
    `get_state` and `set_state` (JSON-able) is put back where it was; any other must be fresh and repeat itself,
    and is moved by drawing and dropping the batches of the steps already taken.

    Args:
        objective: `(params, carry, batch, key) -> (loss, (carry, metrics))`, see `train_step`.
        optimiser: optax `GradientTransformation`.
        params: pytree of arrays, or `init(key) -> params`, see `create_state`; not read when resuming.
        batches: iterable of dicts of NumPy arrays (rows of this process, ...), all of the same shapes.
        key: typed PRNG key of the run; a resumed run keeps the key it began with.
        steps: total number of steps, those before a resume included.
        ema: rules of averages, see `train_step`.
        carry: the objective's initial carry.
        mesh: mesh of `parallel.make_mesh`; by default every device, the batch split over all of them.
        rules: sharding rules on the paths of the state, see `TrainState`; by default it is replicated.
        accumulate: number of microbatches a step.
        checkpoint: directory of the run's checkpoints, local or a bucket that orbax reads; None saves nothing.
        save_every, keep: steps between checkpoints, the last step being saved anyway; and how many to keep.
        hooks: `(step, metrics, state) -> None`, called every `log_every` steps and after the last, in every
            process. Metrics are floats of that step: those of `train_step` and `images_per_s`, global rows a
            second since the last call, without compilation, hooks and saves. The next step deletes the state.
        meta: JSON-able description (process, D, network, data), compared when resuming; None compares nothing.
        log_every: steps between calls of the hooks.

    Returns:
        The `TrainState` after `steps` steps.

    Raises:
        Diverged: if loss, gradient or update are not finite; names the step and the noise level.
        Interrupted: if SIGTERM or SIGINT came and the state was saved (only where `checkpoint` is given).
        CheckpointError: if no checkpoint can be read, one is of another run, or one cannot be written.
        ValueError: before compiling, if a batch does not divide over mesh and microbatches; if batches end or
            change their shapes; if the checkpoint has more than `steps` steps.
    """
    mesh = parallel.make_mesh() if mesh is None else mesh
    made = {"ema": ema, "carry": carry, "mesh": mesh, "rules": rules}
    feed, found = _Feed(batches, mesh, accumulate), None
    if checkpoint is not None:
        found = resume(checkpoint, abstract_state(key, params, optimiser, **made), feed.iterator, meta)
    state, done, meta = found or (create_state(key, params, optimiser, **made), 0, meta)
    if done > steps:
        raise ValueError(f"the checkpoint in {checkpoint} has {done} steps and this run asks for {steps}")
    if done == steps:
        return state
    step = train_step(objective, optimiser, ema=ema, accumulate=accumulate)
    run = _Run(step, state, feed, checkpoint, meta, keep)
    return _advance(run, range(done + 1, steps + 1), save_every, log_every, hooks)


def _advance(run, numbers, save_every, log_every, hooks):
    run.compile(numbers[0])
    with StopRequest(active=run.path is not None) as request:
        for number in numbers:
            run.advance(number)
            last, stop = number == numbers[-1], request.reached(number)
            if number % log_every == 0 or last:
                run.report(number, hooks)
            if run.path is not None and (number % save_every == 0 or last or stop):
                run.save(number)
            if stop and not last:
                raise Interrupted(
                    f"{request.name} after step {number} of {numbers[-1]}: saved in {run.path}; "
                    "start again to go on",
                    number,
                )
    return run.state


class _Feed:
    """Batches on the mesh, checked so that every one fits the compiled step."""

    def __init__(self, batches, mesh, accumulate):
        self.iterator = iter(batches)
        self.mesh, self.accumulate, self.first = mesh, accumulate, None

    def draw(self, number):
        try:
            host = next(self.iterator)
        except StopIteration:
            raise ValueError(
                f"the batches ended before step {number}: give an iterator that repeats"
            ) from None
        batch = parallel.shard_batch(self.mesh, host)
        pairs = jax.tree_util.tree_leaves_with_path(batch)
        name = lambda path: jax.tree_util.keystr(path, simple=True, separator="/")
        shapes = {name(path): f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in pairs}
        if self.first is None:
            self._check_rows(batch)
            self.first = shapes
        for leaf in self.first | shapes:
            was, now = self.first.get(leaf, "absent"), shapes.get(leaf, "absent")
            if was != now:
                raise ValueError(
                    f"{leaf} is {now} in the batch of step {number} and was {was} in the first: one compiled "
                    "step takes batches of one shape; drop the last one or fill it up"
                )
        return batch

    def _check_rows(self, batch):
        parts = self.mesh.shape["data"] * self.mesh.shape["fsdp"]
        self.rows = jax.tree.leaves(batch)[0].shape[0]
        if self.rows % (parts * self.accumulate):
            raise ValueError(
                f"a batch of {self.rows} rows does not divide over {parts} parts of the mesh times "
                f"accumulate={self.accumulate}; use a multiple of {parts * self.accumulate}"
            )


class _Run:
    """The loop's moving parts: the state, the metrics still on the device, and a clock of the steps alone."""

    def __init__(self, step, state, feed, path, meta, keep):
        self.step, self.state, self.feed = step, state, feed
        self.path, self.meta, self.keep = path, meta, keep
        self.pending = None
        self.images, self.seconds = 0, 0.0

    def compile(self, number):
        self.batch = self.feed.draw(number)
        places = jax.tree.map(lambda leaf: leaf.sharding, self.state)
        everywhere = NamedSharding(self.feed.mesh, PartitionSpec())
        jitted = jax.jit(self.step, donate_argnums=0, out_shardings=(places, everywhere))
        self.compiled = jitted.lower(self.state, self.batch).compile()
        self.began = time.perf_counter()

    def advance(self, number):
        batch, self.batch = self.batch or self.feed.draw(number), None
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            self.state, metrics = self.compiled(self.state, batch)
        self.images += self.feed.rows
        # Looking at the step before keeps one step queued on the device and never more than one.
        previous, self.pending = self.pending, (number, metrics)
        self._check(previous)

    def report(self, number, hooks):
        metrics = self._settle()
        metrics["images_per_s"] = self.images / self.seconds
        self.images, self.seconds = 0, 0.0
        for hook in hooks:
            hook(number, dict(metrics), self.state)
        self.began = time.perf_counter()

    def save(self, number):
        self._settle()
        save(self.path, self.state, number, self.feed.iterator, self.meta, self.keep)
        self.began = time.perf_counter()

    def _settle(self):
        metrics = self._check(self.pending)
        self.seconds += time.perf_counter() - self.began
        self.began = time.perf_counter()
        return metrics

    def _check(self, pending):
        if pending is None:
            return None
        number, metrics = pending
        metrics = {name: float(value) for name, value in jax.device_get(metrics).items()}
        if metrics["finite"]:
            return metrics
        level = metrics.get("worst_level")
        where = "" if level is None else f", noise level {level:.4g}"
        good = checkpoints.latest_step(self.path) if self.path is not None else None
        kept = (
            f"step {good} in {self.path} is the last good one"
            if good is not None
            else "no checkpoint was saved"
        )
        raise Diverged(
            f"not finite at step {number} (loss {metrics['loss']:.4g}, gradient norm "
            f"{metrics['grad_norm']:.4g}{where}); {kept}: lower the learning rate or clip the gradients",
            number,
            level,
        )

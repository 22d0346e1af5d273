"""The training loop: one compiled program of a few steps, called until the run has its steps."""

import time
from collections.abc import Callable, Iterable, Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pgm_jax import parallel
from pgm_jax.core import checkpoint as checkpoints
from pgm_jax.training.calls import PER_CALL, program_of, split
from pgm_jax.training.feed import Feed
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
    per_call: int = PER_CALL,
) -> TrainState:
    """Trains until the state has taken `steps` steps, going on from the newest checkpoint where there is one.

    One program of up to `per_call` steps is compiled (`several_steps`), its state donated and sharded by the
    rules. A run that is killed and called again with the same arguments ends with the same numbers, bit for bit
    on the same devices: an iterator with `get_state` and `set_state` (JSON-able) is put back where it was; any
    other must be fresh and repeat itself, and is moved by drawing and dropping the batches of steps already taken.

    Args:
        objective: `(params, carry, batch, key) -> (loss, (carry, metrics))`, see `train_step`.
        optimiser: optax `GradientTransformation`.
        params: pytree of arrays, or `init(key) -> params`, see `create_state`; not read when resuming.
        batches: iterable of dicts of NumPy arrays (rows of this process, ...), all of the same shapes.
        key: typed PRNG key of the run; a resumed run keeps the key it began with.
        steps: total number of steps, those before a resume included.
        ema, carry: rules of averages, see `train_step`, and the objective's initial carry.
        mesh: mesh of `parallel.make_mesh`; by default every device, the batch split over all of them.
        rules: sharding rules on the paths of the state, see `TrainState`; by default it is replicated.
        accumulate: number of microbatches a step.
        checkpoint: directory of the run's checkpoints, local or a bucket that orbax reads; None saves nothing.
        save_every, keep: steps between checkpoints, the last step being saved anyway; and how many to keep.
        hooks, log_every: `(step, metrics, state) -> None`, called every `log_every` steps and after the last, in
            every process. Metrics are floats of that step: those of `train_step` and `images_per_s`, global rows a
            second since the last call, without compilation, hooks and saves. The next step deletes the state.
        meta: JSON-able description (process, D, network, data), compared when resuming; None compares nothing.
        per_call: the most optimiser steps of one call of the program, which hold their batches on the devices
            together; a signal waits for its end. 1 has no loop, nor has a step that is `slow_in_a_loop`.

    Returns:
        The `TrainState` after `steps` steps.

    Raises:
        Diverged: if loss, gradient or update are not finite; names the step and the noise level.
        Interrupted: if SIGTERM or SIGINT came and the state was saved (only where `checkpoint` is given).
        CheckpointError: if no checkpoint can be read, one is of another run, or one cannot be written.
        ValueError: if a batch does not divide over mesh and microbatches; if batches end or change their shapes;
            if the checkpoint has more than `steps` steps; for `per_call` below 1.
    """
    made = {"ema": ema, "carry": carry, "mesh": mesh or parallel.make_mesh(), "rules": rules}
    feed, found = Feed(batches, made["mesh"], accumulate), None
    if checkpoint is not None:
        found = resume(checkpoint, abstract_state(key, params, optimiser, **made), feed.iterator, meta)
    state, done, meta = found or (create_state(key, params, optimiser, **made), 0, meta)
    if done > steps:
        raise ValueError(f"the checkpoint in {checkpoint} has {done} steps and this run asks for {steps}")
    if done == steps:
        return state
    step = train_step(objective, optimiser, ema=ema, accumulate=accumulate)
    run = _Run(step, state, feed, checkpoint, meta, keep)
    return _advance(run, done + 1, steps, per_call, save_every, log_every, hooks)


def _advance(run, first, final, per_call, save_every, log_every, hooks):
    calls = split(first, final, (log_every, save_every), run.begin(first, per_call))
    run.compile(calls[0], max(map(len, calls)))
    with StopRequest(active=run.path is not None) as request:
        for numbers in calls:
            run.advance(numbers)
            number = numbers[-1]
            last = number == final
            if number % log_every == 0 or last:
                run.report(number, hooks)
            # Every number is asked: processes agree on one of them.
            stop = any([request.reached(n) for n in numbers])
            if run.path is not None and (number % save_every == 0 or last or stop):
                run.save(number)
            if stop and not last:
                raise Interrupted(
                    f"{request.name} after step {number} of {final}: saved in {run.path}; "
                    "start again to go on",
                    number,
                )
    return run.state


class _Run:
    """The loop's moving parts: the state, the metrics still on the device, and a clock of the steps alone."""

    def __init__(self, step, state, feed, path, meta, keep):
        self.step, self.state, self.feed = step, state, feed
        self.path, self.meta, self.keep = path, meta, keep
        self.drawn, self.pending = [], None
        self.images, self.seconds = 0, 0.0

    def begin(self, number, per_call):
        """Draws the first batch and says how many steps a call may take."""
        self.drawn = [self.feed.draw(number)]
        self.program, most = program_of(self.step, self.state, self.drawn[0], per_call)
        return most

    def compile(self, numbers, most):
        self.most = most
        self.drawn += [self.feed.draw(number) for number in numbers[1:]]
        places = jax.tree.map(lambda leaf: leaf.sharding, self.state)
        everywhere = NamedSharding(self.feed.mesh, PartitionSpec())
        jitted = jax.jit(self.program, donate_argnums=0, out_shardings=(places, everywhere, everywhere))
        self.compiled = jitted.lower(self.state, self._filled(self.drawn), np.int32(0)).compile()
        self.began = time.perf_counter()

    def advance(self, numbers):
        batches, self.drawn = self.drawn or [self.feed.draw(number) for number in numbers], []
        with jax.profiler.StepTraceAnnotation("train", step_num=numbers[0]):
            count = np.int32(len(numbers))
            self.state, metrics, taken = self.compiled(self.state, self._filled(batches), count)
        self.images += self.feed.rows * len(numbers)
        # Looking at the call before keeps one call queued on the device and never more than one.
        previous, self.pending = self.pending, (numbers, metrics, taken)
        self._check(previous)

    def _filled(self, batches):
        """The batches of a call; the last fills up the places that it will not read."""
        return (*batches, *batches[-1:] * (self.most - len(batches)))

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
        numbers, metrics, taken = pending
        metrics = {name: float(value) for name, value in jax.device_get(metrics).items()}
        if metrics["finite"]:
            return metrics
        number = numbers[int(taken) - 1]
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

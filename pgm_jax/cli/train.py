"""`pgm train`: a run in a folder, with its configuration, progress, metrics and pictures of samples."""

import contextlib
import datetime
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp

from pgm_jax import data, parallel, training
from pgm_jax.cli.files import writable, write_json
from pgm_jax.core import MissingExtra, checkpoint, require
from pgm_jax.data import whole_file
from pgm_jax.parallel import batch_sharding
from pgm_jax.recipes import generation, prior_config
from pgm_jax.report import contact_sheet

_PICTURES = 16


def run_train(
    config, out, save_every=1000, keep=3, log_every=50, sample_every=1000, distributed=None, per_call=8
) -> None:
    """Trains a prior in a folder, or goes on with the run that the folder holds.

    Of several processes the first prints and writes; the folder must be one that all of them see.

    Args:
        config: `PriorConfig`.
        out: folder of the run.
        save_every: steps between checkpoints.
        keep: checkpoints to keep.
        log_every: steps between rows of metrics and updates of the progress.
        sample_every: steps between pictures of samples, besides the last; 0 draws none.
        distributed: how to join the other processes, see `parallel.start_from`; None is one process.
        per_call: steps in one call of the compiled program.

    Raises:
        ValueError: for a configuration, data or devices that do not fit, or a folder that holds another run.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, once the state is saved; the message says how to go on.
        Diverged: if the loss is not finite.
    """
    if distributed is not None:
        parallel.start_from(distributed)
    first = jax.process_index() == 0
    out, console = _folder(out), require("rich.console", "cli").Console(quiet=not first)
    quiet_orbax()
    if min(save_every, keep, log_every, per_call) < 1 or sample_every < 0:
        raise ValueError(
            "save_every, keep, log_every and per_call are at least 1, and sample_every at least 0"
        )
    if (out / "config.json").is_file():
        config = prior_config.continued(prior_config.read(out), config, out)
        done = checkpoint.latest_step(out / generation.CHECKPOINTS) or 0
        if done > config.steps:
            raise ValueError(
                f"{out} has {done} steps and this run asks for {config.steps}: give --steps {done} or more"
            )
    prior_config.check(config)
    _warn_of_test_data(config, console)
    # Errors of the configuration come before a download, which takes minutes.
    for part in (generation.devices, generation.averages, generation.network_of):
        part(config)
    config = generation.started(config, generation.start_config(config))
    images = generation.read_images(config, console.print)
    config = generation.measured(config, images)
    system = generation.build(config)
    if first:
        writable(out / "config.json")
        write_json(out / "config.json", prior_config.to_json(config))
    console.print(_summary(config, system, images))
    options = {"save_every": save_every, "keep": keep, "log_every": log_every, "per_call": per_call}
    with _Progress(console, config) as progress, _short_warnings(console):
        hooks = [training.jsonl(out / "metrics.jsonl"), progress]
        if sample_every and can_draw(console):
            hooks.append(_pictures(config, system, out, lambda step: step % sample_every < log_every))
        try:
            generation.train(config, out, images=images, hooks=hooks, **options)
        except training.Interrupted as stop:
            raise KeyboardInterrupt(f"{stop}:  pgm train --out {out}") from stop
    console.print(f"{out}: {config.steps} steps; next:  pgm sample {out}")


def quiet_orbax() -> None:
    """Silences orbax, which reports a full disk in many lines beside the error that the user is shown."""
    from absl import logging

    logging.set_verbosity(logging.FATAL)


def can_draw(console) -> bool:
    """Says whether pictures can be drawn, and prints what to install if they cannot.

    Args:
        console: rich console.

    Returns:
        True where matplotlib is installed.
    """
    try:
        require("matplotlib.image", "viz")
    except MissingExtra as error:
        console.print(f"note: no pictures of samples: {error}")
        return False
    return True


def _folder(out):
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file: give a folder")
    return out


def _warn_of_test_data(config, console):
    for name in config.data:
        if name in data.names() and data.describe(name).role == "test":
            console.print(f"note: {name} is a test subject; a prior trained on it must not be scored on it")


def _summary(config, system, images):
    shapes = jax.eval_shape(system.network.init, jax.random.key(0))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    table = require("rich.table", "cli").Table(box=None, show_header=False)
    for name, value in prior_config.to_json(config).items():
        table.add_row(name, " ".join(map(str, value)) if isinstance(value, list) else str(value))
    mesh = generation.devices(config)[0]
    places = f"{mesh.size} x {jax.devices()[0].device_kind}"
    table.add_row("", f"{len(images)} images, {parameters:,} parameters, {places}")
    return table


@contextlib.contextmanager
def _short_warnings(console):
    """Shows warnings, such as that a damaged checkpoint was passed over, as lines without their source."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *where: console.print(f"note: {message}")
        yield


class _Progress:
    """A hook that moves a bar; where the output is no terminal it prints a line a call."""

    def __init__(self, console, config):
        self.console, self.config = console, config
        parts = require("rich.progress", "cli")
        columns = (parts.BarColumn(), parts.MofNCompleteColumn(), parts.TextColumn("{task.description}"))
        self.bar = parts.Progress(*columns, console=console, transient=True)
        self.task = self.bar.add_task("compiling", total=config.steps)

    def __enter__(self):
        if self.console.is_terminal:
            self.bar.start()
        return self

    def __exit__(self, *error):
        if self.console.is_terminal:
            self.bar.stop()

    def __call__(self, step, metrics, state):
        rate, steps = metrics["images_per_s"], self.config.steps
        left = datetime.timedelta(seconds=round((steps - step) * self.config.batch / rate))
        text = f"loss {metrics['loss']:.4g}  {rate:.3g} images/s  {left} left"
        if self.console.is_terminal:
            self.bar.update(self.task, completed=step, description=text)
        else:
            self.console.print(f"step {step} of {steps}  {text}")


def _pictures(config, system, out, due):
    """Makes the hook that draws samples of the first average from the same noise, as `pgm sample` would."""
    mesh = generation.devices(config)[0]
    count = -(-_PICTURES // mesh.size) * mesh.size
    draw = jax.jit(generation.draw_batch(system, count), out_shardings=batch_sharding(mesh))

    def hook(step, metrics, state):
        if not due(step) and step != config.steps:
            return
        images = draw(jax.random.key(config.seed), state.ema[config.ema[0]], jnp.int32(0))
        images = parallel.gathered(images)[:_PICTURES]
        if jax.process_index() == 0:
            with whole_file(out / f"samples-{step:07d}.png", overwrite=True) as picture:
                contact_sheet(images, picture)

    return hook

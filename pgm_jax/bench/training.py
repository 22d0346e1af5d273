"""Throughput of the compiled training step, beside PyTorch's with the same weights."""

import jax
import numpy as np
import optax

from pgm_jax.bench import torch_peer
from pgm_jax.bench.apart import Party, party
from pgm_jax.bench.flops import count_flops
from pgm_jax.bench.measure import Measured, row_of
from pgm_jax.bench.model import Case, build, mesh_of, noise
from pgm_jax.bench.timing import compile_apart, interleaved
from pgm_jax.parallel import shard_batch
from pgm_jax.processes import EDM, precondition
from pgm_jax.training import create_state, ema, objectives, program_of, train_step

RATE, DECAY = 1e-4, 0.999


def training_row(case: Case, *, repeats: int = 5, peer: bool = True):
    """Times a step of EDM's denoising objective with Adam and one average of the weights.

    A timed run is one call of as many steps as `training.fit` takes at a time, after another such call, and as
    many of PyTorch's likewise, in another process (`party`); the row holds the seconds of one step.

    Args:
        case: `Case`; bfloat16 is `Precision`'s mixed training, autocast in PyTorch.
        repeats: timed runs, of which the median is taken.
        peer: whether to time PyTorch too, see `sampling_row`.

    Returns:
        `Row`.

    Raises:
        ValueError: for an impossible case.
        ArithmeticError: if the twin's network differs from ours by more than 1e-4 of its largest output.
    """
    model, mesh = build(case), mesh_of(case)
    parts = EDM(), model.network, precondition.edm(), objectives.levels.lognormal()
    averages, optimiser = [ema.constant(DECAY)], optax.adam(RATE)
    step = train_step(objectives.denoising(*parts), optimiser, ema=averages)
    images = noise(case, 0.5)
    batch = shard_batch(mesh, {"x0": images})
    state = create_state(jax.random.key(0), model.params, optimiser, ema=averages, mesh=mesh)
    flops = count_flops(step, state, batch)
    program, count = program_of(step, state, batch)
    batches, number = (batch,) * count, np.int32(count)
    compiled, compile_s = compile_apart(jax.jit(program, donate_argnums=0), state, batches, number)
    held = [state]

    def ours():
        held[0], metrics, _ = compiled(held[0], batches, number)
        jax.block_until_ready((held[0], metrics))
        if not np.isfinite(metrics["loss"]):
            raise ArithmeticError(f"the loss of step {int(held[0].step)} is {metrics['loss']}")

    with party(_peer, case, images, count, asked=peer) as theirs:
        runs = {"ours": ours} | theirs.runs
        seconds = {name: value / count for name, value in interleaved(runs, repeats, settle=1).items()}
    measured = Measured(compiled, compile_s, seconds, theirs.told, flops, 1)
    described = {"objective": "edm", "optimiser": "adam", "ema": DECAY, "steps_per_call": count}
    return row_of("training", case, model, measured, **described)


def _peer(case, images, count):
    runs = torch_peer.training_runs(case, build(case), images, RATE, DECAY)
    return Party({name: _repeated(run, count) for name, run in runs.items()}, torch_peer.label(runs))


def _repeated(step, count):
    def run():
        for _ in range(count):
            step()

    return run

"""From measured times to a row."""

from typing import Any, NamedTuple

import jax

from pgm_jax.bench.flops import mfu, program_flops
from pgm_jax.bench.row import Row
from pgm_jax.core import program_bytes


class Measured(NamedTuple):
    """What a benchmark measured.

    Attributes:
        compiled: the compiled program.
        compile_s: seconds to compile it.
        seconds: median seconds of a run: "ours" and the peer's variants by name.
        peer: the peer's name and version, or None.
        flops: operations of a run, by formula.
        steps: steps of the sampler, or optimiser steps, of a run.
    """

    compiled: Any
    compile_s: float
    seconds: dict[str, float]
    peer: str | None
    flops: float
    steps: int


def row_of(name, case, model, measured: Measured, **more) -> Row:
    """Builds the row of a measurement.

    Args:
        name: benchmark.
        case: `Case`.
        model: `Model`.
        measured: `Measured`.
        **more: further entries of the row's case.

    Returns:
        `Row`.
    """
    peers = {variant: seconds for variant, seconds in measured.seconds.items() if variant != "ours"}
    best = min(peers, key=peers.get, default=None)
    run_s, kind = measured.seconds["ours"], jax.devices()[0].device_kind
    counted = {
        "parameters": model.parameters,
        "images_per_s": case.batch / run_s,
        "steps_per_s": measured.steps / run_s,
        "program_flops": program_flops(measured.compiled),
        "peer_variants": peers,
    }
    described = case._asdict() | more | counted
    del described["dtype"]
    return Row(
        name=name,
        case=described,
        dtype=case.dtype,
        device=kind,
        peer=None if best is None else f"{measured.peer} {best}",
        compile_s=measured.compile_s,
        run_s=run_s,
        peer_run_s=peers.get(best),
        ratio=None if best is None else peers[best] / run_s,
        flops=measured.flops,
        mfu=mfu(measured.flops, run_s, kind, case.dtype, case.devices),
        peak_bytes=program_bytes(measured.compiled),
    )

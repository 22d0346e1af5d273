"""The row that every benchmark gives, and the document that holds them."""

import os
import platform
from typing import Any, NamedTuple

import jax

from pgm_jax.core import MissingExtra, require


class Row(NamedTuple):
    """One measurement; None where a field does not apply.

    Attributes:
        name: benchmark, such as "sampling".
        case: what was run (network, size, batch, devices, ...) and what was counted of it: `parameters`,
            `images_per_s`, `steps_per_s`, `program_flops` as XLA counts the compiled program (per device; the
            body of a loop once) and `peer_variants`, the median seconds of every variant of the peer.
        dtype: dtype of the compute, "float32" or "bfloat16".
        device: kind of device.
        peer: what is compared, such as "torch 2.13.0 channels_last": its fastest variant.
        compile_s: seconds to trace and compile.
        run_s: median seconds of a run, waiting for its result.
        peer_run_s: the same of the peer.
        ratio: peer_run_s / run_s; above 1 this library is faster.
        flops: floating-point operations of a run over all devices, by formula (see `count_flops`).
        mfu: flops / (run_s peak FLOP/s); None where the peak is not known, as on CPU.
        peak_bytes: bytes that the program needs at a time on one device: arguments, results and scratch.
    """

    name: str
    case: dict[str, Any]
    dtype: str
    device: str
    peer: str | None
    compile_s: float
    run_s: float
    peer_run_s: float | None
    ratio: float | None
    flops: float | None
    mfu: float | None
    peak_bytes: int | None


def document(rows) -> dict:
    """Builds what is stored: the rows, and the versions and machine that they hold for.

    Args:
        rows: sequence of `Row`.

    Returns:
        JSON-able `{"setup": {...}, "rows": [{field: value}]}`.
    """
    return {"setup": setup(), "rows": [row._asdict() for row in rows]}


def setup() -> dict:
    """Returns versions, device and number of CPU cores of this process; torch is None where it is missing."""
    try:
        torch = require("torch", "torch").__version__
    except MissingExtra:
        torch = None
    device = jax.devices()[0]
    return {
        "python": platform.python_version(),
        "jax": jax.__version__,
        "torch": torch,
        "device": device.device_kind,
        "platform": device.client.platform_version,
        "machine": platform.machine(),
        "cores": cores(),
    }


def cores() -> int:
    """Returns the number of CPU cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1

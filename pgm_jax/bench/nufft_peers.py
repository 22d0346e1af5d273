"""The same non-uniform FFT by finufft and nufftax."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from pgm_jax.core import MissingExtra, require

# The accuracy that a window of this many points reaches; peers are asked for it.
_ACCURACY = {4: 1e-4, 5: 1e-5, 6: 1e-6}


def nufft_peers(case, trajectory, x, y) -> dict[str, Callable[[], Any]]:
    """Builds a function without arguments for every installed library.

    Args:
        case: `NufftCase`.
        trajectory: (spokes, readout, 2) points in cycles per field of view.
        x: image (size, size, 1), complex64.
        y: samples (spokes, readout), complex64.

    Returns:
        Dict from library and version to a function that returns once its result exists.
    """
    points = 2 * np.pi * np.asarray(trajectory).reshape(-1, 2).T / case.size
    accuracy = _ACCURACY.get(case.width, 10.0**-case.width)
    found = {}
    for make in (_finufft, _nufftax):
        try:
            found |= make(
                case.direction, np.ascontiguousarray(points, np.float32), x[..., 0], y.reshape(-1), accuracy
            )
        except MissingExtra:
            continue
    return found


def _finufft(direction, points, x, y, accuracy):
    finufft = require("finufft", "peers")
    # A plan keeps the sorted points, as our tables do.
    forward = direction == "forward"
    plan = finufft.Plan(
        2 if forward else 1, x.shape, eps=accuracy, isign=-1 if forward else 1, dtype="complex64"
    )
    plan.setpts(*points)
    run = lambda: plan.execute(x if forward else y)
    return {f"finufft {finufft.__version__} eps {accuracy:g}": run}


def _nufftax(direction, points, x, y, accuracy):
    nufftax = require("nufftax", "peers")
    # Its first coordinate runs along the last axis of the image.
    l, k = map(jax.device_put, points)
    if direction == "forward":
        apply, value = jax.jit(lambda k, l, f: nufftax.nufft2d2(k, l, f, eps=accuracy, isign=-1)), x
    else:
        apply = jax.jit(lambda k, l, c: nufftax.nufft2d1(k, l, c, x.shape, eps=accuracy, isign=1))
        value = y
    value = jax.device_put(value)
    version = require("importlib.metadata", "peers").version("nufftax")
    return {f"nufftax {version} eps {accuracy:g}": lambda: jax.block_until_ready(apply(k, l, value))}

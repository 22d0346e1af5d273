"""Timings of projectors and non-uniform FFTs, one direction a row, beside other libraries on the same arrays."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from pgm_jax.bench.nufft_peers import nufft_peers
from pgm_jax.bench.projector_peers import projector_peers
from pgm_jax.bench.row import Row
from pgm_jax.bench.timing import compile_apart, interleaved
from pgm_jax.core import program_bytes
from pgm_jax.operators import NUFFT, Fan, FanBeam, ImageGrid, Parallel, ParallelBeam, radial

DIRECTIONS = ("forward", "adjoint")
"""What an operator can be timed at."""


class ProjectorCase(NamedTuple):
    """A projector over `views` of half a turn (parallel) or a whole one (fan, arc), 1 mm pixels and bins.

    Attributes:
        geometry: parallel, fan (flat detector, source four image widths from the axis) or arc (curved detector).
        footprint: joseph or strip.
        size: side of the square image.
        views: number of views.
        bins: detector bins; None covers the diagonal.
        slices: images that are projected together.
        direction: forward or adjoint.
    """

    geometry: str = "parallel"
    footprint: str = "joseph"
    size: int = 256
    views: int = 180
    bins: int | None = None
    slices: int = 1
    direction: str = "forward"


class NufftCase(NamedTuple):
    """A non-uniform FFT along radial spokes.

    Attributes:
        size: side of the square image.
        spokes: spokes of the trajectory, each of 2 `size` samples.
        width: window width in grid points.
        direction: forward or adjoint.
    """

    size: int = 256
    spokes: int = 200
    width: int = 6
    direction: str = "forward"


def projector_row(case: ProjectorCase, *, repeats: int = 20, peer: bool = True) -> Row:
    """Times a projector.

    Args:
        case: `ProjectorCase`.
        repeats: timed rounds, of which the median is taken.
        peer: whether to time ASTRA, scikit-image and MBIRJAX too, those that are installed.

    Returns:
        `Row`; its case holds `projections_per_s` and `gups`, image updates (pixels times views) in 1e9 a second.

    Raises:
        ValueError: for an unknown geometry or direction, or sizes the operator refuses.
    """
    operator, case = projector(case)
    x = np.random.default_rng(0).standard_normal(operator.domain.shape).astype(np.float32)
    y = np.random.default_rng(1).standard_normal(operator.range.shape).astype(np.float32)
    peers = projector_peers(case, operator, x, y) if peer else {}
    row = _row("projectors", case, _directed(operator, case.direction), (x, y), peers, repeats)
    views = case.views * case.slices
    row.case["projections_per_s"] = views / row.run_s
    row.case["gups"] = views * case.size**2 / row.run_s / 1e9
    return row


def projector(case: ProjectorCase):
    """Builds the operator of a case.

    Args:
        case: `ProjectorCase`.

    Returns:
        `(operator, case)`, the case with its number of bins.

    Raises:
        ValueError: for an unknown geometry or direction, or sizes the operator refuses.
    """
    _require("geometry", case.geometry, ("parallel", "fan", "arc"))
    _require("direction", case.direction, DIRECTIONS)
    fan = case.geometry != "parallel"
    # The fan's detector is twice as far as the axis, so a bin of 2 mm is one of 1 mm there.
    wide = 1.1 if fan else 1.0
    case = case._replace(bins=case.bins or int(np.ceil(wide * np.sqrt(2) * case.size)) | 1)
    angles = np.arange(case.views) * (2 if fan else 1) * np.pi / case.views
    grid, options = ImageGrid((case.size, case.size)), {"footprint": case.footprint, "channels": case.slices}
    if fan:
        detector = "arc" if case.geometry == "arc" else "flat"
        fan = Fan(angles, 4.0 * case.size, 8.0 * case.size, case.bins, 2.0, detector=detector)
        return FanBeam(grid, fan, **options), case
    return ParallelBeam(grid, Parallel(angles, case.bins), **options), case


def nufft_row(case: NufftCase, *, repeats: int = 20, peer: bool = True) -> Row:
    """Times a non-uniform FFT.

    Args:
        case: `NufftCase`.
        repeats: timed rounds, of which the median is taken.
        peer: whether to time finufft and nufftax too, those that are installed, at the same accuracy.

    Returns:
        `Row`; its case holds `samples` and `samples_per_s`.

    Raises:
        ValueError: for an unknown direction, or sizes the operator refuses.
    """
    _require("direction", case.direction, DIRECTIONS)
    trajectory = radial(case.spokes, 2 * case.size, (case.size, case.size)).points
    operator = NUFFT.create(trajectory, (case.size, case.size), width=case.width)
    draw = np.random.default_rng(0).standard_normal
    pair = lambda shape: (draw(shape) + 1j * draw(shape)).astype(np.complex64)
    x, y = pair(operator.domain.shape), pair(operator.range.shape)
    peers = nufft_peers(case, trajectory, x, y) if peer else {}
    row = _row("nufft", case, _directed(operator, case.direction), (x, y), peers, repeats)
    samples = int(np.prod(operator.range.shape))
    row.case.update(samples=samples, samples_per_s=samples / row.run_s)
    return row


def _require(name, value, allowed):
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}: choose one of {', '.join(allowed)}")


def _directed(operator, direction) -> Callable:
    # The operator is an argument: its tables are no constants of the program.
    if direction == "forward":
        return lambda x, y: (jax.jit(lambda a, v: a(v)), (operator, x))
    return lambda x, y: (jax.jit(lambda a, v: a.adjoint(v)), (operator, y))


def _row(name, case, directed, arrays, peers: Mapping[str, Callable[[], Any]], repeats):
    function, arguments = directed(*map(jax.device_put, arrays))
    compiled, compile_s = compile_apart(function, *arguments)
    runs = {"ours": lambda: jax.block_until_ready(compiled(*arguments)), **peers}
    seconds = interleaved(runs, repeats)
    ours = seconds.pop("ours")
    best = min(seconds, key=seconds.get, default=None)
    return Row(
        name=name,
        case={**case._asdict(), "peer_variants": seconds},
        dtype="float32",
        device=jax.devices()[0].device_kind,
        peer=best,
        compile_s=compile_s,
        run_s=ours,
        peer_run_s=seconds.get(best),
        ratio=None if best is None else seconds[best] / ours,
        flops=None,
        mfu=None,
        peak_bytes=program_bytes(compiled),
    )

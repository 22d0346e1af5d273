"""`pgm reconstruct`: raw data and a geometry file in, an image, a picture and a record out."""

import time
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from pgm_jax import data
from pgm_jax.cli.files import writable, write_json
from pgm_jax.cli.posterior import PriorRequest, draw_slices, write_report
from pgm_jax.core import require
from pgm_jax.reconstruction import GUIDES, METHODS, kspace_scan, method_for, projection_scan, run_in_chunks
from pgm_jax.reconstruction.methods import Options

_SUFFIXES = {"nifti": "image.nii.gz", "npy": "image.npy", "dicom": "image"}
_MRI = ("RadialScan", "KooshballScan", "SpiralScan", "TrajectoryScan")


class Request(NamedTuple):
    """What the command line asked for; see `pgm reconstruct --help`."""

    source: Path
    method: str
    geometry: Path | None
    out: Path
    format: str
    steps: int | None
    subsets: int | None
    footprint: str
    attenuation: Path | None
    units: str
    water: float | None
    rtol: float
    overwrite: bool
    options: Options
    prior: PriorRequest | None = None


def run_reconstruct(request: Request) -> None:
    """Reconstructs a scan and writes image, picture and record.

    Args:
        request: `Request`.

    Raises:
        ValueError: for data, a geometry or a method that do not fit, or an output that exists or cannot be written.
    """
    console = require("rich.console", "cli").Console()
    target = request.out / _SUFFIXES[request.format]
    if target.exists() and not request.overwrite:
        raise ValueError(f"{target} exists: choose another --out, or add --overwrite")
    if not request.options.weight > 0:
        raise ValueError(f"--weight {request.options.weight:g}: give a positive number")
    writable(request.out / "reconstruct.json")
    if request.water is not None and not request.water > 0:
        raise ValueError(f"--water {request.water}: give the attenuation of water in 1/mm, about 0.02")
    if request.steps is not None and request.steps < 1:
        raise ValueError(f"--steps {request.steps}: give at least 1")
    scan, begun = read_scan(request), time.perf_counter()
    solve = _solved if request.prior is None else _drawn
    images, steps, found = solve(request, scan, console)
    seconds = time.perf_counter() - begun
    volume = _in_units(scan.volume(images), request.water)
    data.write(target, volume, overwrite=request.overwrite)
    data.write_png(request.out / "image.png", _magnitude(volume), overwrite=True)
    write_json(request.out / "reconstruct.json", _record(request, scan, steps, found, volume, seconds))
    console.print(f"wrote {target}, image.png and reconstruct.json: {seconds:.1f} s")


def _solved(request, scan, console):
    """The images of a classical method, its number of steps, and its traces."""
    if request.method in GUIDES:
        raise ValueError(f"{request.method} draws from a posterior: add --prior and --noise-std")
    method = method_for(request.method, scan.problems[0])
    steps = method.steps if request.steps is None else request.steps
    images, traces = [], []
    for number, problem in enumerate(scan.problems):
        label = f"{request.method}" if len(scan.problems) == 1 else f"{request.method}, slice {number}"
        found = method.start(problem, request.options)
        if method.steps:
            found, trace = _iterate(found, steps, request.rtol, label, console)
            traces.append(_numbers(trace))
        images.append(np.asarray(jax.block_until_ready(found)))
    return images, steps, {"traces": traces}


def _drawn(request, scan, console):
    """The posterior means, the steps of a draw, and what was drawn; writes the standard deviation."""
    drawn = draw_slices(request, scan, request.steps, console)
    spread = scan.volume(_arranged(scan, drawn.stds))
    if request.water is not None:
        spread = spread._replace(array=(1000 / request.water * spread.array).astype(np.float32), units="HU")
    file = request.out / ("std.npy" if request.format == "npy" else "std.nii.gz")
    data.write(file, spread, overwrite=True)
    data.write_png(request.out / "std.png", spread, overwrite=True)
    facts = {"device": jax.devices()[0].device_kind, "seconds": f"{sum(drawn.seconds):.1f}"}
    write_report(request.out / "report.html", request, drawn, facts)
    console.print(f"wrote {file}, std.png and report.html")
    record = {"scale": drawn.scale, "slice_seconds": drawn.seconds, "std": file.name}
    return _arranged(scan, drawn.means), drawn.steps, record


def _arranged(scan, slices):
    """Images as the scan's problems have them: the slices of a planar problem along the last axis."""
    return slices if scan.problems[0].kind == "mri" else [np.concatenate(slices, axis=-1)]


def _magnitude(volume):
    return volume._replace(array=np.abs(volume.array)) if np.iscomplexobj(volume.array) else volume


def read_scan(request: Request):
    """Reads the data as the geometry says: MRI without a file or with a trajectory, else projections.

    Args:
        request: `Request`.

    Returns:
        `reconstruction.Scan`.

    Raises:
        ValueError: if a file cannot be read or the data do not fit the geometry.
    """
    record = None if request.geometry is None else data.read_geometry(request.geometry)
    if record is None or type(record).__name__ in _MRI:
        return kspace_scan(data.read_kspace(request.source), None if record is None else _points(record))
    projections = data.read_projections(request.source, units=request.units.replace("-", " "))
    mu = None
    if request.attenuation is not None:
        mu = data.read(request.attenuation).array[..., 0]
    subsets = request.subsets
    if subsets is None:
        # An unknown name is refused once the scan says which there are.
        known = METHODS.get(request.method)
        subsets = 1 if known is None else known.subsets(len(projections.array))
    options = {"subsets": subsets, "footprint": request.footprint}
    return projection_scan(record, projections, attenuation=mu, **options)


def _points(record):
    from pgm_jax.operators import kooshball, radial, spiral

    name, shape = type(record).__name__, record.image.shape
    if name == "TrajectoryScan":
        return record.points
    if name == "RadialScan":
        return radial(record.spokes, record.readout, shape, golden=record.golden).points
    if name == "KooshballScan":
        return kooshball(record.spokes, record.readout, shape).points
    return spiral(record.interleaves, record.readout, shape, turns=record.turns, power=record.power).points


def _iterate(iteration, steps, rtol, label, console):
    """Runs chunk by chunk with a bar; the first step alone tells how long the rest will take."""
    parts = require("rich.progress", "cli")
    columns = (parts.TextColumn(label), parts.BarColumn(), parts.MofNCompleteColumn())
    times = (parts.TimeRemainingColumn(), parts.TextColumn("{task.description}"))
    chunk = max(1, steps // 50)
    with parts.Progress(*columns, *times, console=console, transient=True) as bar:
        task, marks = bar.add_task("compiling", total=steps), [time.perf_counter()]

        def on_chunk(image, trace):
            taken = int(trace.taken)
            residual = float(trace.residual[taken - 1])
            marks.append(time.perf_counter())
            bar.update(task, completed=taken, description=f"residual {residual:.4g}")
            if not np.isfinite(residual):
                raise ArithmeticError(
                    f"{label}: the residual of step {taken} is {residual}: use a smaller relax"
                )
            if len(marks) == 3:
                left = (marks[2] - marks[1]) / chunk * (steps - taken)
                console.print(
                    f"{label}: {steps} steps, about {left:.0f} s left, {_megabytes():.0f} MB in use"
                )

        return run_in_chunks(iteration, steps, chunk, on_chunk, rtol=rtol)


def _megabytes():
    return sum(array.nbytes for array in jax.live_arrays()) / 1e6


def _in_units(volume, water):
    """Attenuation in Hounsfield units, `1000 (mu / water - 1)`, where water's is given."""
    if water is None:
        return volume
    array = (1000 * (volume.array / water - 1)).astype(np.float32)
    return volume._replace(array=array, units="HU")


def _numbers(trace):
    taken = int(trace.taken)
    finite = lambda values: [float(v) if np.isfinite(v) else None for v in np.asarray(values)[:taken]]
    return {"objective": finite(trace.objective), "residual": finite(trace.residual), "steps": taken}


def _record(request, scan, steps, found, volume, seconds):
    nested = ("source", "options", "prior")
    asked = {name: value for name, value in request._asdict().items() if name not in nested}
    return {
        **{name: str(value) if isinstance(value, Path) else value for name, value in asked.items()},
        **request.options._asdict(),
        "prior": None if request.prior is None else request.prior._asdict(),
        "steps": steps,
        "problems": len(scan.problems),
        "shape": list(volume.array.shape),
        "image_units": volume.units,
        "seconds": seconds,
        "device": jax.devices()[0].device_kind,
        **found,
    }

"""`pgm bench`: throughput of sampling, training and operators, printed and stored. `--help` imports no jax."""

import dataclasses
import itertools
import os
from pathlib import Path
from typing import Literal

from pgm_jax.cli.files import writable, write_json


def bench_verb(tyro) -> dict:
    """Builds the verb as tyro reads it: one sub-command a benchmark.

    Args:
        tyro: the module.

    Returns:
        Dict from the verb's name to its function.
    """
    kinds = Sampling | Training | Projectors | Nufft
    conf = tyro.conf

    def bench(case: conf.OmitSubcommandPrefixes[conf.OmitArgPrefixes[kinds]]) -> None:
        """Time compiled programs beside other libraries: sampling, training, projectors, nufft."""
        if case.json is not None:
            writable(case.json)
        run_bench(case)

    return {"bench": bench}


@dataclasses.dataclass(frozen=True)
class Training:
    """Time the training step, beside PyTorch on the same weights where it is installed.

    Attributes:
        json: file for the rows.
        network: unet, ddpmpp, ncsnpp, adm, dit or drunet.
        options: options of the network, such as multipliers=1,2,2 blocks=2.
        sizes: sides of the images, one row each.
        width: channels of the first level; None is the network's own.
        channels: channels of the images.
        batch: images of a batch, over all devices.
        dtype: dtype of the network's body.
        devices: number of devices; on CPU they are simulated.
        repeats: timed runs of a row, of which the median is taken.
        torch: time PyTorch too.
    """

    json: Path | None = None
    network: str = "ddpmpp"
    options: dict = dataclasses.field(default_factory=dict)
    sizes: tuple[int, ...] = (64,)
    width: int | None = None
    channels: int = 1
    batch: int = 4
    dtype: Literal["float32", "bfloat16"] = "float32"
    devices: int = 1
    repeats: int = 5
    torch: bool = True

    def rows(self):
        """Yields the rows, one a size."""
        from pgm_jax import bench

        for case in self._cases():
            yield bench.training_row(case, repeats=self.repeats, peer=self.torch)

    def _cases(self):
        enough_devices(self.devices)
        from pgm_jax.bench import Case

        names = (self.batch, self.width, self.channels, self.dtype, self.devices, self.options)
        return [Case(self.network, size, *names) for size in self.sizes]


@dataclasses.dataclass(frozen=True)
class Sampling(Training):
    """Time compiled sampling, beside PyTorch on the same weights where it is installed.

    Attributes:
        samplers: heun, pfgmpp, ddim, dpmpp_2m.
        steps: steps of a sampler.
    """

    samplers: tuple[str, ...] = ("heun", "pfgmpp", "ddim", "dpmpp_2m")
    steps: int = 8

    def rows(self):
        """Yields the rows, one a size and sampler."""
        from pgm_jax import bench

        for case in self._cases():
            for method in self.samplers:
                yield bench.sampling_row(case, method, self.steps, repeats=self.repeats, peer=self.torch)


@dataclasses.dataclass(frozen=True)
class Projectors:
    """Time CT projectors, beside ASTRA, MBIRJAX and scikit-image where they are installed.

    Attributes:
        json: file for the rows.
        geometries: parallel, fan.
        footprints: joseph, strip.
        sizes: sides of the square images.
        views: number of views.
        bins: detector bins; None covers the diagonal.
        slices: images that are projected together, one row each.
        repeats: timed runs of a row, of which the median is taken.
        peers: time the other libraries too.
    """

    json: Path | None = None
    geometries: tuple[str, ...] = ("parallel", "fan")
    footprints: tuple[str, ...] = ("joseph", "strip")
    sizes: tuple[int, ...] = (256,)
    views: int = 180
    bins: int | None = None
    slices: tuple[int, ...] = (1, 32)
    repeats: int = 20
    peers: bool = True

    def rows(self):
        """Yields the rows, one a combination and direction."""
        from pgm_jax import bench

        lists = self.geometries, self.footprints, self.sizes, self.slices, bench.DIRECTIONS
        for geometry, footprint, size, slices, direction in itertools.product(*lists):
            case = bench.ProjectorCase(geometry, footprint, size, self.views, self.bins, slices, direction)
            yield bench.projector_row(case, repeats=self.repeats, peer=self.peers)


@dataclasses.dataclass(frozen=True)
class Nufft:
    """Time non-uniform FFTs along radial spokes, beside finufft and nufftax where they are installed.

    Attributes:
        json: file for the rows.
        sizes: sides of the square images.
        spokes: spokes of the trajectory, each of twice as many samples as the side.
        widths: window widths in grid points.
        repeats: timed runs of a row, of which the median is taken.
        peers: time the other libraries too, at the same accuracy.
    """

    json: Path | None = None
    sizes: tuple[int, ...] = (256,)
    spokes: int = 200
    widths: tuple[int, ...] = (4, 6)
    repeats: int = 20
    peers: bool = True

    def rows(self):
        """Yields the rows, one a combination and direction."""
        from pgm_jax import bench

        for size, width, direction in itertools.product(self.sizes, self.widths, bench.DIRECTIONS):
            case = bench.NufftCase(size, self.spokes, width, direction)
            yield bench.nufft_row(case, repeats=self.repeats, peer=self.peers)


def run_bench(case) -> None:
    """Runs the rows, prints each as it is done and stores them.

    Args:
        case: `Sampling`, `Training`, `Projectors` or `Nufft`.
    """
    from pgm_jax.core import require

    console, rows = require("rich.console", "cli").Console(), []
    for row in case.rows():
        rows.append(row)
        console.print(_line(row))
    if case.json is not None:
        from pgm_jax import bench

        write_json(case.json, bench.document(rows))
        console.print(f"wrote {case.json}")


def enough_devices(count) -> None:
    """Asks JAX for simulated CPU devices, where it has not started yet, and for no GPU memory in advance.

    Args:
        count: number of devices.
    """
    import jax

    # PyTorch allocates on the same GPU.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if count > max(1, jax.config.jax_num_cpu_devices):
        try:
            jax.config.update("jax_num_cpu_devices", count)
        except RuntimeError:
            # JAX has started: the case is refused if its devices are too few.
            return


def _line(row):
    parts = [_network_line(row) if "network" in row.case else _operator_line(row)]
    parts.append(f"run {1e3 * row.run_s:.3g} ms, compile {row.compile_s:.3g} s")
    if row.flops is not None:
        parts.append(f", {row.flops / 1e9:.4g} GFLOP ({row.flops / row.run_s / 1e9:.3g} GFLOP/s)")
    if row.mfu is not None:
        parts.append(f", {100 * row.mfu:.1f} % of the peak")
    if row.ratio is not None:
        parts.append(f"; {row.peer} {1e3 * row.peer_run_s:.3g} ms, ratio {row.ratio:.2f}")
    return " ".join(parts).replace(" ,", ",").replace(" ;", ";")


def _network_line(row):
    case = row.case
    what = " ".join([row.name, case["network"], *([case["sampler"]] if "sampler" in case else [])])
    return (
        f"{what} {case['size']} px, batch {case['batch']}, {row.dtype}, {case['devices']} x {row.device}: "
        f"{case['images_per_s']:.3g} images/s, {case['steps_per_s']:.3g} steps/s,"
    )


def _operator_line(row):
    case = row.case
    if row.name == "nufft":
        return (
            f"nufft {case['size']} px, {case['samples']} samples, width {case['width']}, {case['direction']}:"
        )
    return (
        f"{case['geometry']} {case['footprint']} {case['direction']} {case['size']} px, {case['views']} views x "
        f"{case['bins']} bins, slices {case['slices']}: {case['projections_per_s']:.4g} projections/s, "
        f"{case['gups']:.3g} GUPS,"
    )

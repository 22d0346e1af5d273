"""`pgm bench`: sampling, training, reconstruction and operators timed and stored. `--help` imports no jax."""

import dataclasses
import itertools
import os
from pathlib import Path
from typing import Literal

from pgm_jax.cli.bench_few_step import Fewstep
from pgm_jax.cli.bench_lines import row_line
from pgm_jax.cli.files import writable, write_json


def bench_verb(tyro) -> dict:
    """Builds the verb as tyro reads it: one sub-command a benchmark.

    Args:
        tyro: the module.

    Returns:
        Dict from the verb's name to its function.
    """
    kinds = Sampling | Training | Posterior | Fewstep | Projectors | Nufft
    conf = tyro.conf

    def bench(case: conf.OmitSubcommandPrefixes[conf.OmitArgPrefixes[kinds]]) -> None:
        """Time compiled programs, and measure few-step priors: one sub-command a benchmark."""
        if case.json is not None:
            writable(case.json)
        if isinstance(case, Fewstep):
            case.check()
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
        devices: numbers of devices, one row each; on CPU they are simulated.
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
    devices: tuple[int, ...] = (1,)
    repeats: int = 5
    torch: bool = True

    def rows(self):
        """Yields the rows, one a size and number of devices."""
        from pgm_jax import bench

        for case in self._cases():
            yield bench.training_row(case, repeats=self.repeats, peer=self.torch)

    def _cases(self):
        enough_devices(max(self.devices))
        from pgm_jax.bench import Case

        names = (self.batch, self.width, self.channels, self.dtype)
        lists = itertools.product(self.sizes, self.devices)
        return [Case(self.network, size, *names, count, self.options) for size, count in lists]


@dataclasses.dataclass(frozen=True)
class Sampling(Training):
    """Time compiled sampling, beside PyTorch on the same weights where it is installed.

    Attributes:
        samplers: heun, pfgmpp, ddim, dpmpp_2m, one_step.
        steps: steps of a sampler; one_step has one.
    """

    samplers: tuple[str, ...] = ("heun", "pfgmpp", "ddim", "dpmpp_2m")
    steps: int = 8

    def rows(self):
        """Yields the rows, one a size, number of devices and sampler."""
        from pgm_jax import bench

        for case in self._cases():
            for method in self.samplers:
                yield bench.sampling_row(case, method, self.steps, repeats=self.repeats, peer=self.torch)


@dataclasses.dataclass(frozen=True)
class Posterior:
    """Time the reconstruction of a volume with a prior, beside deepinv's DPS and DiffPIR where it is installed.

    Attributes:
        json: file for the rows.
        methods: dds, diffpir, dps, one row each.
        modalities: ct, mri, one row each.
        sizes: sides of the square slices, one row each.
        slices: slices of the volume, drawn together.
        views: views of CT.
        acceleration: acceleration of MRI.
        steps: evaluations of the network for one slice.
        cg: conjugate gradient steps at each evaluation of dds and diffpir.
        prior: shipped prior or .npz file; None times untrained weights of `network`.
        network: unet, ddpmpp, ncsnpp, adm, dit or drunet.
        width: channels of the first level; None is the network's own.
        options: options of the network, such as multipliers=1,2,2 blocks=2.
        repeats: timed runs of a row after one to warm up, of which the median is taken.
        peers: time deepinv too.
    """

    json: Path | None = None
    methods: tuple[str, ...] = ("dds", "diffpir", "dps")
    modalities: tuple[str, ...] = ("ct",)
    sizes: tuple[int, ...] = (256,)
    slices: int = 32
    views: int = 180
    acceleration: int = 4
    steps: int = 50
    cg: int = 5
    prior: str | None = None
    network: str = "unet"
    width: int | None = 16
    options: dict = dataclasses.field(default_factory=dict)
    repeats: int = 1
    peers: bool = True

    def rows(self):
        """Yields the rows, one a modality, size and method."""
        from pgm_jax import bench

        for modality, size, method in itertools.product(self.modalities, self.sizes, self.methods):
            given = {name: getattr(self, name) for name in bench.PosteriorCase._fields if hasattr(self, name)}
            case = bench.PosteriorCase(**given | {"method": method, "modality": modality, "size": size})
            yield bench.posterior_row(case, repeats=self.repeats, peer=self.peers)


@dataclasses.dataclass(frozen=True)
class Projectors:
    """Time CT projectors, beside ASTRA, MBIRJAX and scikit-image where they are installed.

    Attributes:
        json: file for the rows.
        geometries: parallel, fan, arc.
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
        case: `Sampling`, `Training`, `Posterior`, `Fewstep`, `Projectors` or `Nufft`.
    """
    from pgm_jax.core import require

    console, rows = require("rich.console", "cli").Console(), []
    for row in case.rows():
        rows.append(row)
        console.print(row_line(row))
    if case.json is not None:
        from pgm_jax import bench

        write_json(case.json, bench.document(rows))
        console.print(f"wrote {case.json}")
    if isinstance(case, Fewstep) and case.figure is not None:
        case.draw(rows)
        console.print(f"wrote {case.figure}")


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

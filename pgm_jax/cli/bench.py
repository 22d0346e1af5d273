"""`pgm bench`: throughput of sampling and training, printed and stored. `--help` imports no jax."""

import os
from pathlib import Path
from typing import Literal

from pgm_jax.cli.files import writable, write_json


def bench_verb(tyro) -> dict:
    """Builds the verb as tyro reads it.

    Args:
        tyro: the module.

    Returns:
        Dict from the verb's name to its function.
    """
    positional = tyro.conf.Positional

    def bench(
        name: positional[Literal["sampling", "training"]],
        /,
        *,
        json: Path | None = None,
        network: str = "ddpmpp",
        options: dict = {},  # noqa: B006
        sizes: tuple[int, ...] = (64,),
        width: int | None = None,
        channels: int = 1,
        batch: int = 4,
        dtype: Literal["float32", "bfloat16"] = "float32",
        devices: int = 1,
        samplers: tuple[str, ...] = ("heun", "pfgmpp", "ddim", "dpmpp_2m"),
        steps: int = 8,
        repeats: int = 5,
        torch: bool = True,
    ) -> None:
        """Time compiled sampling or the training step, beside PyTorch on the same weights where it is installed.

        Args:
            name: `sampling` or `training`.
            json: file for the rows.
            network: unet, ddpmpp, ncsnpp, adm, dit or drunet.
            options: options of the network, such as multipliers=1,2,2 blocks=2.
            sizes: sides of the images, one row each.
            width: channels of the first level; None is the network's own.
            channels: channels of the images.
            batch: images of a batch, over all devices.
            dtype: dtype of the network's body.
            devices: number of devices; on CPU they are simulated.
            samplers: heun, pfgmpp, ddim, dpmpp_2m.
            steps: steps of a sampler.
            repeats: timed runs of a row, of which the median is taken.
            torch: time PyTorch too.
        """
        if json is not None:
            writable(json)
        enough_devices(devices)
        from pgm_jax.bench import Case

        cases = [Case(network, size, batch, width, channels, dtype, devices, options) for size in sizes]
        run_bench(name, cases, json, samplers, steps, repeats, torch)

    return {"bench": bench}


def run_bench(name, cases, json, samplers, steps, repeats, torch) -> None:
    """Runs the rows, prints each as it is done and stores them.

    Args:
        name: "sampling" or "training".
        cases: sequence of `bench.Case`.
        json: file for the rows, or None.
        samplers: names of `bench.methods()`.
        steps: steps of a sampler.
        repeats: timed runs of a row.
        torch: whether to time PyTorch too.
    """
    from pgm_jax import bench
    from pgm_jax.core import require

    console = require("rich.console", "cli").Console()
    rows = []
    for case in cases:
        options = {"repeats": repeats, "peer": torch}
        if name == "training":
            rows.append(bench.training_row(case, **options))
            console.print(_line(rows[-1]))
            continue
        for method in samplers:
            rows.append(bench.sampling_row(case, method, steps, **options))
            console.print(_line(rows[-1]))
    if json is not None:
        write_json(json, bench.document(rows))
        console.print(f"wrote {json}")


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
    case = row.case
    what = " ".join([row.name, case["network"], *([case["sampler"]] if "sampler" in case else [])])
    parts = [
        f"{what} {case['size']} px, batch {case['batch']}, {row.dtype}, {case['devices']} x {row.device}:",
        f"{case['images_per_s']:.3g} images/s, {case['steps_per_s']:.3g} steps/s,",
        f"run {row.run_s:.3g} s, compile {row.compile_s:.3g} s,",
        f"{row.flops / 1e9:.4g} GFLOP ({row.flops / row.run_s / 1e9:.3g} GFLOP/s)",
    ]
    if row.mfu is not None:
        parts.append(f", {100 * row.mfu:.1f} % of the peak")
    if row.ratio is not None:
        parts.append(f"; {row.peer} {row.peer_run_s:.3g} s, ratio {row.ratio:.2f}")
    return " ".join(parts).replace(" ,", ",").replace(" ;", ";")

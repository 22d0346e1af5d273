"""`pgm sample`: images from the weights of a run or of a shipped prior, in one compiled program."""

import math
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax.cli.files import writable, write_json
from pgm_jax.cli.train import can_draw, quiet_orbax
from pgm_jax.core import require
from pgm_jax.data import whole_file
from pgm_jax.parallel import batch_sharding, make_mesh
from pgm_jax.priors import prior_names
from pgm_jax.recipes import generation, prior_config
from pgm_jax.report import contact_sheet

_SHOWN = 64


class Request(NamedTuple):
    """What `pgm sample` was asked for; see its help.

    Attributes:
        source: folder of a run, or name of a shipped prior.
        out: folder to write to.
        count: number of images.
        steps: steps of the sampler, or None.
        sampler: name of the sampler, or None.
        seed: seed of the draws.
        batch: largest number of images at a time.
        average: name of an average of the weights, or None.
        step: checkpoint, or None.
        process: process that the prior must have, or None.
        D: dimension that it must have, or None.
        label: entry of the training's data whose class is drawn, or None.
        guidance: scale of the guidance by it, or None.
    """

    source: str
    out: Path
    count: int = 16
    steps: int | None = None
    sampler: str | None = None
    seed: int = 0
    batch: int = 64
    average: str | None = None
    step: int | None = None
    process: str | None = None
    D: float | None = None
    label: str | None = None
    guidance: float | None = None


def run_sample(request) -> None:
    """Draws images and writes `samples.npy`, `samples.png` and `sample.json`.

    Args:
        request: `Request`.

    Raises:
        ValueError: for a source that holds no prior, or one of another process or D than asked for; a checkpoint
            that is missing, incomplete or damaged; a sampler that does not exist; a folder that cannot be written.
    """
    out, console = Path(request.out), require("rich.console", "cli").Console()
    quiet_orbax()
    if min(request.count, request.batch) < 1 or request.seed < 0:
        raise ValueError("count and batch are at least 1, and seed at least 0")
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file: give a folder")
    mesh = make_mesh()
    trained = _of_run(request, mesh) if Path(request.source).is_dir() else _shipped(request)
    names = ("sampler", "steps", "label", "guidance")
    system = generation.build(trained.config, **{name: getattr(request, name) for name in names})
    writable(out / "samples.npy")
    console.print(f"{request.source}: {trained.average} after {trained.step} steps, {_name(trained.config)}")
    images, timing = _draw(request, system, trained.params, mesh, console)
    with whole_file(out / "samples.npy", overwrite=True) as arrays:
        np.save(arrays, images)
    if can_draw(console):
        with whole_file(out / "samples.png", overwrite=True) as picture:
            contact_sheet(images[:_SHOWN], picture)
    write_json(out / "sample.json", _record(request, trained, mesh, timing))
    console.print(
        f"wrote {request.count} images to {out}: compiled in {timing['compile_seconds']:.1f} s, drawn in "
        f"{timing['run_seconds']:.1f} s, {timing['images_per_s']:.3g} images/s"
    )


def _of_run(request, mesh):
    """Reads a run; it is refused by its configuration before its weights are read."""
    folder = Path(request.source)
    if (folder / "config.json").is_file():
        _refuse_other(request, prior_config.read(folder))
    return generation.load_run(folder, average=request.average, step=request.step, mesh=mesh)


def _shipped(request):
    """Loads a shipped prior by its name, or a file of `pgm export`."""
    for name in ("average", "step"):
        if getattr(request, name) is not None:
            raise ValueError(
                f"--{name} chooses among the weights of a run, and {request.source} is no folder of one"
            )
    if not request.source.endswith(".npz") and request.source not in prior_names():
        shipped = ", ".join(prior_names()) or "none"
        raise ValueError(
            f"{request.source} is neither a folder of `pgm train` nor a shipped prior ({shipped})"
        )
    trained = generation.load_exported(request.source)
    _refuse_other(request, trained.config)
    return trained


def _refuse_other(request, config):
    for name in ("process", "D"):
        asked, has = getattr(request, name), getattr(config, name)
        if asked is not None and asked != has:
            raise ValueError(
                f"{request.source} was trained with {name} = {has}, not {asked}: leave out --{name}, or sample "
                "another prior"
            )


def _draw(request, system, params, mesh, console):
    size = mesh.size * math.ceil(min(request.count, request.batch) / mesh.size)
    key, firsts = jax.random.key(request.seed), range(0, request.count, size)
    begun = time.perf_counter()
    draw = jax.jit(generation.draw_batch(system, size), out_shardings=batch_sharding(mesh))
    program = draw.lower(key, params, jnp.int32(0)).compile()
    compiled = time.perf_counter()
    parts = []
    bar = {"console": console, "transient": True, "disable": not console.is_terminal}
    for first in require("rich.progress", "cli").track(firsts, "sampling", **bar):
        parts.append(np.asarray(program(key, params, jnp.int32(first))))
    seconds = time.perf_counter() - compiled
    timing = {
        "compile_seconds": compiled - begun,
        "run_seconds": seconds,
        "images_per_s": len(firsts) * size / seconds,
    }
    return np.concatenate(parts)[: request.count], timing


def _name(config):
    return config.process if config.D is None else f"{config.process} with D = {config.D:g}"


def _record(request, trained, mesh, timing):
    config, plain = prior_config.to_json(trained.config), trained.config.objective == "denoising"
    return {
        "source": request.source,
        "count": request.count,
        "sampler": request.sampler or (generation.SAMPLER if plain else trained.config.objective),
        "steps": request.steps or (generation.STEPS if plain else generation.FEW_STEPS),
        "label": request.label,
        "guidance": request.guidance,
        "sigma_min": config["sigma_min"],
        "sigma_max": config["sigma_max"],
        "seed": request.seed,
        "average": trained.average,
        "step": trained.step,
        "process": config["process"],
        "D": config["D"],
        "window": config["window"],
        "device": jax.devices()[0].device_kind,
        "devices": mesh.size,
        **timing,
    }

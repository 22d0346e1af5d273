"""Posterior reconstruction of a volume with a prior of slices: DDS-3D and DiffusionMBIR, kept and resumed."""

import hashlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax import guidance as guides
from pgm_jax.core import checkpoint, program_bytes
from pgm_jax.processes import StudentT, karras
from pgm_jax.samplers import ddim, predictor_corrector, sample_in_parts


class VolumeMethod(NamedTuple):
    """A way to a volume by name.

    Attributes:
        guidance: `(likelihood, **options) -> guidance`.
        sampler: makes its sampler.
        evaluations: evaluations of the network for a step.
        summary: what it is, in a few words.
    """

    guidance: Callable
    sampler: Callable
    evaluations: int
    summary: str


def _dds_3d(likelihood, *, weight=0.04, rho=10.0, cg=5, **options):
    return guides.mbir(likelihood, weight, rho, steps=cg, **options)


def _diffusion_mbir(likelihood, *, weight=0.04, rho=10.0, cg=1, **options):
    return guides.mbir(likelihood, weight, rho, steps=cg, keep_noise=False, **options)


VOLUME_METHODS = {
    "dds_3d": VolumeMethod(
        _dds_3d, lambda: ddim(1.0, of="marginal"), 1, "few steps, five CG steps each (Chung et al. 2024)"
    ),
    "diffusion_mbir": VolumeMethod(
        _diffusion_mbir,
        predictor_corrector,
        2,
        "predictor and corrector, one CG step each (Chung et al. 2023)",
    ),
}
"""Methods of `posterior_volume` by name."""


class Progress(NamedTuple):
    """Where a run stands; the first one is the estimate before the run.

    Attributes:
        done: finished steps.
        steps: all of them.
        seconds_left: estimate from the time of one step.
        memory_bytes: arguments, results and scratch of a step, or None where XLA does not say.
    """

    done: int
    steps: int
    seconds_left: float
    memory_bytes: int | None


def posterior_volume(
    key,
    prior,
    likelihood,
    *,
    method: str = "dds_3d",
    steps: int = 50,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    start=None,
    chunk: int = 8,
    folder=None,
    watch: Callable = lambda progress: None,
    **options,
):
    """Draws one volume from `p(x | y)` with a prior of its slices and total variation across them.

    Every step denoises all slices, `chunk` at a time, and takes ADMM steps on data and total variation for the
    whole volume (`guidance.mbir`). All steps are one compiled program, called once a step: with a `folder` the
    state is kept after each, and the same call after a kill goes on from there to the same numbers.

    Args:
        key: PRNG key.
        prior: trained prior of slices (`load_prior`), or an exact one with its `process`. At finite D each slice
            has a radius of its own, as the prior was trained.
        likelihood: linear Gaussian likelihood of the volume (depth, height, width, channel) in the prior's units,
            such as that of `EachSlice(A, depth)`.
        method: a name in `VOLUME_METHODS`.
        steps: steps of the grid `karras(steps, sigma_min, sigma_max)`; "dds_3d" evaluates the network once a
            step, "diffusion_mbir" twice.
        sigma_min: last noise level above 0.
        sigma_max: first noise level.
        start: volume from which the run starts, perturbed to `sigma_max`; None starts from noise.
        chunk: slices at a time in the network, a bound on memory.
        folder: where the state is kept, or None.
        watch: called with `Progress` before the first step and after each.
        **options: `weight` and `rho` of `guidance.mbir`, `cg` its CG steps, and its other options. A resumed run
            knows a function by its code and the numbers that it encloses.

    Returns:
        The volume.

    Raises:
        ValueError: for an unknown method, a folder of another run, or what guidance and process refuse.
        CheckpointError: if the kept state is damaged.
    """
    _require(method, likelihood)
    process, grid = _sliced(prior.process), karras(steps, sigma_min, sigma_max)
    if start is not None:
        key, key_start = jax.random.split(key)
        start = process.perturb(key_start, start, jnp.float32(grid[0]))
    first, advance = _programs(key, VOLUME_METHODS[method], process, grid, chunk, options)
    given = prior, likelihood, start
    run = _Run(folder, _fingerprint(key, method, grid, options, given))
    state, done = run.restore(jax.eval_shape(first, *given), lambda: first(*given))
    if done == steps:
        return state.x
    compiled = advance.lower(state, jnp.asarray(done), *given).compile()
    # One step more than needed: the estimate is of this machine, now.
    _, second = _timed(compiled, state, jnp.asarray(done), *given)
    watch(Progress(done, steps, second * (steps - done), program_bytes(compiled)))
    for number in range(done, steps):
        state, second = _timed(compiled, state, jnp.asarray(number), *given)
        run.save(state, number + 1)
        watch(Progress(number + 1, steps, second * (steps - number - 1), program_bytes(compiled)))
    return state.x


def _require(method, likelihood):
    if method not in VOLUME_METHODS:
        raise ValueError(f"no volume method {method!r}: choose one of {', '.join(VOLUME_METHODS)}")
    shape = tuple(likelihood.operator.domain.shape)
    if len(shape) != 4:
        raise ValueError(
            f"the operator's image is {shape}, not (depth, height, width, channel): use EachSlice"
        )


def _programs(key, method, process, grid, chunk, options):
    """Jitted `(prior, likelihood, start) -> first state` and `(state, number of the step, the same) -> state`."""

    def parts(prior, likelihood, start):
        denoise = prior.denoiser() if hasattr(prior, "params") else prior.denoiser(prior.process)
        begin = {"shape": tuple(likelihood.operator.domain.shape)} if start is None else {"x_init": start}
        return sample_in_parts(
            key,
            method.sampler(),
            guides.views(denoise, 0, process=process, chunk=chunk),
            process,
            grid,
            guidance=method.guidance(likelihood, **options),
            **begin,
        )

    first = jax.jit(lambda *given: parts(*given)[0]())
    return first, jax.jit(lambda state, number, *given: parts(*given)[1](state, number))


class _Run:
    """The kept states of one run, told apart by everything that changes the numbers."""

    def __init__(self, folder, name):
        self.folder, self.name = folder, name

    def restore(self, abstract, first):
        latest = None if self.folder is None else checkpoint.latest_step(self.folder)
        if latest is None:
            return first(), 0
        if checkpoint.read_meta(self.folder, latest)["run"] != self.name:
            raise ValueError(
                f"{self.folder} holds another run (other data, prior, key or options): give another folder"
            )
        return checkpoint.restore(self.folder, abstract, latest)[0], latest

    def save(self, state, done):
        if self.folder is not None:
            checkpoint.save(self.folder, state, {"run": self.name}, step=done, keep=2, overwrite=True)


def _fingerprint(key, method, grid, options, given):
    named = [(name, _told(value)) for name, value in sorted(options.items())]
    told = hashlib.sha256(repr((method, grid.tolist(), named)).encode())
    for leaf in (jax.random.key_data(key), *jax.tree.leaves(given)):
        told.update(np.asarray(leaf).tobytes())
    return told.hexdigest()


def _told(value):
    """An option in words that another process finds again: a function by its name, code and what it encloses."""
    if not callable(value):
        return repr(value)
    code = getattr(value, "__code__", None)
    body = None if code is None else (code.co_code, code.co_consts, code.co_names, value.__defaults__)
    enclosed = [repr(cell.cell_contents) for cell in getattr(value, "__closure__", None) or ()]
    name = getattr(value, "__module__", ""), getattr(value, "__qualname__", type(value).__name__)
    return repr((name, body, enclosed))


def _sliced(process):
    """The process with one radius a slice: the axes behind the first."""
    law: Any = process.law
    return process.replace(law=law.replace(event_axes=(1, 2, 3))) if isinstance(law, StudentT) else process


def _timed(compiled, *arguments):
    begun = time.perf_counter()
    result = jax.block_until_ready(compiled(*arguments))
    return result, time.perf_counter() - begun

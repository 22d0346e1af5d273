"""Throughput of compiled sampling, beside PyTorch's with the same weights, grid and start."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from pgm_jax import processes, samplers
from pgm_jax.bench import torch_peer
from pgm_jax.bench.apart import Party, party
from pgm_jax.bench.measure import Measured, row_of
from pgm_jax.bench.model import Case, build, mesh_of, noise
from pgm_jax.bench.timing import compile_apart, interleaved
from pgm_jax.bench.torch_samplers import Plan
from pgm_jax.networks import as_denoiser
from pgm_jax.parallel import shard_batch, shard_samples
from pgm_jax.processes import precondition


class Method(NamedTuple):
    """A sampler on its process.

    Attributes:
        process: the process.
        parameterisation: `(process, t) -> Coefficients`.
        sampler: a `Sampler`.
        grid: `steps -> times`.
        evaluations: `steps -> calls of the network` for one image.
    """

    process: Any
    parameterisation: Callable
    sampler: Any
    grid: Callable
    evaluations: Callable


def methods() -> dict[str, Method]:
    """Returns the samplers that are timed: EDM's and PFGM++'s Heun, DDIM on VP, DPM-Solver++ 2M, and one step.

    "one_step" is what a consistency function needs, one evaluation whatever the number of steps.
    """
    edm, heun = precondition.edm(), samplers.heun()
    one, two = (lambda steps: steps), (lambda steps: 2 * steps - 1)
    single = lambda steps: processes.karras(1)
    return {
        "heun": Method(processes.EDM(), edm, heun, processes.karras, two),
        "pfgmpp": Method(processes.PFGMpp(D=128), edm, heun, processes.karras, two),
        "ddim": Method(processes.VP(), precondition.vp(), samplers.ddim(), processes.linear, one),
        "dpmpp_2m": Method(processes.EDM(), edm, samplers.dpmpp_2m(), processes.karras, one),
        "one_step": Method(processes.EDM(), edm, samplers.consistency(), single, lambda steps: 1),
    }


def sampling_row(case: Case, method: str = "heun", steps: int = 18, *, repeats: int = 5, peer: bool = True):
    """Times the sampling of one batch.

    PyTorch runs the same loop on the same weights, grid and start, on one device and, on CPU, in another process
    (`party`); its network is compared with ours before anything is timed.

    Args:
        case: `Case`.
        method: a name of `methods()`.
        steps: steps of the sampler.
        repeats: timed runs, of which the median is taken.
        peer: whether to time PyTorch too; left out where it is missing, sees another kind of device, there is no
            twin of the network, or `case.devices` is above 1.

    Returns:
        `Row`; `case` also holds `sampler`, `steps` and `evaluations`.

    Raises:
        ValueError: for an impossible case or an unknown method.
        ArithmeticError: if the twin's network differs from ours by more than 1e-4 of its largest output.
    """
    if method not in methods():
        raise ValueError(f"sampler is {method!r}: choose one of {', '.join(methods())}")
    chosen, model, mesh = methods()[method], build(case), mesh_of(case)
    grid = chosen.grid(steps)
    start = noise(case, float(chosen.process.sigma(grid[0])))
    whole = NamedSharding(mesh, PartitionSpec())
    arguments = jax.device_put(model.params, whole), shard_batch(mesh, start)
    compiled, compile_s = compile_apart(shard_samples(program(chosen, model, grid), mesh), *arguments)
    ours = {"ours": lambda: jax.block_until_ready(compiled(*arguments))}
    with party(_peer, case, method, _plan(chosen, grid), start, asked=peer) as theirs:
        seconds = interleaved(ours | theirs.runs, repeats)
    evaluations = chosen.evaluations(steps)
    steps = len(grid) - 1
    measured = Measured(compiled, compile_s, seconds, theirs.told, evaluations * model.flops, steps)
    return row_of("sampling", case, model, measured, sampler=method, steps=steps, evaluations=evaluations)


def program(method: Method, model, grid) -> Callable:
    """Builds the function that samples a batch, to be compiled.

    Args:
        method: `Method`.
        model: `Model`.
        grid: times of the process.

    Returns:
        `(params, x_init) -> images`, both (batch, size, size, channels).
    """

    def draw(params, x_init):
        denoise = as_denoiser(model.network, params, method.process, method.parameterisation)
        key = jax.random.key(0)
        return samplers.sample(key, method.sampler, denoise, method.process, grid, x_init=x_init)

    return draw


def _peer(case, method, plan, start):
    runs = torch_peer.sampling_runs(case, build(case), method, plan, start)
    return Party({name: _without_images(run) for name, run in runs.items()}, torch_peer.label(runs))


def _without_images(run):
    def call():
        run()

    return call


def _plan(method, grid):
    coefficients = method.parameterisation(method.process, jnp.asarray(grid[:-1], jnp.float32))
    levels = method.process.alpha(grid), method.process.sigma(grid)
    return Plan(*([float(value) for value in values] for values in (*levels, *coefficients)))

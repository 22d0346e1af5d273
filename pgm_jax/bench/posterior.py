"""Timings of posterior reconstruction, all slices of a volume in one program, beside deepinv's DPS and DiffPIR."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax import guidance, samplers
from pgm_jax.bench.deepinv_peer import deepinv_runs
from pgm_jax.bench.flops import count_flops, mfu
from pgm_jax.bench.posterior_problem import PosteriorCase, denoiser_parts, scene_of
from pgm_jax.bench.row import Row
from pgm_jax.bench.timing import compile_apart, interleaved
from pgm_jax.core import program_bytes, sample_key
from pgm_jax.metrics import psnr
from pgm_jax.networks import as_denoiser
from pgm_jax.operators import GaussianLikelihood
from pgm_jax.processes import karras

# DiffPIR's trust and mixing as both parties have them.
STRENGTH, ZETA = 7.0, 0.1


class PosteriorMethod(NamedTuple):
    """A method of the benchmark, with the sampler that gives it one evaluation of the network a step.

    Attributes:
        guide: `(likelihood, cg) -> guidance`.
        sampler: function that makes its sampler.
        peers: deepinv's methods that are timed beside it.
    """

    guide: Callable
    sampler: Callable
    peers: tuple[str, ...]


METHODS = {
    "dds": PosteriorMethod(
        lambda likelihood, cg: guidance.dds(likelihood, steps=cg),
        lambda: samplers.ddim(1.0, of="marginal"),
        ("DiffPIR", "DPS"),
    ),
    "diffpir": PosteriorMethod(
        lambda likelihood, cg: guidance.diffpir(likelihood, STRENGTH, cg),
        lambda: samplers.ddim(ZETA**0.5, of="marginal"),
        ("DiffPIR",),
    ),
    "dps": PosteriorMethod(lambda likelihood, cg: guidance.dps(likelihood), samplers.ancestral, ("DPS",)),
}
"""What can be timed, by name."""


def posterior_row(case: PosteriorCase, *, repeats: int = 1, peer: bool = True) -> Row:
    """Times the reconstruction of a volume, one draw a slice.

    The time of the physics is that of the same program with the network replaced by the white part of its
    preconditioning, `x0 = c_skip x_t`: operator, data step and sampler stay. deepinv draws as many slices at once
    with the same weights, the same number of evaluations and, in its prox, the same number of CG steps; of the
    network's variants in PyTorch it gets the one with the fastest forward pass. DDS, which it has not, is timed
    beside its DiffPIR and DPS.

    Args:
        case: `PosteriorCase`.
        repeats: timed rounds after one to warm up, of which the median is taken.
        peer: whether to time deepinv too; left out where it cannot be imported, PyTorch sees another kind of
            device, or there is no twin of the network: `note` of the row's case says why.

    Returns:
        `Row`; its run is the whole volume and its case also holds `s_per_slice`, `s_per_volume`, `evaluations`
        (calls of the network for one slice), `physics_s_per_slice`, `physics_share`, `psnr` and `peer_psnr`
        (dB, mean over the slices, peak 1; without `prior` the weights are not trained, and it says no more than
        that both parties reconstruct), `physics` (whose operators the peers used), `noise_std` and `note`.

    Raises:
        ValueError: for an unknown method, modality, network or prior, or a size that does not fit.
        ArithmeticError: if the twin's network or deepinv's operator is not ours.
    """
    if case.method not in METHODS:
        raise ValueError(f"method is {case.method!r}: choose one of {', '.join(METHODS)}")
    scene, parts = scene_of(case), denoiser_parts(case)
    arguments = jax.device_put((parts.model.params, scene.operator, scene.y, scene.noise_std))
    whole, free = (jax.jit(program(case, parts, freed)) for freed in (False, True))
    flops = count_flops(whole, *arguments)
    compiled, compile_s = compile_apart(whole, *arguments)
    physics, _ = compile_apart(free, *arguments)
    images = {}

    def kept(name, run):
        def call():
            images[name] = run()

        return call

    runs = {
        "ours": kept("ours", lambda: jax.block_until_ready(compiled(*arguments))),
        "physics": lambda: jax.block_until_ready(physics(*arguments)),
    }
    found = deepinv_runs(METHODS[case.method].peers, case, scene, parts, STRENGTH, ZETA) if peer else None
    runs |= {name: kept(name, run) for name, run in (found.runs if found else {}).items()}
    seconds = interleaved(runs, repeats)
    quality = {name: _quality(image, scene.truth) for name, image in images.items()}
    measured = _Measured(compiled, compile_s, seconds, flops, quality)
    return _row(case, scene, parts, measured, found)


def program(case: PosteriorCase, parts, free: bool = False) -> Callable:
    """Builds the function that reconstructs the volume, to be jitted.

    Args:
        case: `PosteriorCase`.
        parts: `DenoiserParts`.
        free: whether the network is left out, `x0 = c_skip x_t`.

    Returns:
        `(params, operator, y, noise_std) -> images (slices, size, size, 1)`.
    """
    method, grid = METHODS[case.method], karras(case.steps, process=parts.process)

    def reconstruct(params, operator, y, noise_std):
        network = as_denoiser(parts.model.network, params, parts.process, parts.parameterisation)

        def white(x_t, t, cond=None):
            return jnp.asarray(parts.parameterisation(parts.process, t).c_skip * x_t, x_t.dtype)

        def one(index, y):
            likelihood = GaussianLikelihood.create(operator, y, noise_std)
            space = operator.domain
            return samplers.sample_one(
                sample_key(jax.random.key(0), index),
                method.sampler(),
                white if free else network,
                parts.process,
                grid,
                shape=space.shape,
                dtype=space.dtype,
                guidance=method.guide(likelihood, case.cg),
            )

        return jax.vmap(one)(jnp.arange(len(y)), y)

    return reconstruct


class _Measured(NamedTuple):
    compiled: Any
    compile_s: float
    seconds: dict[str, float]
    flops: float
    psnr: dict[str, float]


def _row(case, scene, parts, measured, found):
    run_s, kind = measured.seconds["ours"], jax.devices()[0].device_kind
    physics_s = measured.seconds["physics"]
    peers = {name: s for name, s in measured.seconds.items() if name not in ("ours", "physics")}
    best = min(peers, key=peers.get, default=None)
    described = case._asdict() | {
        "parameters": parts.model.parameters,
        "evaluations": case.steps,
        "s_per_slice": run_s / case.slices,
        "s_per_volume": run_s,
        "physics_s_per_slice": physics_s / case.slices,
        "physics_share": physics_s / run_s,
        "psnr": measured.psnr["ours"],
        "peer_psnr": {name: measured.psnr[name] for name in peers},
        "peer_variants": peers,
        "image": "shepp-logan",
        "noise_std": float(scene.noise_std),
        "physics": found.physics if found else None,
        "note": found.note if found else "peers were not asked for",
    }
    return Row(
        name="posterior",
        case=described,
        dtype="float32",
        device=kind,
        peer=best,
        compile_s=measured.compile_s,
        run_s=run_s,
        peer_run_s=peers.get(best),
        ratio=None if best is None else peers[best] / run_s,
        flops=measured.flops,
        mfu=mfu(measured.flops, run_s, kind, "float32"),
        peak_bytes=program_bytes(measured.compiled),
    )


def _quality(images, truth):
    images, truth = np.asarray(images), np.asarray(truth)
    return float(
        np.mean([float(psnr(x, reference, 1.0)) for x, reference in zip(images, truth, strict=True)])
    )

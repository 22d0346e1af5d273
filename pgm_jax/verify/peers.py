"""Other libraries' samplers on the problems of the exactness table: diffusers, azula and deepinv."""

import functools
import math
import warnings
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax.core import MissingExtra, require
from pgm_jax.verify import deepinv_draws, peer_draws
from pgm_jax.verify.moments import moment_errors
from pgm_jax.verify.problems import problem
from pgm_jax.verify.table import law_figures

# One sample at a time takes a thousand times as long.
_ALONE = 256


class Peer(NamedTuple):
    """One row of another library.

    Attributes:
        library: module that is imported.
        process: process, by our name of it.
        sampler: sampler, by our name where the step is ours.
        guidance: guidance, by our name; "none" draws from the prior.
        steps: steps of its grid.
        draw: `(torch, library, target, steps, samples) -> draws (samples, 8)`; `target` is `peer_draws.Target`.
        alone: whether the library scales its guidance by the whole batch, so that draws are made one by one.
    """

    library: str
    process: str
    sampler: str
    guidance: str
    steps: int
    draw: Callable
    alone: bool = False


def _peers():
    diffusers = functools.partial(Peer, "diffusers.schedulers", guidance="none", steps=40)
    azula = functools.partial(Peer, "azula", "EDM")
    prior = {"guidance": "none", "steps": 40}
    guided = {"sampler": "ancestral", "steps": 100}
    draws = peer_draws
    return [
        diffusers("EDM", "ddim", draw=draws.diffusers_edm("EDMEulerScheduler")),
        diffusers("EDM", "dpmpp_2m", draw=draws.diffusers_edm("EDMDPMSolverMultistepScheduler")),
        diffusers("EDM", "heun", draw=draws.diffusers_heun),
        diffusers("VP", "ddim", draw=draws.diffusers_vp("DDIMScheduler")),
        diffusers("VP", "ancestral", draw=draws.diffusers_vp("DDPMScheduler")),
        azula(sampler="ancestral", **prior, draw=draws.azula_prior("DDPMSampler")),
        azula(sampler="ddim", **prior, draw=draws.azula_prior("DDIMSampler")),
        azula(sampler="heun", **prior, draw=draws.azula_prior("HeunSampler")),
        azula(guidance="moment_matching", **guided, draw=draws.azula_moment_matching),
        azula(guidance="pigdm", **guided, draw=draws.azula_pigdm),
        azula(guidance="diffpir", **guided, draw=draws.azula_diffpir),
        azula(guidance="dps", **guided, draw=draws.azula_dps, alone=True),
        Peer("deepinv", "VP", "ancestral", "dps", 100, deepinv_draws.deepinv_dps),
        Peer("deepinv", "VP", "marginal", "diffpir", 100, deepinv_draws.deepinv_diffpir),
    ]


PEERS = _peers()
"""Rows of other libraries; each has a row of ours in the default table, with `steps` and `guidance` alike."""


def verify_peers(peers=None, samples=1024, seed=0, progress=None):
    """Runs other libraries on the Gaussian problem of the table, with its exact denoiser in PyTorch.

    Grid and process are ours where a library lets its user choose them (EDM on `karras`), and its own elsewhere.
    Moments come from samples: `mean_mc` and `cov_mc` are the errors that as many exact draws would show.

    Args:
        peers: list of `Peer`; all of `PEERS` if None.
        samples: draws a row; 256 at most where a library has to draw one by one.
        seed: seed of the problem and of the draws.
        progress: optional `(done, total)`, called after each row.

    Returns:
        `(rows, missing)`: dicts as of `verify`, with `library` and its version, `samples`, `mean_mc` and `cov_mc`;
        and one line for each library that cannot be imported, whose rows are left out.
    """
    peers = PEERS if peers is None else peers
    rows, missing = [], {}
    for done, peer in enumerate(peers, 1):
        if peer.library not in missing:
            try:
                rows.append(run_peer(peer, samples, seed))
            except MissingExtra as error:
                missing[peer.library] = f"{_name(peer)} is left out: {error}"
        if progress is not None:
            progress(done, len(peers))
    return rows, list(missing.values())


def run_peer(peer, samples=1024, seed=0):
    """Runs one row of another library; see `verify_peers`.

    Args:
        peer: `Peer`.
        samples: number of draws.
        seed: seed of the problem and of the draws.

    Returns:
        One row, a dict.

    Raises:
        MissingExtra: if PyTorch or the library cannot be imported.
    """
    torch, library = require("torch", "torch"), peer_module(peer.library)
    given = problem("gaussian", "dense", seed)
    truth = given.prior if peer.guidance == "none" else given.posterior
    samples = min(samples, _ALONE) if peer.alone else samples
    target = peer_draws.target_of(torch, given)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        parts = [1] * samples if peer.alone else [samples]
        draws = [peer.draw(torch, library, target, peer.steps, n).detach().numpy() for n in parts]
    draws = jnp.asarray(np.concatenate(draws), jnp.float32)
    exact = jax.vmap(truth.sample)(jax.random.split(jax.random.key(seed + 1), samples))
    mean_err, cov_err = moment_errors(jnp.mean(draws, axis=0), jnp.cov(draws, rowvar=False), truth)
    mean_mc, cov_mc = monte_carlo_errors(truth, samples)
    version = require("importlib.metadata", "peers").version(_name(peer))
    return {
        "library": f"{_name(peer)} {version}",
        "process": peer.process,
        "D": None,
        "sampler": peer.sampler,
        "guidance": peer.guidance,
        "prior": "gaussian",
        "operator": "none" if peer.guidance == "none" else "dense",
        "steps": peer.steps,
        "mean_err": float(mean_err),
        "cov_err": float(cov_err),
        **law_figures(draws, exact),
        "exact_moments": False,
        "samples": samples,
        "mean_mc": mean_mc,
        "cov_mc": cov_mc,
    }


def monte_carlo_errors(truth, samples):
    """Returns the errors of the moments of exact draws: the floor below which a measured error says nothing.

        mean: sqrt(E |m_n - m|^2 / tr C) = n^-1/2,
        cov:  sqrt(E |C_n - C|_F^2) / |C|_F = sqrt((1 + (tr C / |C|_F)^2) / n).

    Args:
        truth: `GaussianPrior`.
        samples: number n of draws.

    Returns:
        `(mean_mc, cov_mc)`, in the units of `moment_errors`.
    """
    ratio = float(jnp.trace(truth.cov) / jnp.linalg.norm(truth.cov))
    return 1 / math.sqrt(samples), math.sqrt((1 + ratio**2) / samples)


def peer_module(name):
    """Imports a library to compare with; one that is broken counts as missing.

    Args:
        name: dotted module name.

    Returns:
        The module.

    Raises:
        MissingExtra: if it, or something that it imports, is not installed or fails to load.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return require(name, "peers")
    except MissingExtra:
        raise
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise MissingExtra(f"{name} is installed but does not load here ({reason[0]})") from error


def _name(peer):
    return peer.library.partition(".")[0]

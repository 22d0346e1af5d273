"""Undersampled multi-coil brain MRI: classical baselines beside posterior draws of PFGM++ and EDM.

Each method is one pure function of a scan, compiled once for both accelerations; draws are vmapped.
"""

import json
import math
from importlib import resources
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pgm_jax.core import sample_key
from pgm_jax.guidance import dds
from pgm_jax.metrics import nrmse, psnr, ssim
from pgm_jax.operators import GaussianLikelihood
from pgm_jax.processes import PFGMpp, karras
from pgm_jax.reconstruction import cg_sense, tv, zero_filled
from pgm_jax.samplers import ddim, sample_one

METHODS = (
    "zero_filled",
    "cg_sense",
    "tv",
    "gaussian_mean",
    "dds_draw",
    "dds_mean",
    "edm_dds_draw",
    "edm_dds_mean",
)
# A pixel counts as head above this share of the 99.5th percentile.
_HEAD = 0.05
# Step ratio with which PDHG reaches the TV minimum in about 300 iterations on these data.
_TV_BALANCE = 8.0


class Settings(NamedTuple):
    """Numbers of the methods, tuned on validation people by `benchmarks/tune_brain.py`.

    Attributes:
        cg_steps: iterations of CG-SENSE.
        tv_weight: weight of total variation.
        tv_steps: PDHG iterations.
        steps: sampler steps (network evaluations) of one draw.
        cg: conjugate gradient steps of DDS at each evaluation.
        eta: share of fresh noise in the EDM draws; the PFGM++ draws are deterministic given their start.
        draws: posterior draws behind the mean and the standard deviation.
        D: dimension of PFGM++.
        sigma_max: largest noise level.
    """

    cg_steps: int
    tv_weight: float
    tv_steps: int
    steps: int
    cg: int
    eta: float
    draws: int = 4
    D: float = 128.0
    sigma_max: float = 20.0


def settings(acceleration):
    """Loads the tuned settings of one acceleration.

    Args:
        acceleration: 4 or 8.

    Returns:
        `Settings`.

    Raises:
        ValueError: for an acceleration that was not tuned.
    """
    text = resources.files(__package__).joinpath("undersampled_brain.json").read_text()
    table = json.loads(text)["settings"]
    if str(acceleration) not in table:
        raise ValueError(
            f"Tuned for accelerations {', '.join(table)}, not {acceleration}: give Settings of your own."
        )
    return Settings(**table[str(acceleration)])


def posterior_draws(key, prior, scan, process, chosen, eta=0.0):
    """Draws from the posterior by DDS along the process (review Eq. 29 and 30).

    Args:
        key: PRNG key.
        prior: exact prior (its denoiser is used) over complex images.
        scan: `Scan`.
        process: affine process in EDM's frame.
        chosen: `Settings`.
        eta: share of fresh noise, 0 at finite D.

    Returns:
        (draws, height, width, 1) complex64.
    """
    likelihood = GaussianLikelihood.create(scan.operator, scan.y, scan.noise_std)
    power = jnp.mean(prior.power)

    def variance(process, t):
        # Posterior variance of data of the prior's mean power at this noise level.
        level = process.sigma(t) ** 2
        return level * power / (level + power)

    guidance = dds(likelihood, variance, chosen.cg)
    grid = karras(chosen.steps, sigma_min=0.005, sigma_max=chosen.sigma_max)
    draw = lambda key: sample_one(
        key,
        ddim(eta, of="marginal"),
        prior.denoiser(process),
        process,
        grid,
        shape=scan.truth.shape,
        guidance=guidance,
        dtype=scan.truth.dtype,
    )
    return jax.vmap(draw)(jax.vmap(lambda i: sample_key(key, i))(jnp.arange(chosen.draws)))


def reconstruct(method, chosen):
    """Builds the pure function of one method.

    Args:
        method: "zero_filled", "cg_sense", "tv", "gaussian_mean" (the exact posterior mean of the same prior),
            "dds" (PFGM++) or "edm_dds" (D = inf).
        chosen: `Settings`.

    Returns:
        `(key, prior, scan) -> images`: (draws, height, width, 1), one row for methods without draws.

    Raises:
        ValueError: for an unknown method.
    """
    one = {
        "zero_filled": lambda key, prior, scan: zero_filled(scan.operator, scan.y)[None],
        "cg_sense": lambda key, prior, scan: cg_sense(scan.operator, scan.y, chosen.cg_steps)[0][None],
        "tv": lambda key, prior, scan: tv(
            scan.operator, scan.y, chosen.tv_weight, chosen.tv_steps, balance=_TV_BALANCE
        )[0][None],
        # The spectrum spans six decades, so data-space CG needs many steps.
        "gaussian_mean": lambda key, prior, scan: prior.posterior(
            scan.operator, scan.y, scan.noise_std, circulant=False, rtol=1e-6, max_steps=1500
        ).mean()[None],
        "dds": lambda key, prior, scan: posterior_draws(key, prior, scan, PFGMpp(chosen.D), chosen),
        "edm_dds": lambda key, prior, scan: posterior_draws(
            key, prior, scan, PFGMpp(math.inf), chosen, chosen.eta
        ),
    }
    if method not in one:
        raise ValueError(f"Unknown method {method!r}: choose one of {', '.join(one)}.")
    return one[method]


def evaluations(method, chosen):
    """Returns the number of denoiser evaluations of one draw; 0 for classical methods."""
    return chosen.steps if method in ("dds", "edm_dds") else 0


def scores(image, truth) -> dict[str, Any]:
    """Scores the magnitude of a reconstruction against the truth.

    The peak (and SSIM's data range) is the largest true magnitude inside the head mask, the pixels above 5 %
    of the 99.5th percentile; the error is summed over the whole field of view.

    Args:
        image: (height, width, 1) complex reconstruction.
        truth: (height, width, 1) complex truth.

    Returns:
        `{psnr (dB), ssim, nrmse}`, real scalars.
    """
    magnitude, reference = jnp.abs(image)[..., 0], jnp.abs(truth)[..., 0]
    peak = jnp.max(jnp.where(reference > _HEAD, reference, 0.0))
    return {
        "psnr": psnr(magnitude, reference, peak),
        "ssim": ssim(magnitude, reference, peak),
        "nrmse": nrmse(magnitude, reference),
    }

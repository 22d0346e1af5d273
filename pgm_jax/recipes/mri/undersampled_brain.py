"""Undersampled multi-coil brain MRI: classical baselines beside posterior draws of PFGM++ and EDM.

Each method is one pure function of a scan, compiled once for both accelerations; draws are vmapped.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax.core import sample_key
from pgm_jax.guidance import dds
from pgm_jax.metrics import nrmse, psnr, ssim
from pgm_jax.operators import GaussianLikelihood
from pgm_jax.priors import load_prior
from pgm_jax.processes import karras, subset
from pgm_jax.recipes.mri.brain_prior import brain_prior
from pgm_jax.recipes.tuned import tuned_settings
from pgm_jax.reconstruction import cg_sense, tgv, tv, zero_filled
from pgm_jax.samplers import ddim, sample_one

METHODS = (
    "zero_filled",
    "cg_sense",
    "tv",
    "tgv",
    "gaussian_mean",
    "dds_draw",
    "dds_mean",
    "edm_dds_draw",
    "edm_dds_mean",
)
# A pixel counts as head above this share of the 99.5th percentile.
_HEAD = 0.05


class Settings(NamedTuple):
    """Numbers of the methods, tuned on validation people by `benchmarks/tune_brain.py`.

    Attributes:
        cg_steps: iterations of CG-SENSE.
        tv_weight: weight of total variation.
        tv_steps: PDHG iterations.
        tgv_weight: weight of second-order total generalised variation.
        tgv_steps: PDHG iterations.
        steps: sampler steps (network evaluations) of one draw.
        cg: conjugate gradient steps of DDS at each evaluation.
        trust: variance that DDS gives the clean image around the network's, in units of sigma^2.
        draws: posterior draws behind the mean and the standard deviation.
        sigma_max: noise level at which a draw starts, from the CG-SENSE image.
        sigma_min: last noise level above 0.
    """

    cg_steps: int
    tv_weight: float
    tv_steps: int
    steps: int
    cg: int
    trust: float = 4.0
    draws: int = 4
    sigma_max: float = 1.0
    sigma_min: float = 0.005
    tgv_weight: float = 0.003
    tgv_steps: int = 400


class Priors(NamedTuple):
    """What the methods know of brains; a pytree, so it may cross a `jit` border.

    Attributes:
        gaussian: `StationaryGaussianPrior` of the image's size, for "gaussian_mean".
        dds: trained PFGM++ prior.
        edm_dds: its twin at D = inf.
    """

    gaussian: Any
    dds: Any
    edm_dds: Any


def brain_priors(shape, spacing, like=None):
    """Loads the priors of the recipe: the fitted spectrum and the two shipped networks.

    Args:
        shape: (height, width) or (height, width, 1).
        spacing: voxel size in mm, a number or (row, column).
        like: image in the units that will be used; a range unlike the fit's warns.

    Returns:
        `Priors`.
    """
    return Priors(
        brain_prior(shape, spacing, like=like), load_prior("brain-t1-pfgmpp"), load_prior("brain-t1-edm")
    )


def settings(task):
    """Loads the tuned settings of a task.

    Args:
        task: acceleration 4 or 8, or "radial".

    Returns:
        `Settings`.

    Raises:
        ValueError: for a task that was not tuned.
    """
    return tuned_settings(__package__, "undersampled_brain.json", Settings, task)


def posterior_draws(key, prior, scan, chosen, levels=None):
    """Draws from the posterior by DDS with fresh noise at every level (review Eq. 29 and 30).

    Each step corrects the network's clean image by conjugate gradients on
    `|v - x0|^2 / (2 trust sigma^2) + |A v - y|^2 / (2 noise_std^2)`, the annealed weight of Zhu et al. 2023
    (DiffPIR, Eq. 12), and perturbs the result to the next level with new noise, which is valid at every D. It
    starts at `sigma_max` around the CG-SENSE image, and with levels of its own around the TV image: a few steps
    cannot take out the aliasing of the former.

    Args:
        key: PRNG key.
        prior: trained prior with `process` and `denoiser()`, over complex images.
        scan: `Scan`.
        chosen: `Settings`.
        levels: falling noise levels in place of those of `chosen`, two or four for a few-step prior: the
            consistency posterior.

    Returns:
        (draws, height, width, 1) complex64.
    """
    likelihood = GaussianLikelihood.create(scan.operator, scan.y, scan.noise_std)
    guidance = dds(likelihood, lambda process, t: chosen.trust * process.sigma(t) ** 2, chosen.cg)
    grid = karras(chosen.steps, sigma_min=chosen.sigma_min, sigma_max=chosen.sigma_max)
    if levels is not None:
        grid = subset(np.append(np.asarray(levels, np.float64), 0.0))
    process, denoise = prior.process, prior.denoiser()
    start = reconstruct("cg_sense" if levels is None else "tv", chosen)(key, None, scan)[0]

    def draw(key):
        key_start, key_sample = jax.random.split(key)
        return sample_one(
            key_sample,
            ddim(1.0, of="marginal"),
            denoise,
            process,
            grid,
            x_init=process.perturb(key_start, start, jnp.float32(grid[0])),
            guidance=guidance,
        )

    return jax.vmap(draw)(jax.vmap(lambda i: sample_key(key, i))(jnp.arange(chosen.draws)))


def reconstruct(method, chosen):
    """Builds the pure function of one method.

    Args:
        method: "zero_filled" (Cartesian scans), "cg_sense", "tv", "tgv", "gaussian_mean" (the exact posterior mean
            of a stationary Gaussian), "dds" (PFGM++) or "edm_dds" (D = inf).
        chosen: `Settings`.

    Returns:
        `(key, priors, scan) -> images`: (draws, height, width, 1), one row for methods without draws; priors is
        `Priors`, of which a method reads its own.

    Raises:
        ValueError: for an unknown method.
    """
    one = {
        "zero_filled": lambda key, priors, scan: zero_filled(scan.operator, scan.y)[None],
        "cg_sense": lambda key, priors, scan: cg_sense(scan.operator, scan.y, chosen.cg_steps)[0][None],
        "tv": lambda key, priors, scan: tv(scan.operator, scan.y, chosen.tv_weight, chosen.tv_steps)[0][None],
        "tgv": lambda key, priors, scan: tgv(scan.operator, scan.y, chosen.tgv_weight, chosen.tgv_steps)[0][
            None
        ],
        # The spectrum spans six decades, so data-space CG needs many steps.
        "gaussian_mean": lambda key, priors, scan: priors.gaussian.posterior(
            scan.operator, scan.y, scan.noise_std, circulant=False, rtol=1e-6, max_steps=1500
        ).mean()[None],
        "dds": lambda key, priors, scan: posterior_draws(key, priors.dds, scan, chosen),
        "edm_dds": lambda key, priors, scan: posterior_draws(key, priors.edm_dds, scan, chosen),
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

"""Chest CT from incomplete scans: FBP, TV and TGV beside posterior draws of PFGM++ and EDM.

Every method takes the same weighted line integrals and returns attenuation relative to water.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pgm_jax.metrics import nrmse, psnr, ssim
from pgm_jax.operators import Diagonal
from pgm_jax.recipes.consistency_posterior import annealed
from pgm_jax.recipes.ct.scan import WATER
from pgm_jax.recipes.tuned import tuned_settings
from pgm_jax.reconstruction import fbp, natural_balance, posterior, tgv, tv

BASELINES = ("fbp", "tv", "tgv")
PEAK = 2.0
"""Range of PSNR and SSIM, relative to water: 2000 HU."""


class Settings(NamedTuple):
    """Numbers of the methods, tuned on the validation person by `benchmarks/tune_chest.py`.

    Attributes:
        filter: window of FBP.
        cutoff: its cut-off over the Nyquist frequency.
        tv_weight: weight of total variation.
        tv_balance: step ratio of its iteration over the natural one.
        tgv_weight: weight of second-order total generalised variation.
        tgv_balance: likewise.
        tv_iterations: PDHG iterations of total variation.
        tgv_iterations: PDHG iterations of its generalisation.
        trust: variance that DDS gives the clean image around the network's, in units of sigma^2.
        cg: conjugate gradient steps of DDS at each evaluation.
        sigma_max: noise level at which a draw starts, from the TV image.
        steps: evaluations of the network for one draw.
        draws: posterior draws behind the mean and the standard deviation.
        sigma_min: last noise level above 0.
    """

    filter: str = "hann"
    cutoff: float = 1.0
    tv_weight: float = 3.0
    tv_balance: float = 1.0
    tgv_weight: float = 3.0
    tgv_balance: float = 1.0
    tv_iterations: int = 300
    tgv_iterations: int = 300
    trust: float = 1.0
    cg: int = 20
    sigma_max: float = 1.0
    steps: int = 50
    draws: int = 4
    sigma_min: float = 0.003


def settings(task: str) -> Settings:
    """Loads the tuned settings of a task.

    Args:
        task: name in `TASKS`.

    Returns:
        `Settings`.

    Raises:
        ValueError: for a task that was not tuned.
    """
    return tuned_settings(__package__, "chest.json", Settings, task)


def baseline(method: str, scan, chosen: Settings):
    """Reconstructs a scan without a prior that was trained.

    TV and TGV minimise `|W^(1/2) (A x - y)|^2 / 2 + weight penalty(x)` over x >= 0 from the FBP image, W the
    inverse variances of the line integrals.

    Args:
        method: "fbp", "tv" or "tgv".
        scan: `ChestScan`.
        chosen: `Settings`.

    Returns:
        (height, width, 1) attenuation relative to water.

    Raises:
        ValueError: for an unknown method.
    """
    if method not in BASELINES:
        raise ValueError(f"Unknown baseline {method!r}: choose one of {', '.join(BASELINES)}.")
    first = jnp.maximum(fbp(scan.beam, scan.y, chosen.filter, chosen.cutoff) / WATER, 0.0)
    if method == "fbp":
        return first
    solve, weight, balance, iterations = {
        "tv": (tv, chosen.tv_weight, chosen.tv_balance, chosen.tv_iterations),
        "tgv": (tgv, chosen.tgv_weight, chosen.tgv_balance, chosen.tgv_iterations),
    }[method]
    root = jnp.sqrt(scan.weights)
    whitened, y = Diagonal(root) @ scan.operator, root * scan.y
    steps = balance * natural_balance(whitened, y, weight)
    return solve(whitened, y, weight, iterations, first, balance=steps, keep_positive=True)[0]


def draws(key, prior, scan, chosen: Settings, method: str = "dds", **options) -> Any:
    """Draws from the posterior of a scan, from the TV image at `sigma_max`.

    DDS corrects the network's clean image by conjugate gradients on
    `|v - x0|^2 / (2 trust sigma^2) + |W^(1/2) (A v - y)|^2 / 2`, the annealed weight of Zhu et al. 2023
    (DiffPIR, Eq. 12), and perturbs the result to the next level with new noise, which is valid at every D.

    Args:
        key: PRNG key.
        prior: trained prior with `process` and `denoiser()`, over images relative to water.
        scan: `ChestScan`.
        chosen: `Settings`.
        method: a method of `reconstruction.posterior`.
        **options: its options; for "dds" those of `chosen` by default.

    Returns:
        `Posterior`, in units of water.
    """
    if method == "dds":
        options = {"gamma": annealed(chosen.trust), "cg": chosen.cg} | options
    start = _compiled_baseline("tv", scan, chosen._replace(**_OF_DRAWS))
    return posterior(
        key, prior, scan.likelihood(), method=method, steps=chosen.steps, draws=chosen.draws, start=start,
        sigma_max=chosen.sigma_max, sigma_min=chosen.sigma_min, **options,
    )  # fmt: skip


_compiled_baseline = jax.jit(baseline, static_argnums=(0, 2))
# What a baseline does not read, so that it is compiled once for all of them.
_OF_DRAWS = {name: 1 for name in ("trust", "cg", "sigma_max", "steps", "draws", "sigma_min")}


def scores(image, truth) -> dict[str, Any]:
    """Scores an image relative to water against the truth, over the whole field of view.

    Args:
        image: (height, width, 1).
        truth: likewise.

    Returns:
        `{psnr (dB, of 2000 HU), ssim, nrmse}`.
    """
    x, reference = image[..., 0], truth[..., 0]
    return {
        "psnr": psnr(x, reference, PEAK),
        "ssim": ssim(x, reference, PEAK),
        "nrmse": nrmse(x, reference),
    }

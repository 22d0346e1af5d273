"""Brain PET at two count levels: OSEM and BSREM beside posterior draws by PET-DDS.

Every method takes the same counts and the same model, and returns activity in units of white matter.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pgm_jax.guidance import pet_dds
from pgm_jax.metrics import nrmse, psnr, ssim
from pgm_jax.operators import GaussianPSF, RelativeDifference
from pgm_jax.recipes.pet.scan import PIXEL
from pgm_jax.recipes.tuned import tuned_settings
from pgm_jax.reconstruction import Posterior, bsrem, osem, posterior
from pgm_jax.samplers import ddim, euler

BASELINES = ("osem", "bsrem")
PEAK = 6.0
"""Range of PSNR and SSIM: the activity of the hot lesion over that of white matter."""
# Pixels of an image above this share of its 99th percentile have activity.
_ACTIVE = 0.15


class Settings(NamedTuple):
    """Numbers of the methods, tuned on the validation person by `benchmarks/tune_pet.py`.

    Attributes:
        osem_passes: passes of OSEM over its 12 subsets.
        osem_fwhm: width of the Gaussian after it, in mm; 0 for none.
        bsrem_weight: weight of the relative difference prior, in nats over the activity of white matter.
        bsrem_gamma: its gamma, see `RelativeDifference`.
        bsrem_passes: passes of BSREM, from one of OSEM.
        trust: variance that PET-DDS gives the clean image around the network's, see `emission_dds`.
        em: preconditioned gradient steps of PET-DDS at each evaluation, one of the 12 subsets each.
        sigma_max: noise level at which a draw starts, in units of the mean activity.
        steps: evaluations of the network for one draw.
        draws: posterior draws behind the mean and the standard deviation.
        sigma_min: last noise level above 0.
        start: name in `BASELINES`, from whose image a draw starts.
    """

    osem_passes: int = 2
    osem_fwhm: float = 4.0
    bsrem_weight: float = 0.3
    bsrem_gamma: float = 2.0
    bsrem_passes: int = 25
    trust: float = 2.0
    em: int = 36
    sigma_max: float = 1.0
    steps: int = 20
    draws: int = 8
    sigma_min: float = 0.01
    start: str = "osem"


def settings(task: str) -> Settings:
    """Loads the tuned settings of a task.

    Args:
        task: name in `TASKS`.

    Returns:
        `Settings`.

    Raises:
        ValueError: for a task that was not tuned.
    """
    return tuned_settings(__package__, "brain.json", Settings, task)


def baseline(method: str, scan, chosen: Settings):
    """Reconstructs a scan without a prior that was trained.

    Args:
        method: "osem", with a Gaussian after it, or "bsrem" with the relative difference prior.
        scan: `PETScan`.
        chosen: `Settings`.

    Returns:
        (height, width, 1) activity in units of white matter.

    Raises:
        ValueError: for an unknown method.
    """
    if method not in BASELINES:
        raise ValueError(f"Unknown baseline {method!r}: choose one of {', '.join(BASELINES)}.")
    counts = {"y": scan.y, "background": scan.background}
    if method == "osem":
        image = osem(scan.operator, steps=chosen.osem_passes, **counts)[0]
        return GaussianPSF.create(image.shape, chosen.osem_fwhm, 2 * PIXEL)(image)
    first = osem(scan.operator, steps=1, **counts)[0]
    prior = RelativeDifference(gamma=chosen.bsrem_gamma, axes=(0, 1))
    return bsrem(
        scan.operator,
        prior=prior,
        weight=chosen.bsrem_weight,
        steps=chosen.bsrem_passes,
        x_init=first,
        **counts,
    )[0]


def typical_activity(image):
    """Computes the mean activity of an image where there is any: what is 1 for the trained priors.

    Args:
        image: activity >= 0, such as a smooth OSEM image.

    Returns:
        Scalar: mean over pixels above 15 % of the 99th percentile.
    """
    active = image > _ACTIVE * jnp.percentile(image, 99.0)
    return jnp.sum(jnp.where(active, image, 0.0)) / jnp.maximum(jnp.sum(active), 1)


def emission_dds(likelihood, *, trust, em, keep_noise=False):
    """Makes PET-DDS with the weight `1 / (trust r^2)`, `r^2 = sigma^2 / (1 + sigma^2)`, in units of the prior.

    Args:
        likelihood: `PoissonEmission` of images of which 1 is the typical activity.
        trust: variance of the clean image around the network's, in units of r^2.
        em: preconditioned gradient steps at each evaluation.
        keep_noise: see `pet_dds`.

    Returns:
        A guidance, for `posterior(method=emission_dds, ...)`.
    """
    weight = lambda process, t: (1 + 1 / process.sigma(t) ** 2) / trust
    return pet_dds(likelihood, steps=em, weight=weight, keep_noise=keep_noise)


def _fresh():
    return ddim(1.0, of="marginal")


def _published():
    return ddim(0.1, of="marginal")


VARIANTS = {"kept": (euler, False), "fresh": (_fresh, True), "published": (_published, True)}
"""Ways from level to level: the state kept, without new noise (every D); all noise new (every D); or the noise kept
but for a tenth that is new, as published (D = inf only)."""


def draws(key, prior, scan, chosen: Settings, variant: str = "kept") -> Posterior:
    """Draws from the posterior of a scan by PET-DDS, from the image of `chosen.start` at `sigma_max`.

    The typical activity of the OSEM image is the unit of the prior. Each evaluation moves the clean image by
    preconditioned gradient steps on `ln p(y | v) - |v - x0|^2 / (2 trust r^2)`, see `emission_dds`.

    Args:
        key: PRNG key.
        prior: trained prior with `process` and `denoiser()`, over images of mean activity 1.
        scan: `PETScan`.
        chosen: `Settings`.
        variant: a name of `VARIANTS`.

    Returns:
        `Posterior`, in units of white matter.

    Raises:
        ValueError: for an unknown variant or start, or a variant that the prior's noise law refuses.
    """
    if variant not in VARIANTS:
        raise ValueError(f"Unknown variant {variant!r}: choose one of {', '.join(VARIANTS)}.")
    sampler, keep_noise = VARIANTS[variant]
    images = {method: _image(method, scan, chosen) for method in {"osem", chosen.start}}
    unit = typical_activity(images["osem"])
    found = posterior(
        key, prior, scan.likelihood(unit), method=emission_dds, steps=chosen.steps, draws=chosen.draws,
        sigma_min=chosen.sigma_min, sigma_max=chosen.sigma_max, start=images[chosen.start] / unit, sampler=sampler,
        trust=chosen.trust, em=chosen.em, keep_noise=keep_noise,
    )  # fmt: skip
    return Posterior(*(unit * part for part in found))


def _image(method, scan, chosen):
    """The image of a baseline, compiled once for all settings that it does not read."""
    read = {name: value for name, value in chosen._asdict().items() if name.startswith(method)}
    return _compiled_baseline(method, scan, Settings(**read))


_compiled_baseline = jax.jit(baseline, static_argnums=(0, 2))


def scores(image, truth) -> dict[str, Any]:
    """Scores an image of activity against the truth, over the whole field of view.

    Args:
        image: (height, width, 1).
        truth: likewise.

    Returns:
        `{psnr (dB, of 6 times white matter), ssim, nrmse}`.
    """
    x, reference = image[..., 0], truth[..., 0]
    return {
        "psnr": psnr(x, reference, PEAK),
        "ssim": ssim(x, reference, PEAK),
        "nrmse": nrmse(x, reference),
    }


def bias(image, scan) -> dict[str, Any]:
    """Computes the relative bias of regional means, `mean(image) / mean(truth) - 1`.

    Args:
        image: (height, width, 1) activity.
        scan: `PETScan`.

    Returns:
        `{grey, hot, cold}`: of pixels at least 85 % healthy grey matter, and of the lesions' whole pixels.
    """
    inside = {name: share > (0.85 if name == "grey" else 0.99) for name, share in scan.regions.items()}
    total = lambda x, region: jnp.sum(jnp.where(region, x, 0.0))
    return {name: total(image, region) / total(scan.truth, region) - 1 for name, region in inside.items()}

"""Low-dose CT in the image domain: PPFM, PFCM and PS-PFCM, which start from the low-dose image itself.

The low-dose image is taken for a state of level sigma, without added noise ("hijack"), brought to level 0 in few
evaluations, and blended: `x <- weight x + (1 - weight) low` at every level. With a denoiser the steps are Euler's
(PPFM and the hijacked PFGM++: Hein et al. 2024, who leave out Heun's corrector at one evaluation), with a
consistency function they are jumps (PFCM). A network that also reads the low-dose image samples its posterior
(PPFM, PS-PFCM).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax import guidance, samplers
from pgm_jax.operators import Diagonal, FiniteDifference, stack
from pgm_jax.processes import karras
from pgm_jax.recipes.ct.chest import Settings, baseline
from pgm_jax.recipes.ct.scan import Task, chest_scan
from pgm_jax.recipes.tuned import tuned_settings
from pgm_jax.reconstruction import cgls

VIEWS = 120
# Of the low-dose image, chosen on the validation person: 1.7 and .8 dB above FBP at 4,000 and 20,000 photons.
ROUGHNESS, ROUNDS = 30.0, 15


class Hijack(NamedTuple):
    """Numbers of a hijacked sampler, tuned on the validation person by `benchmarks/tune_low_dose.py`.

    Attributes:
        sigma: level at which the low-dose image enters, in units of water.
        weight: share of the model in each blend.
        steps: evaluations of the network.
        ratio: each level over the one before.
    """

    sigma: float = 0.1
    weight: float = 0.7
    steps: int = 1
    ratio: float = 0.5


def hijack_settings(task: str) -> Hijack:
    """Loads the tuned numbers of a method at a dose.

    Args:
        task: "METHOD-D-STEPS-TASK", such as "ps_pfcm-64-1-photons_4000".

    Returns:
        `Hijack`.

    Raises:
        ValueError: for one that was not tuned.
    """
    return tuned_settings(__package__, "low_dose.json", Hijack, task)


def low_dose_image(scan):
    """Reconstructs the image that is denoised: penalised weighted least squares, 15 conjugate gradients from FBP.

    `|W^(1/2) (A x - y)|^2 / 2 + roughness |grad x|^2 / 2`, W the inverse variances of the line integrals. FBP does
    not tell a starved ray from a good one, so its streaks hide what the other rays have seen; this image keeps it,
    and a network that reads the image can use it.

    Args:
        scan: `ChestScan`.

    Returns:
        (height, width, 1) attenuation relative to water, 0 or more.
    """
    root = jnp.sqrt(scan.weights)
    slopes = FiniteDifference(scan.truth.shape)
    operator = stack(Diagonal(root) @ scan.operator, ROUGHNESS**0.5 * slopes)
    measured = (root * scan.y, jnp.zeros(slopes.range.shape))
    first = baseline("fbp", scan, Settings(filter="hann", cutoff=1.0))
    return jnp.maximum(cgls(operator, measured, ROUNDS, x_init=first)[0], 0.0)


def low_dose_pair(key, fine, pixel, photons):
    """Simulates the low-dose image of a slice from 120 views, and returns it beside the truth.

    Args:
        key: PRNG key of the photons.
        fine: (512, 512, 1) attenuation relative to water.
        pixel: size of its pixels in mm.
        photons: photons of a ray without an object; may be traced.

    Returns:
        `(low, truth)`, each (256, 256, 1) relative to water, low as `low_dose_image` makes it.
    """
    scan = chest_scan(key, fine, pixel, Task(VIEWS, 180.0, photons))
    return low_dose_image(scan), scan.truth


def hijacked(key, prior, low, chosen: Hijack):
    """Denoises a low-dose image from itself: PFGM++, PPFM, PFCM or PS-PFCM, by what the prior is.

    Args:
        key: PRNG key, read where a consistency function takes more than one step.
        prior: trained prior; a few-step one jumps, and one built for an image is given the low-dose image.
        low: (height, width, 1) low-dose image in the prior's units.
        chosen: `Hijack`.

    Returns:
        Image like low.

    Raises:
        ValueError: for fewer than one step, or a ratio, sigma or weight out of range.
    """
    _check(chosen)
    levels = chosen.sigma * chosen.ratio ** np.arange(chosen.steps, dtype=np.float64)
    grid = np.append(np.asarray(prior.process.time(levels), np.float64), 0.0)
    sampler = samplers.euler() if prior.objective == "denoising" else samplers.consistency()
    return samplers.sample_one(
        key, sampler, prior.denoiser(), prior.process, grid, x_init=low, cond=condition(prior, low),
        guidance=guidance.blend(low, chosen.weight),
    )  # fmt: skip


def posterior_images(key, prior, low, draws: int = 8, steps: int = 18, sigma_min=0.003, sigma_max=20.0):
    """Draws images given a low-dose image from a conditional prior, by Heun's steps from noise (35 evaluations).

    Args:
        key: PRNG key; draw i depends on it and on i alone.
        prior: trained prior that reads an image.
        low: (height, width, 1) low-dose image.
        draws: number of draws.
        steps: steps of Heun.
        sigma_min: last level above 0.
        sigma_max: first level.

    Returns:
        (draws, height, width, 1).

    Raises:
        ValueError: for a prior that reads no image.
    """
    cond = condition(prior, low)
    if cond is None:
        raise ValueError(
            "posterior_images needs a prior that reads the low-dose image: its card's network has conditions.image"
        )
    grid = karras(steps, sigma_min, sigma_max, process=prior.process)
    many = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (draws, *leaf.shape)), cond)
    return samplers.sample(
        key, samplers.heun(), prior.denoiser(), prior.process, grid, shape=(draws, *low.shape), cond=many
    )


def condition(prior, low):
    """Returns `{"image": low}` for a prior that reads an image, else None.

    Args:
        prior: trained prior.
        low: the image.

    Returns:
        dict or None.
    """
    return {"image": low} if prior.reads_image else None


def _check(chosen):
    if chosen.steps < 1:
        raise ValueError(f"hijacked takes {chosen.steps} steps: give 1 or more")
    if not (chosen.sigma > 0 and 0 < chosen.ratio < 1 and 0 <= chosen.weight <= 1):
        raise ValueError(
            f"hijacked needs sigma > 0, 0 < ratio < 1 and a weight in [0, 1], got sigma {chosen.sigma}, "
            f"ratio {chosen.ratio} and weight {chosen.weight}"
        )

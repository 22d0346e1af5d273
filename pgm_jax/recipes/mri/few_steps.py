"""Consistency posterior of undersampled brains: two evaluations of a network that reads an early TV image."""

import jax

from pgm_jax.operators import GaussianLikelihood
from pgm_jax.recipes.consistency_posterior import FewSteps, consistency_posterior, early_tv
from pgm_jax.recipes.tuned import tuned_settings
from pgm_jax.reconstruction import Posterior


def few_step_settings(task) -> FewSteps:
    """Loads the tuned numbers of a task and number of evaluations.

    Args:
        task: "TASK-EVALUATIONS", such as "4-2".

    Returns:
        `FewSteps`.

    Raises:
        ValueError: for one that was not tuned.
    """
    return tuned_settings(__package__, "few_steps.json", FewSteps, task)


@jax.jit
def first_image(scan):
    """Reconstructs the image that the network reads, see `early_tv`: at 4x TV's end, at 8x .7 dB before it.

    Args:
        scan: `Scan`.

    Returns:
        (height, width, 1) complex64.
    """
    return early_tv(scan.operator, scan.y, scan.noise_std)


def few_step_draws(key, prior, scan, chosen: FewSteps, draws: int = 4) -> Posterior:
    """Draws from the posterior of a scan with one or two evaluations, see `recipes.consistency_posterior`.

    Args:
        key: PRNG key.
        prior: trained prior over complex images, such as `load_prior("brain-t1-posterior")`.
        scan: `Scan`.
        chosen: `FewSteps`.
        draws: number of draws.

    Returns:
        `reconstruction.Posterior`.

    Raises:
        ValueError: see `reconstruction.posterior`.
    """
    likelihood = GaussianLikelihood.create(scan.operator, scan.y, scan.noise_std)
    return consistency_posterior(key, prior, likelihood, first_image(scan), chosen, draws)

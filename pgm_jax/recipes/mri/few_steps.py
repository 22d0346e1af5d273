"""Undersampled brains in one or two evaluations of a network that reads an early TV image."""

import jax

from pgm_jax.operators import GaussianLikelihood
from pgm_jax.recipes import consistency_posterior as few_step_posterior
from pgm_jax.recipes.consistency_posterior import FEW_DRAWS, FewDraws, FewSteps
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
    """Reconstructs the image that the network reads, see `early_tv`.

    Args:
        scan: `Scan`.

    Returns:
        (height, width, 1) complex64.
    """
    return few_step_posterior.early_tv(scan.operator, scan.y, scan.noise_std)


def few_step_image(prior, scan, chosen: FewSteps):
    """Reconstructs a scan by plug-and-play, see `recipes.consistency_posterior`.

    Args:
        prior: trained prior over complex images, such as `load_prior("brain-t1-posterior")`.
        scan: `Scan`.
        chosen: `FewSteps`.

    Returns:
        (height, width, 1) complex64.
    """
    return few_step_posterior.few_step_image(prior, _likelihood(scan), first_image(scan), chosen)


def few_step_draws(key, prior, scan, chosen: FewDraws = FEW_DRAWS, draws: int = 4) -> Posterior:
    """Draws from the posterior of a scan by few evaluations, see `recipes.consistency_posterior`.

    Args:
        key: PRNG key.
        prior: as `few_step_image`.
        scan: `Scan`.
        chosen: `FewDraws`.
        draws: number of draws.

    Returns:
        `reconstruction.Posterior`.

    Raises:
        ValueError: see `reconstruction.posterior`.
    """
    given = prior, _likelihood(scan), first_image(scan)
    return few_step_posterior.consistency_posterior(key, *given, chosen, draws)


def _likelihood(scan):
    return GaussianLikelihood.create(scan.operator, scan.y, scan.noise_std)

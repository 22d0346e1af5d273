"""Incomplete chest scans in one or two evaluations of a network that reads an early TV image."""

import functools

import jax

from pgm_jax.recipes import consistency_posterior as few_step_posterior
from pgm_jax.recipes.consistency_posterior import FEW_DRAWS, FIRST_STEPS, FewDraws, FewSteps
from pgm_jax.recipes.ct.chest import Settings, baseline
from pgm_jax.recipes.tuned import tuned_settings
from pgm_jax.reconstruction import Posterior


def few_step_settings(task: str) -> FewSteps:
    """Loads the tuned numbers of a task and number of evaluations.

    Args:
        task: "TASK-EVALUATIONS", such as "views_23-2".

    Returns:
        `FewSteps`.

    Raises:
        ValueError: for one that was not tuned.
    """
    return tuned_settings(__package__, "few_steps.json", FewSteps, task)


@functools.partial(jax.jit, static_argnums=1)
def first_image(scan, chosen: Settings):
    """Reconstructs the image that the network reads: total variation with the task's weight, 100 iterations.

    It is .4 to .9 dB before TV's end at few views, in a tenth to a third of its time.

    Args:
        scan: `ChestScan`.
        chosen: settings of the task, `settings(task)`.

    Returns:
        (height, width, 1) attenuation relative to water.
    """
    return baseline("tv", scan, chosen._replace(tv_iterations=FIRST_STEPS))


def few_step_image(prior, scan, chosen: Settings, few: FewSteps):
    """Reconstructs a scan by plug-and-play, see `recipes.consistency_posterior`.

    Args:
        prior: trained prior over images relative to water, such as `load_prior("chest-ct-posterior")`.
        scan: `ChestScan`.
        chosen: settings of the task, of its first image.
        few: `FewSteps`.

    Returns:
        (height, width, 1) attenuation relative to water.
    """
    return few_step_posterior.few_step_image(prior, scan.likelihood(), first_image(scan, chosen), few)


def few_step_draws(
    key, prior, scan, chosen: Settings, few: FewDraws = FEW_DRAWS, draws: int = 4
) -> Posterior:
    """Draws from the posterior of a scan by few evaluations, see `recipes.consistency_posterior`.

    Args:
        key: PRNG key.
        prior: as `few_step_image`.
        scan: `ChestScan`.
        chosen: settings of the task, of its first image.
        few: `FewDraws`.
        draws: number of draws.

    Returns:
        `reconstruction.Posterior`.

    Raises:
        ValueError: see `reconstruction.posterior`.
    """
    given = prior, scan.likelihood(), first_image(scan, chosen)
    return few_step_posterior.consistency_posterior(key, *given, few, draws)

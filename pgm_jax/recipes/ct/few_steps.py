"""Consistency posterior of incomplete chest scans: two evaluations of a network that reads an early TV image."""

import functools

import jax

from pgm_jax.recipes.consistency_posterior import FIRST_STEPS, FewSteps, consistency_posterior
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


def few_step_draws(key, prior, scan, chosen: Settings, few: FewSteps, draws: int = 4) -> Posterior:
    """Draws from the posterior of a scan with one or two evaluations, see `recipes.consistency_posterior`.

    Args:
        key: PRNG key.
        prior: trained prior over images relative to water, such as `load_prior("chest-ct-posterior")`.
        scan: `ChestScan`.
        chosen: settings of the task, of its first image.
        few: `FewSteps`.
        draws: number of draws.

    Returns:
        `reconstruction.Posterior`.

    Raises:
        ValueError: see `reconstruction.posterior`.
    """
    return consistency_posterior(key, prior, scan.likelihood(), first_image(scan, chosen), few, draws)

"""The discriminator that is trained beside a student whose configuration has an adversarial term."""

import jax
import optax

from pgm_jax.core import Network, Objective
from pgm_jax.networks import patch_discriminator
from pgm_jax.recipes.prior_config import PriorConfig
from pgm_jax.training import objectives

# Of the student's parameters, those whose two gradients are weighed: every network ends in its head.
_LAST = "^head/"
_SEED = 1


def discriminator(config: PriorConfig) -> Network:
    """Builds the discriminator, of patches of 26 pixels a side.

    Args:
        config: the configuration.

    Returns:
        `Network`, see `networks.patch_discriminator`.
    """
    return patch_discriminator(config.channels * (2 if config.complex else 1))


def opposed(config: PriorConfig, objective: Objective, images) -> Objective:
    """Adds the adversarial term, its gradient at the student's head `adversarial` times the objective's.

    The term begins with step `adversarial_start`; the discriminator learns in every second step from there.

    Args:
        config: the configuration.
        objective: the few-step objective.
        images: `(params, carry, batch, key) -> images` of the student, see `objectives.adversarial`.

    Returns:
        Objective with the carry of `carried`.
    """
    weight = objectives.Adaptive(_LAST, config.adversarial)
    return objectives.adversarial(
        objective,
        images,
        discriminator(config),
        _optimiser(config),
        start=config.adversarial_start,
        weight=weight,
    )


def carried(config: PriorConfig, carry):
    """Returns the initial carry of an objective with the adversarial term.

    Args:
        config: the configuration; its seed is that of the discriminator's weights too.
        carry: carry of the objective itself.

    Returns:
        What `objectives.adversarial_carry` returns.
    """
    key = jax.random.fold_in(jax.random.key(config.seed), _SEED)
    return objectives.adversarial_carry(carry, discriminator(config).init(key), _optimiser(config))


def _optimiser(config):
    # Little momentum: the student moves between two of its steps.
    return optax.adam(config.rate, b1=0.5, b2=0.9)

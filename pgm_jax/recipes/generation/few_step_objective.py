"""Few-step objectives from a configuration, with their levels, teachers and adversarial terms."""

from collections.abc import Callable

from pgm_jax.core import Network, Objective
from pgm_jax.processes import karras, precondition
from pgm_jax.recipes.generation import adversary, classes
from pgm_jax.recipes.prior_config import PriorConfig
from pgm_jax.samplers import heun
from pgm_jax.training import objectives
from pgm_jax.training.objectives import curricula, gaps, levels

RATES = {"cd": 0.95, "lcd": 0.95, "ctm": 0.999}
"""Rates of the averaged targets by objective, as published."""

# Steps over those in which the tangent of scm is warmed up, 10,000 of 100,000 or more as published.
_WARMUP = 10


def parameterisation_of(config: PriorConfig, plain: Callable) -> Callable:
    """Returns the parameterisation of an objective: the identity at sigma_min where its grid ends there.

    Args:
        config: the configuration.
        plain: the parameterisation of the configuration.

    Returns:
        `(process, t) -> Coefficients`.
    """
    if config.objective in ("ict", "cd", "lcd"):
        return precondition.consistency(config.sigma_data, config.sigma_min)
    return plain


def objective_of(
    config: PriorConfig, process, network: Network, teacher: Network, plain: Callable
) -> Objective:
    """Builds a few-step objective, with the adversarial term where the configuration asks for it.

    Args:
        config: the configuration.
        process: its process.
        network: the student.
        teacher: the network of the starting weights.
        plain: the parameterisation of the starting weights.

    Returns:
        Objective with the carry of `few_steps.first_state`.
    """
    own, law = parameterisation_of(config, plain), levels.lognormal(config.level_mean, config.level_std)
    parts, taught = (process, network, own), objectives.Teacher(teacher, plain, heun())
    if config.objective == "scm":
        teaches = taught if config.start else None
        warmup = max(1, config.steps // _WARMUP)
        return objectives.scm(process, network, law, config.sigma_data, teacher=teaches, warmup=warmup)
    if config.objective == "meanflow":
        return objectives.meanflow(*parts, law)
    if config.objective == "ctm":
        times = karras(config.knots, config.sigma_min, config.sigma_max, process=process)[:-1][::-1]
        path, rate = objectives.Trajectory(times), curricula.constant(RATES["ctm"])
        return _opposed(
            config, objectives.ctm(*parts, path, taught, rate=rate), objectives.jump_images(*parts, path)
        )
    images = objectives.consistency_images(*parts, _gaps(config))
    return _opposed(config, _of_pairs(config, parts, taught), images)


def _of_pairs(config, parts, taught):
    """Consistency training or distillation on the pairs of levels of `_gaps`."""
    if config.objective in ("ect", "ict"):
        return objectives.consistency_training(*parts, _gaps(config))
    if config.objective == "lcd":
        taught = taught._replace(scales=config.guided, null=classes.null(config))
    rate = curricula.constant(RATES[config.objective])
    return objectives.consistency_distillation(*parts, _gaps(config), taught, rate=rate)


def _gaps(config):
    span, emphasis = (config.sigma_min, config.sigma_max), (config.level_mean, config.level_std)
    if config.objective == "ect":
        stage = curricula.stages(max(1, config.steps // config.stages), config.stages - 1)
        return gaps.relative(levels.lognormal(*emphasis), stage, 2.0)
    if config.objective == "ict":
        return gaps.on_grid(curricula.doubling(config.steps), *span, emphasis=emphasis)
    return gaps.on_grid(config.knots, *span)


def _opposed(config, objective, images):
    return adversary.opposed(config, objective, images) if config.adversarial else objective

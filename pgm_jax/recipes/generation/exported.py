"""A trained run as one file that `load_prior` reads, and back."""

import math

from pgm_jax import priors
from pgm_jax.recipes import prior_config
from pgm_jax.recipes.generation import few_steps
from pgm_jax.recipes.generation.learned_prior import channels_seen
from pgm_jax.recipes.generation.training_run import Trained

_PROCESSES = {
    "edm": lambda config: ["EDM", {}],
    "pfgmpp": lambda config: ["PFGMpp", {"D": config.D if math.isfinite(config.D) else "inf"}],
    "vp": lambda config: ["VP", {}],
    "ve": lambda config: ["VE", {"sigma_min": config.sigma_min, "sigma_max": config.sigma_max}],
    "flow": lambda config: ["FlowMatching", {}],
}


def export(trained: Trained, path, **card) -> None:
    """Writes an average of a run as a prior file, whose weights are rounded to bfloat16.

    Args:
        trained: what `load_run` returned.
        path: the `.npz` file to write.
        **card: further entries of the card: people, licence, limits.

    Raises:
        ValueError: if the network is not preconditioned as EDM's, which prior files are, or is one of lcd.
        PriorError: if a parameter is not finite.
    """
    config = trained.config
    if config.parameterisation != "edm":
        raise ValueError(
            f"a prior file holds networks with parameterisation edm, and this run has {config.parameterisation}: "
            "keep the run itself, which `pgm sample` reads too"
        )
    if config.objective == "lcd":
        raise ValueError(
            "a prior file holds no scale of guidance, which a network of lcd is told: keep the run itself, which "
            "`pgm sample` reads"
        )
    window = "99.5th percentile" if config.window is None else "{:g} to {:g} as 0 to 1".format(*config.window)
    values = prior_config.to_json(config)
    options = {"channels": channels_seen(config), **values["options"]}
    told = few_steps.conditions_of(config)
    if any(told):
        options["conditions"] = {name: size for name, size in told._asdict().items() if size}
    if config.objective != "denoising":
        card = {"objective": config.objective, "boundary": config.sigma_min} | card
    card = {
        "network": [config.network, options],
        "process": _PROCESSES[config.process](config),
        "sigma_data": config.sigma_data,
        "unit": window,
        "average": trained.average,
        "step": trained.step,
        "config": values,
        **card,
    }
    priors.save_prior(path, trained.params, card)


def load_exported(name) -> Trained:
    """Reads a shipped prior by its name, or a file that `export` wrote, with what is needed to sample it.

    Args:
        name: name of a shipped prior, or path of an `.npz` file.

    Returns:
        `Trained`.

    Raises:
        PriorError: if there is no such prior, it is damaged, or its card does not hold a configuration.
    """
    prior = priors.load_prior(name)
    card = prior.card
    if "config" not in card:
        raise priors.PriorError(
            f"the card of {name} holds no configuration, which says how large its images are: use load_prior, or "
            "export the run again"
        )
    config = prior_config.from_json(card["config"], f"the card of {name}")
    return Trained(config, prior.params, card.get("average", "weights"), card.get("step", 0))

"""Who takes part in `pgm bench fewstep`: priors, and the samplers and budgets that their objectives allow."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from pgm_jax import samplers
from pgm_jax.priors import JUMPS, LearnedPrior, PriorError, load_prior
from pgm_jax.processes import few_step_grid, karras
from pgm_jax.recipes import prior_config
from pgm_jax.recipes.prior_config import PriorConfig


class FewStepMethod(NamedTuple):
    """A sampler with its grids.

    Attributes:
        make: `gamma -> Sampler`.
        grid: `(config, process, steps, sigma_max) -> times`.
        steps: largest number of steps within a number of evaluations.
        evaluations: `steps -> calls of the network` for one image.
    """

    make: Callable
    grid: Callable
    steps: Callable
    evaluations: Callable


def _karras(config, process, steps, sigma_max):
    return karras(steps, config.sigma_min, sigma_max, process=process)


def _jumps(config, process, steps, sigma_max):
    """The last jump arrives at sigma_min, the lowest target of the training."""
    return karras(steps + 1, config.sigma_min, sigma_max, process=process)[:-1]


def _few(config, process, steps, sigma_max):
    return few_step_grid(process, steps, sigma_max, sigma_min=config.sigma_min)


def _same(steps):
    return steps


METHODS = {
    "ddim": FewStepMethod(lambda gamma: samplers.ddim(), _karras, _same, _same),
    "dpmpp_2m": FewStepMethod(lambda gamma: samplers.dpmpp_2m(), _karras, _same, _same),
    "heun": FewStepMethod(
        lambda gamma: samplers.heun(), _karras, lambda nfe: (nfe + 1) // 2, lambda steps: 2 * steps - 1
    ),
    "consistency": FewStepMethod(lambda gamma: samplers.consistency(), _few, _same, _same),
    "ctm": FewStepMethod(samplers.ctm, _jumps, _same, _same),
}
"""Samplers by name. Euler's step is DDIM's here, so it has no row of its own."""

_TEACHERS = ("ddim", "dpmpp_2m", "heun")
SAMPLERS_OF = {
    "denoising": _TEACHERS,
    "ect": ("consistency",),
    "ict": ("consistency",),
    "cd": ("consistency",),
}
SAMPLERS_OF |= {name: ("ctm",) for name in JUMPS}
"""Names of the samplers of each objective."""


class Contender(NamedTuple):
    """A prior that takes part.

    Attributes:
        name: its name or file.
        prior: `LearnedPrior`.
        config: configuration of its training: size and kind of the images, levels.
    """

    name: str
    prior: LearnedPrior
    config: PriorConfig

    @property
    def D(self) -> float:
        """Dimension of the process; infinite for Normal noise."""
        return float(getattr(self.prior.process.law, "df", math.inf))

    @property
    def kind(self) -> dict[str, Any]:
        """What all that are compared must have in common."""
        return {"unit": self.prior.unit} | {
            name: getattr(self.config, name) for name in ("size", "channels", "complex")
        }

    def denoiser(self, prior, sampler: str) -> Callable:
        """Builds what a sampler calls, inside a compiled program.

        Args:
            prior: the prior, as an argument of the program.
            sampler: name in `METHODS`.

        Returns:
            Denoiser, consistency function or jump denoiser of one image.
        """
        return prior.jump_denoiser() if sampler == "ctm" else prior.denoiser()


def contenders(teachers, students) -> list[Contender]:
    """Loads the priors and refuses what cannot be compared.

    Args:
        teachers: names or files of priors trained for denoising.
        students: names or files of few-step priors.

    Returns:
        List of `Contender`, teachers first.

    Raises:
        PriorError: for a prior that does not exist or has no configuration in its card.
        ValueError: if there is none, one has another objective than its place asks for, or images of another unit,
            size or kind than the first.
    """
    found = [*(_contender(name, True) for name in teachers), *(_contender(name, False) for name in students)]
    if not found:
        raise ValueError("there is no prior to sample: give --teachers or --students, such as chest-ct-edm")
    first = found[0]
    for other in found[1:]:
        for name, value in first.kind.items():
            if other.kind[name] != value:
                raise ValueError(
                    f"{other.name} has {name} {other.kind[name]!r} and {first.name} has {value!r}: compare priors "
                    "of the same images"
                )
    return found


def _contender(name, teacher):
    prior = load_prior(name)
    if "config" not in prior.card:
        raise PriorError(
            f"the card of {name} holds no configuration, which says how large its images are and at which levels "
            "it was trained: export the run again"
        )
    if prior.objective not in SAMPLERS_OF:
        raise ValueError(f"{name} was trained for {prior.objective}: known are {', '.join(SAMPLERS_OF)}")
    if teacher != (prior.objective == "denoising"):
        place = "students" if teacher else "teachers"
        raise ValueError(f"{name} was trained for {prior.objective}: give it under --{place}")
    config = prior_config.from_json(prior.card["config"], f"the card of {name}")
    return Contender(str(name), prior, config)


class Budget(NamedTuple):
    """A sampler with a number of evaluations.

    Attributes:
        sampler: name in `METHODS`.
        steps: its steps.
        nfe: evaluations of the network for one image.
    """

    sampler: str
    steps: int
    nfe: int


def budgets(contender: Contender, chosen, evaluations) -> list[Budget]:
    """Lists what is run of a prior: for each sampler, the largest numbers of evaluations within those asked for.

    Heun's step takes two evaluations and its last one, so that it makes 1, 3, 7, 15 and 35 of 1 or 2, 4, 8, 16, 35.

    Args:
        contender: `Contender`.
        chosen: names of samplers; those of another objective are passed over.
        evaluations: numbers of evaluations.

    Returns:
        List of `Budget`, without repetitions.

    Raises:
        ValueError: for an unknown sampler, none that fits the prior, or a number below 1, which no sampler can
            meet.
    """
    for name in chosen:
        if name not in METHODS:
            raise ValueError(f"sampler is {name!r}: choose one of {', '.join(METHODS)}")
    fitting = [name for name in SAMPLERS_OF[contender.prior.objective] if name in chosen]
    if not fitting:
        known = ", ".join(SAMPLERS_OF[contender.prior.objective])
        raise ValueError(f"no sampler is left for {contender.name}, {contender.prior.objective}: add {known}")
    if not evaluations or min(evaluations) < 1:
        raise ValueError(
            f"evaluations are {tuple(evaluations)}: no sampler can meet a budget below 1, give 1 or more"
        )
    found = []
    for name in fitting:
        for steps in dict.fromkeys(METHODS[name].steps(nfe) for nfe in evaluations):
            found.append(Budget(name, steps, METHODS[name].evaluations(steps)))
    return found

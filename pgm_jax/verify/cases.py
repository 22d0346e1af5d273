"""The rows of the exactness table: which process, law, sampler, guidance and problem meet in each."""

import math
from typing import NamedTuple

from pgm_jax import guidance as guides, processes, samplers

SAMPLERS = {
    "ancestral": lambda: samplers.ancestral(),
    "ddim": lambda: samplers.ddim(),
    "heun": lambda: samplers.heun(),
    "dpmpp_2m": lambda: samplers.dpmpp_2m(),
    "dpmpp_2s": lambda: samplers.dpmpp_2s(),
    "reverse_diffusion": lambda: samplers.reverse_diffusion(),
    "predictor_corrector": lambda: samplers.predictor_corrector(),
    "ctm": lambda: samplers.ctm(),
}

GUIDANCE = {
    "none": lambda problem: None,
    "exact": lambda problem: guides.exact(problem.prior, problem.likelihood),
    "moment_matching": lambda problem: guides.moment_matching(problem.likelihood),
    "dps": lambda problem: guides.dps(problem.likelihood),
    "dds": lambda problem: guides.dds(problem.likelihood),
    "dds_consistent": lambda problem: guides.dds(problem.likelihood, keep_noise=False),
    "pigdm": lambda problem: guides.pigdm(problem.likelihood),
    "mcg": lambda problem: guides.mcg(problem.likelihood),
    "diffpir": lambda problem: guides.diffpir(problem.likelihood, 1.0),
    "ddrm": lambda problem: guides.ddrm(problem.likelihood),
    "score_mri": lambda problem: guides.score_mri(
        problem.likelihood, problem.likelihood.operator.norm() ** -2
    ),
    "mbir": lambda problem: guides.mbir(problem.likelihood, 0.3, 1.0),
    "known_region": lambda problem: guides.known_region(*problem.known),
    # With a mask the transform is the identity.
    "song": lambda problem: guides.song(lambda x: x, lambda v: v, *problem.known, 0.84),
}

# Samplers that add noise, which only a Normal law allows.
STOCHASTIC = ("ancestral", "reverse_diffusion", "predictor_corrector")
# Guidance that renews a part of the noise, likewise; and guidance of problems with a mask alone.
REFRESHING = ("known_region", "song", "mcg", "ddrm")
MASKED = ("known_region", "song")
DIMENSIONS = (1.0, 8.0, 128.0)


class Case(NamedTuple):
    """One row before it is run; `D` is inf for Normal noise."""

    process: str = "EDM"
    D: float = math.inf
    sampler: str = "ancestral"
    guidance: str = "exact"
    prior: str = "gaussian"
    operator: str = "dense"
    steps: int = 100


def build_process(case):
    """Builds the process of a case.

    Args:
        case: `Case`; EDM at a finite D is named PFGMpp.

    Returns:
        Affine process.

    Raises:
        ValueError: for a name that the table does not know.
    """
    law = processes.StudentT(case.D)
    named = {
        "EDM": lambda: processes.EDM(law),
        "PFGMpp": lambda: processes.PFGMpp(case.D),
        "VP": lambda: processes.VP(law=law),
        "VE": lambda: processes.VE(0.002, 80.0, law=law),
        "FlowMatching": lambda: processes.FlowMatching(law=law),
    }
    if case.process not in named:
        raise ValueError(f"verify knows the processes {', '.join(named)}, not {case.process!r}.")
    return named[case.process]()


def default_cases():
    """Returns the default subset: one factor at a time around EDM, ancestral steps, exact guidance.

    Returns:
        List of `Case`.
    """
    cases = [
        Case(sampler=name, guidance="none", operator="none", steps=40)
        for name in ("ancestral", "ddim", "heun", "dpmpp_2m", "predictor_corrector")
    ]
    cases += [Case(steps=n) for n in (20, 100, 500)]
    cases += [Case(sampler="heun", steps=n) for n in (20, 80)]
    cases += [Case(process=name) for name in ("VP", "VE", "FlowMatching")]
    cases += [Case(guidance=name) for name in ("moment_matching", "dps", "dds", "dds_consistent")]
    for D in DIMENSIONS:
        cases += [
            Case("PFGMpp", D, "heun", name, steps=40) for name in ("exact", "moment_matching", "dps", "dds")
        ]
    cases += [Case(prior="mixture", guidance=name) for name in ("exact", "moment_matching", "dps", "dds")]
    cases += [Case("PFGMpp", 128.0, "heun", "exact", "mixture", steps=40)]
    cases += [Case(operator="fourier", guidance=name) for name in ("exact", "moment_matching", "dds")]
    cases += [Case(guidance=name) for name in ("pigdm", "mcg", "diffpir", "mbir")]
    cases += [
        Case(sampler="ctm", guidance="ddrm"),
        Case(operator="fourier", guidance="score_mri"),
        Case(operator="mask", guidance="song"),
    ]
    cases += [
        Case(operator="mask", guidance=name, prior=prior)
        for prior in ("gaussian", "mixture")
        for name in ("exact", "known_region")
    ]
    return cases


def all_cases():
    """Returns every valid combination, the default subset first; `--full` runs it.

    Returns:
        List of `Case`.
    """
    cases = default_cases()
    laws = [("EDM", math.inf), ("VP", math.inf), ("VE", math.inf), ("FlowMatching", math.inf)]
    laws += [("PFGMpp", D) for D in DIMENSIONS]
    for process, D in laws:
        for sampler in SAMPLERS:
            if math.isfinite(D) and sampler in STOCHASTIC:
                continue
            for name in GUIDANCE:
                # DDRM draws the next state itself, which ctm's step alone lets it do.
                if (name == "ddrm") != (sampler == "ctm"):
                    continue
                for prior in ("gaussian", "mixture"):
                    cases += _with_operators(Case(process, D, sampler, name, prior))
    return list(dict.fromkeys(cases))


def _with_operators(case):
    if case.guidance == "none":
        return [case._replace(operator="none")]
    if case.guidance in REFRESHING and math.isfinite(case.D):
        return []
    if case.guidance in MASKED:
        return [case._replace(operator="mask")]
    return [case._replace(operator=name) for name in ("dense", "fourier")]

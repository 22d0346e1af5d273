"""`pgm reconstruct --prior`: posterior draws of every slice with a report, resumed after a kill."""

import io
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax.cli.kept import Kept
from pgm_jax.data import whole_file
from pgm_jax.operators import GaussianLikelihood
from pgm_jax.priors import load_prior
from pgm_jax.recipes.consistency_posterior import FEW_DRAWS, annealed, early_tv
from pgm_jax.reconstruction import GUIDES, cg_sense, fbp, posterior, posterior_cost
from pgm_jax.report import Panel, comparison_figure, html_report

# From the start image's errors to below the noise, in units of the prior; of `pgm demo`.
_LEVELS = {"sigma_max": 1.0, "sigma_min": 0.005}
_CG_STEPS = 8
# Unit of priors of CT: images of attenuation are divided by that of water.
WATER = "attenuation of water"
# Variance that DDS gives the clean image around the network's, in sigma^2; of `pgm demo` at 4x.
_TRUST = 2.5
_STEPS, _FEW_STEPS = 50, 2


class PriorRequest(NamedTuple):
    """What `--prior` and its options asked for.

    Attributes:
        name: shipped prior or file.
        noise_std: noise of the data, per real component and in their unit.
        draws: posterior draws of each slice.
        seed: seed of the draws.
        scale: value of the image that is 1 for the prior, or None for the attenuation of water where the prior is
            in units of it, else the 99.5th percentile of the start image.
    """

    name: str
    noise_std: float | None
    draws: int
    seed: int
    scale: float | None


class Drawn(NamedTuple):
    """Posterior of all slices, in the units of the data.

    Attributes:
        starts: list of the first images, (height, width, 1).
        means: list of (height, width, 1).
        stds: list of (height, width, 1), real.
        scale: value of the image that was 1 for the prior.
        steps: sampler steps of a draw.
        seconds: seconds of each slice; the first holds the compilation, a resumed one almost none.
    """

    starts: list
    means: list
    stds: list
    scale: float
    steps: int
    seconds: list


def draw_slices(request, scan, steps, console) -> Drawn:
    """Draws from the posterior of each slice.

    A finished slice is kept in `OUT/.parts` until all are done, so a killed run goes on with the next one.

    Args:
        request: `reconstruct.Request` with a `PriorRequest`.
        scan: `reconstruction.Scan`.
        steps: sampler steps; None is 50, or 2 for a prior that reads an image.
        console: rich console.

    Returns:
        `Drawn`.

    Raises:
        ValueError: for a method, scan, noise or scale that do not fit.
    """
    asked = request.prior
    prior = load_prior(asked.name)
    steps = steps or (_FEW_STEPS if prior.reads_image else _STEPS)
    _require(request, scan, prior, steps)
    slices = [one for problem in scan.problems for one in _slices(problem)]
    starts = [_first_image(operator, y, request) for operator, y in slices]
    water = request.water if prior.unit == WATER else None
    scale = asked.scale or water or float(np.percentile(np.abs(np.stack(starts)), 99.5))
    kept, key = Kept(request, steps, scale, starts, prior), jax.random.key(asked.seed)
    console.print(
        f"{request.method} with {asked.name}: {len(slices)} slices, {asked.draws} draws of {steps} steps; "
        f"{scale:.4g} in the image is 1 for the prior ({prior.card['unit']})"
    )
    how = {"method": request.method, "draws": asked.draws} | _options(
        request.method, steps, prior.reads_image
    )
    given = lambda number: _given(slices[number], starts[number], scale, asked.noise_std, prior.reads_image)
    open_slices = [number for number in range(len(slices)) if not kept.has(number)]
    if open_slices:
        likelihood, images = given(open_slices[0])
        cost = posterior_cost(key, prior, likelihood, images=len(open_slices), **images, **how)
        console.print(_told(cost, len(open_slices)))
    means, stds, seconds = [], [], []
    for number in range(len(slices)):
        begun, found = time.perf_counter(), kept.load(number)
        if found is None:
            likelihood, images = given(number)
            found = posterior(jax.random.fold_in(key, number), prior, likelihood, **images, **how)
            found = [np.asarray(found.mean) * scale, np.asarray(found.std) * scale]
            kept.save(number, found)
        seconds.append(time.perf_counter() - begun)
        means.append(found[0])
        stds.append(found[1])
        _say(console, number, seconds, len(slices))
    kept.clear()
    return Drawn(starts, means, stds, scale, steps, seconds)


def write_report(path, request, drawn, facts) -> None:
    """Writes the HTML report: first image, mean and standard deviation of up to four slices, and what was asked.

    Args:
        path: file.
        request: `reconstruct.Request` with a `PriorRequest`.
        drawn: `Drawn`.
        facts: further rows of the table.
    """
    count = len(drawn.means)
    shown = sorted({round(k * (count - 1) / 3) for k in range(4)}) if count > 1 else [0]
    magnitudes = {
        k: [np.abs(part[k])[..., 0] for part in (drawn.starts, drawn.means, drawn.stds)] for k in shown
    }
    brightest = max(float(np.percentile(mean, 99.8)) for _, mean, _ in magnitudes.values())
    widest = max(float(np.percentile(std, 99.8)) for _, _, std in magnitudes.values())
    rows = [
        [
            Panel(start, "first image", (0, brightest)),
            Panel(mean, "posterior mean", (0, brightest)),
            Panel(std, "standard deviation", (0, widest), "magma"),
        ]
        for start, mean, std in magnitudes.values()
    ]
    picture = io.BytesIO()
    comparison_figure(rows, picture, [f"slice {k}" for k in shown], f"{request.method}, {request.prior.name}")
    about = {
        "method": request.method,
        "steps": drawn.steps,
        **request.prior._asdict(),
        **facts,
        "slices": count,
    }
    warning = (
        "Research software, not a medical device. Structures may come from the prior and not from the data."
    )
    caption = "As stored, first row at the top; grey values and standard deviation in units of the image."
    page = html_report("Posterior reconstruction", [(caption, picture.getvalue())], about, warning)
    with whole_file(path, overwrite=True) as out:
        out.write(page.encode())


def _require(request, scan, prior, steps):
    asked, kinds = request.prior, {problem.kind for problem in scan.problems}
    if request.method not in GUIDES:
        raise ValueError(
            f"{request.method} takes no --prior: use one of {', '.join(GUIDES)}, or leave it out"
        )
    if not kinds <= {"mri", "planar"} or len(scan.problems[0].operator.domain.shape) != 3:
        raise ValueError("--prior draws slices of MRI and of parallel or fan-beam CT: use a classical method")
    if prior.reads_image and (request.method != "dds" or steps not in (1, 2)):
        raise ValueError(
            f"{asked.name} reads an image and takes --method dds with --steps 1 or 2, not {request.method} with "
            f"{steps}: leave --steps out, or use another prior"
        )
    complex_prior = prior.card["network"][1].get("channels") == 2
    if complex_prior != jnp.issubdtype(scan.problems[0].operator.domain.dtype, jnp.complexfloating):
        kinds = ("complex", "real") if complex_prior else ("real", "complex")
        raise ValueError(
            f"{asked.name} knows {kinds[0]} images and this scan has {kinds[1]} ones: use another prior"
        )
    if asked.noise_std is None or not asked.noise_std > 0:
        raise ValueError(
            "--prior needs --noise-std: the data's noise per real component, above 0, in their unit"
        )
    if asked.draws < 1:
        raise ValueError(f"--draws {asked.draws}: ask for at least 1")
    if asked.scale is not None and not asked.scale > 0:
        raise ValueError(
            f"--scale {asked.scale:g}: give the positive value of the image that is 1 for the prior"
        )
    if prior.unit == WATER:
        _require_water(asked, request.water)


def _require_water(asked, water):
    if asked.scale is None and water is None:
        raise ValueError(
            f"{asked.name} knows images in units of the {WATER}: give --water, in 1/mm and about 0.02, or --scale"
        )
    if None not in (asked.scale, water) and not np.isclose(asked.scale, water, rtol=0.01):
        raise ValueError(
            f"--scale {asked.scale:g} and --water {water:g} disagree on the {WATER}, the unit of {asked.name}: "
            "give one of them"
        )


def _slices(problem):
    """Problems of one image each: the slices of a planar scan are the channels of its operator."""
    if problem.kind == "mri":
        return [(problem.operator, problem.y)]
    one = problem.operator.replace(channels=1)
    return [(one, problem.y[..., k : k + 1]) for k in range(problem.y.shape[-1])]


def _given(problem, start, scale, noise_std, reads_image):
    """Likelihood of a slice in the prior's unit, and the image that it starts from and perhaps reads."""
    operator, y = problem
    likelihood = GaussianLikelihood.create(operator, y / scale, noise_std / scale)
    if not reads_image:
        return likelihood, {"start": jnp.asarray(start / scale)}
    first = early_tv(operator, y / scale, noise_std / scale)
    return likelihood, {"start": first, "cond": {"image": first}}


def _told(cost, count):
    memory = "" if cost.memory_bytes is None else f", {cost.memory_bytes / 1e6:.0f} MB"
    return (
        f"about {cost.seconds:.0f} s for {count} slices ({cost.compile_seconds:.0f} s of it to compile, "
        f"{cost.step_seconds:.2g} s a step){memory}"
    )


def _first_image(operator, y, request):
    if hasattr(operator, "maps"):
        return np.asarray(cg_sense(operator, y, _CG_STEPS)[0])
    return np.asarray(fbp(operator, y, request.options.window))


def _options(method, steps, reads_image):
    if reads_image:
        gamma = annealed(FEW_DRAWS.trust, FEW_DRAWS.spread)
        return {"levels": FEW_DRAWS.levels[:steps], "gamma": gamma, "cg": FEW_DRAWS.cg}
    return {"steps": steps} | _LEVELS | ({"gamma": annealed(_TRUST)} if method == "dds" else {})


def _say(console, number, seconds, count):
    if number == 1 or (number == 0 and count == 1):
        left = seconds[-1] * (count - number - 1)
        console.print(f"slice {number}: {seconds[-1]:.1f} s, about {left:.0f} s left")

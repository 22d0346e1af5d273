"""Low-dose CT from itself: PPFM, PFCM and PS-PFCM tuned on `lung1`, then measured on `lung2` beside FBP, TV,
posterior draws, DDPM and Fast-DDPM.

    python benchmarks/low_dose.py tune --runs OUT                          # writes recipes/ct/low_dose.json
    python benchmarks/low_dose.py test --runs OUT --json FILE --figure FILE.png
    python benchmarks/low_dose.py export --runs OUT --json FILE            # ships PS-PFCM at D = 64 in 8 bits

OUT holds the finished runs of `train_low_dose.py`. Tuned are the level at which the image enters, the share of the
model and, for two steps, the ratio of the levels, for each method, D and dose, by the PSNR of 2000 HU.
"""

import argparse
import itertools
import json
import math
import time
from importlib.resources import files
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from held_out_chest import scans
from prior_export import FOLDER
from train_chest_prior import PLAN
from train_low_dose import NETWORK, PHOTONS, RATES, STEPS as STAGE_STEPS, finished

from pgm_jax import load_prior
from pgm_jax.priors import LearnedPrior, prior_names, save_prior
from pgm_jax.processes import PFGMpp
from pgm_jax.recipes import ct, generation
from pgm_jax.report import Panel, comparison_figure

TASKS = ("photons_20000", "photons_4000")
PICTURED = "photons_4000"
DIMENSIONS = (64.0, 128.0, math.inf)
STEPS = {"ppfm": (1, 8), "ps_pfcm": (1, 2), "pfcm": (1, 2)}
SIGMAS, WEIGHTS, RATIOS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6), (0.7, 0.85, 1.0), (0.02, 0.05, 0.1, 0.3)
METHODS = (*STEPS, "posterior", "chain")
DRAWS = 4
# Soft tissue: -160 to 240 HU, relative to water.
WINDOW = (0.84, 1.24)


def prior_of(runs, method, D):
    """The network of a method as a prior; None for an unconditional one of a D that is not shipped."""
    if method == "pfcm":
        name = {128.0: "chest-ct-pfgmpp-ect", math.inf: "chest-ct-edm-ect"}.get(D)
        return load_prior(name) if name in prior_names() else None
    stage, objective = ("few", {"objective": "ect"}) if method == "ps_pfcm" else ("tune", {})
    options = dict(PLAN.network) | {"conditions": {"image": 1}}
    card = {
        "network": ["drunet", options],
        "process": ["PFGMpp", {"D": str(D)}],
        "sigma_data": PLAN.sigma_data,
        "unit": "attenuation of water",
        "multiple": 16,
    } | objective
    params = finished(runs, stage, D)
    return LearnedPrior(params=params, process=PFGMpp(D), network=NETWORK, text=json.dumps(card))


def images(name, task, count):
    """Low-dose images and truths of evenly spaced slices of one person, and their scans."""
    found, simple = scans(name, task, count), jax.jit(ct.low_dose_image)
    low = jnp.stack([simple(scan) for scan in found])
    return low, jnp.stack([scan.truth for scan in found]), found


def scored(found, truth):
    """Mean PSNR and SSIM over slices."""
    rows = [ct.scores(image, reference) for image, reference in zip(found, truth, strict=True)]
    return {name: round(float(np.mean([row[name] for row in rows])), 3) for name in ("psnr", "ssim")}


def run(prior, low, chosen):
    """Every slice by a hijacked sampler, and the seconds a slice of a second run."""
    program = jax.jit(
        lambda prior, low: jax.vmap(lambda x: ct.hijacked(jax.random.key(0), prior, x, chosen))(low)
    )
    jax.block_until_ready(program(prior, low))
    begun = time.perf_counter()
    found = jax.block_until_ready(program(prior, low))
    return found, round((time.perf_counter() - begun) / len(low), 3)


def candidates(steps):
    """Settings to try; one step needs no ratio, and its blends follow from the unblended image."""
    if steps == 1:
        return [ct.Hijack(sigma, 1.0, 1) for sigma in SIGMAS]
    ratios = RATIOS if steps == 2 else (0.6,)
    return [ct.Hijack(sigma, 1.0, steps, ratio) for sigma in SIGMAS[2:5] for ratio in ratios]


def tuned(prior, low, truth, steps):
    """The settings of the highest PSNR and that PSNR."""
    best = []
    for chosen in candidates(steps):
        found, _ = run(prior, low, chosen)
        for weight in WEIGHTS if steps == 1 else (chosen.weight,):
            blended = weight * found + (1 - weight) * low if steps == 1 else found
            best.append((scored(blended, truth)["psnr"], chosen._replace(weight=weight)))
    return max(best, key=lambda pair: pair[0])


def tune(runs, methods, tasks):
    """Writes the settings of methods, for every D, number of steps and given dose; others stay as they are."""
    path = files("pgm_jax.recipes.ct").joinpath("low_dose.json")
    table = json.loads(path.read_text())["settings"] if path.is_file() else {}
    for task in tasks:
        low, truth, _ = images("lung1", task, 2)
        for method, D in itertools.product(methods, DIMENSIONS):
            prior = prior_of(runs, method, D)
            for steps in STEPS[method] if prior else ():
                psnr, chosen = tuned(prior, low, truth, steps)
                table[f"{method}-{D:g}-{steps}-{task}"] = chosen._asdict()
                print(task, method, D, steps, psnr, chosen, flush=True)
    text = {"person": "lung1", "command": "python benchmarks/low_dose.py tune --runs OUT", "settings": table}
    path.write_text(json.dumps(text, indent=1) + "\n")


def chain_rows(runs, low, truth):
    """DDPM of 1000 steps and Fast-DDPM on both grids, with the seconds a slice."""
    rows = {}
    for name, grid, given in (
        ("fast-ddpm, 10 (nonuniform)", generation.fast_ddpm(10), ("fast", math.inf, "nonuniform")),
        ("fast-ddpm, 11 (uniform)", generation.fast_ddpm(10, "uniform"), ("fast", math.inf, "uniform")),
        ("ddpm, 1000", generation.full_ddpm(), ("ddpm",)),
    ):
        params = finished(runs, *given)
        program = jax.jit(
            lambda params, low, grid=grid: generation.translate(jax.random.key(0), grid, NETWORK, params, low)
        )
        compiled = program.lower(params, low).compile()
        begun = time.perf_counter()
        found = jax.block_until_ready(compiled(params, low))
        seconds = round((time.perf_counter() - begun) / len(low), 3)
        rows[name] = scored(found, truth) | {"evaluations": grid.evaluations, "seconds a slice": seconds}
        print(name, rows[name], flush=True)
    return rows


def posterior_rows(runs, low, truth):
    """One draw and the mean of 35 evaluations for each D, and panels of D = 64."""
    rows, panels = {}, {}
    for D in DIMENSIONS:
        prior = prior_of(runs, "ppfm", D)
        draw = jax.jit(lambda prior, x: ct.posterior_images(jax.random.key(1), prior, x, DRAWS))
        drawn = jnp.stack([draw(prior, x) for x in low])
        rows[f"posterior, D = {D:g}, 35: one draw"] = scored(drawn[:, 0], truth)
        rows[f"posterior, D = {D:g}, 35: mean of {DRAWS}"] = scored(drawn.mean(1), truth)
        if D == 64.0:
            panels = {"posterior draw, NFE 35": drawn[0, 0], "posterior mean": drawn[0].mean(0)}
    return rows, panels


def table(runs, task, count, methods):
    """Rows of one dose, and panels of its first slice."""
    low, truth, found = images("lung2", task, count)
    classical = jnp.stack([ct.baseline("tv", scan, ct.settings(task)) for scan in found])
    filtered = ct.Settings(filter="hann", cutoff=1.0)
    fbp = jnp.stack([ct.baseline("fbp", scan, filtered) for scan in found])
    rows = {"fbp": scored(fbp, truth), "low dose (PWLS)": scored(low, truth), "tv": scored(classical, truth)}
    panels = {"truth": truth[0], "low dose (PWLS)": low[0], "TV": classical[0]}
    for method, D in itertools.product([name for name in methods if name in STEPS], DIMENSIONS):
        prior = prior_of(runs, method, D)
        for steps in STEPS[method] if prior else ():
            image, seconds = run(prior, low, ct.hijack_settings(f"{method}-{D:g}-{steps}-{task}"))
            rows[f"{method}, D = {D:g}, {steps}"] = scored(image, truth) | {"seconds a slice": seconds}
            if (method, D) == ("ps_pfcm", 64.0):
                panels[f"PS-PFCM, D = 64, NFE {steps}"] = image[0]
    if "posterior" in methods:
        drawn, more = posterior_rows(runs, low, truth)
        rows, panels = rows | drawn, panels | more
    print(task, json.dumps(rows, indent=1), flush=True)
    if "chain" in methods:
        rows |= chain_rows(runs, low, truth)
    return rows, panels


def export(runs, path):
    """Writes the shipped PS-PFCM with its card; `path` holds what `test` measured."""
    prior, shipped = prior_of(runs, "ps_pfcm", 64.0), load_prior("chest-ct-pfgmpp").card
    measured = json.loads(path.read_text())[PICTURED]
    card = shipped | prior.card | {
        "images": "2-D slices of a chest and upper abdomen CT, given their low-dose image in cond['image']: "
        "penalised weighted least squares of 120 views (recipes.ct.low_dose_image)",
        "start": "chest-ct-edm, then train_low_dose.py: base, tune --D 64, few --D 64",
        "plan": {stage: [STAGE_STEPS[stage], RATES[stage]] for stage in ("base", "tune", "few")},
        "doses": f"{PHOTONS[0]:g} to {PHOTONS[1]:g} photons a ray",
        "step": STAGE_STEPS["few"],
        "command": "python benchmarks/train_low_dose.py --runs RUNS --out OUT --stage base; --stage tune --D 64; "
        "--stage few --D 64; python benchmarks/low_dose.py export --runs OUT --json FILE",
        "psnr_db_of_lung2_at_4000_photons": {
            name: row["psnr"] for name, row in measured.items() if "D = 64" in name or "D" not in name
        },
    }  # fmt: skip
    # No configuration: `pgm sample` and the posterior of raw data have no low-dose image to give.
    for absent in ("posterior_psnr_db", "denoising_psnr_db", "audit", "loss", "config"):
        card.pop(absent, None)
    save_prior(FOLDER / "chest-ct-low-dose.npz", prior.params, card, bits=8)


def main():
    """Tunes, tests or exports."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=("tune", "test", "export"))
    parser.add_argument("--runs", required=True)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--slices", type=int, default=6)
    given = parser.parse_args()
    if given.verb == "tune":
        return tune(given.runs, [method for method in given.methods if method in STEPS], given.tasks)
    if given.verb == "export":
        return export(given.runs, given.json)
    result = json.loads(given.json.read_text()) if given.json.exists() else {}
    for task in given.tasks:
        rows, panels = table(given.runs, task, given.slices, given.methods)
        result[task] = result.get(task, {}) | rows
        given.json.write_text(json.dumps(result, indent=1) + "\n")
        if given.figure and task == PICTURED:
            line = [Panel(np.asarray(x)[..., 0], name, WINDOW) for name, x in panels.items()]
            heading = "lung2, 4,000 photons a ray; window -160 to 240 HU"
            comparison_figure([line[:4], line[4:]], given.figure, ["", ""], heading)


if __name__ == "__main__":
    main()

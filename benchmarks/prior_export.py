"""What the exports of the shipped priors share: choice of D, denoising curve, audit, model card and files."""

import argparse
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from prior_training import averaged, folder, network_of

import pgm_jax
from pgm_jax import data, samplers
from pgm_jax.priors import LearnedPrior, load_prior, save_prior
from pgm_jax.processes import PFGMpp, karras
from pgm_jax.recipes import prior_config

SIGMAS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
SAMPLES = 16
DIMENSIONS = (64.0, 128.0, math.inf)
LEVELS = {"sigma_min": 0.005, "sigma_max": 20.0}
FOLDER = Path(pgm_jax.__file__).parent / "priors" / "weights"


def export(
    description,
    plan,
    name,
    script,
    *,
    psnr,
    truths,
    volumes,
    facts,
    dtype=jnp.float32,
    tuned=DIMENSIONS,
    bits=8,
):
    """Writes `NAME-pfgmpp.npz`, D being the finite one of the highest PSNR, and `NAME-edm.npz` (D = inf).

    Args:
        description: docstring of the script.
        plan: `Plan` of the training.
        name: first part of the names.
        script: `SCRIPT` of `train_SCRIPT_prior.py`.
        psnr: `(prior) -> {task: dB}` on validation people.
        truths: `() -> images` of validation people.
        volumes: `() -> volumes`, with whose places samples are compared.
        facts: entries of the card on images, people and limits.
        dtype: dtype of the images.
        tuned: D of the runs.
        bits: of a weight of the first file; 8 cost at most .07 dB of denoising.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", required=True)
    runs = parser.parse_args().runs
    candidates = {D: trained(plan, runs, D) for D in tuned}
    chosen = {f"{D:g}": psnr(prior) for D, prior in candidates.items()}
    print(chosen, flush=True)
    finite = max((D for D in tuned if math.isfinite(D)), key=lambda D: sum(chosen[f"{D:g}"].values()))
    images, places = truths(), volumes()
    for shipped, D in ((f"{name}-pfgmpp", finite), (f"{name}-edm", math.inf)):
        audit_card, drawn = audit(candidates[D], plan, places, images, dtype)
        np.save(Path(runs) / f"{shipped}-samples.npy", drawn)
        command = f"python benchmarks/train_{script}_prior.py --out RUNS; then --D "
        command += f"{D:g} --start inf; python benchmarks/export_{script}_prior.py --runs RUNS"
        measured = {"posterior_psnr_db": chosen, "denoising_psnr_db": curve(candidates[D], images)}
        written = card(plan, D, runs, **facts, command=command, **measured, audit=audit_card)
        path = FOLDER / f"{shipped}.npz"
        save_prior(path, candidates[D].params, written, bits=bits if math.isfinite(D) else 8)
        print(shipped, path.stat().st_size, json.dumps(load_prior(shipped).card, indent=1))


def trained(plan, runs, D):
    """The fine-tuned prior of one D, with the least card that works."""
    params = averaged(plan, runs, D, math.inf)
    text = json.dumps(
        {
            "sigma_data": plan.sigma_data,
            "multiple": 16,
            "network": ["drunet", plan.network],
            "unit": "of the training",
        }
    )
    return LearnedPrior(params=params, process=PFGMpp(D), network=network_of(plan), text=text)


def curve(prior, images):
    """Mean denoising PSNR (peak 1) at each level of Normal noise, in dB."""
    denoise = prior.denoiser()

    @jax.jit
    def psnr(image, sigma, key):
        noisy = PFGMpp(math.inf).perturb(key, image, sigma)
        components = 2 if jnp.iscomplexobj(image) else 1
        return -10 * jnp.log10(jnp.mean(jnp.abs(denoise(noisy, sigma) - image) ** 2) / components)

    mean = lambda sigma: np.mean([psnr(image, jnp.float32(sigma), jax.random.key(1)) for image in images])
    return {str(sigma): round(float(mean(sigma)), 2) for sigma in SIGMAS}


def audit(prior, plan, volumes, images, dtype):
    """Correlation of samples with their nearest training patch, beside that of patches of other people."""
    side = plan.patch
    draw = jax.jit(
        lambda key: samplers.sample(
            key,
            samplers.heun(),
            prior.denoiser(),
            prior.process,
            karras(24, **LEVELS),
            shape=(SAMPLES, side, side, 1),
            dtype=dtype,
        )
    )
    drawn = np.abs(np.asarray(draw(jax.random.key(0))))[..., 0]
    rng = np.random.default_rng(0)
    others = []
    while len(others) < SAMPLES:
        image = np.abs(np.asarray(images[len(others) % len(images)]))[..., 0]
        row, column = (rng.integers(n - side) for n in image.shape)
        patch = image[row : row + side, column : column + side]
        if np.mean(patch > 0.05) > 0.5:
            others.append(patch)
    summary = lambda values: [round(float(v), 3) for v in np.quantile(values, (0.5, 1.0))]
    return {
        "measure": "normalised correlation with the nearest place of any training slice: median, largest",
        "samples": summary(_nearest(drawn, volumes, side)),
        "patches of other people": summary(_nearest(others, volumes, side)),
    }, drawn


def _nearest(patches, volumes, side):
    """Largest normalised correlation of each patch with any place of any training slice, mirrored or not."""
    from skimage.feature import match_template

    best = np.zeros(len(patches))
    for volume in volumes:
        for plane in volume[::3]:
            if min(plane.shape) < side or np.mean(plane > 0.05) < 0.1:
                continue
            for number, patch in enumerate(patches):
                for turned in (patch, patch[:, ::-1]):
                    best[number] = max(best[number], match_template(plane, turned).max())
    return best


def config(plan, D):
    """What `pgm sample` needs to know: size and kind of the images, network and levels."""
    return prior_config.PriorConfig(
        data=tuple(name for name, _, _ in plan.sources),
        size=(plan.patch, plan.patch),
        framing="patches",
        complex=plan.network["channels"] == 2,
        process="pfgmpp" if math.isfinite(D) else "edm",
        D=D if math.isfinite(D) else None,
        level_mean=plan.levels[0],
        level_std=plan.levels[1],
        sigma_data=plan.sigma_data,
        **LEVELS,
        network="drunet",
        options={name: value for name, value in plan.network.items() if name != "channels"},
        batch=plan.batch,
        steps=plan.base["steps"] + plan.tune["steps"],
    )


def card(plan, D, runs, **facts):
    """The model card: what is known of the training, and `facts` of the images, people and figures."""
    log = (folder(runs, math.inf, None) / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line) for line in log]
    return {
        "network": ["drunet", plan.network],
        "process": ["PFGMpp", {"D": str(D)}],
        "sigma_data": plan.sigma_data,
        "multiple": 16,
        "levels": f"ln(sigma) ~ N({plan.levels[0]}, {plan.levels[1]}^2)",
        "sources": {name: data.describe(name).carrier.licence for name, _, _ in plan.sources},
        "config": prior_config.to_json(config(plan, D)),
        "step": plan.base["steps"] + plan.tune["steps"],
        "plan": [plan.base, plan.tune],
        "patches": f"{plan.patch} x {plan.patch}, batches of {plan.batch}",
        "loss": {str(row["step"]): round(row["loss"], 4) for row in losses[19::40]},
        "warning": "research software, not a medical device",
    } | facts

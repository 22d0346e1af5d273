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
# # MRI: what a quarter of k-space leaves open
#
# A reconstruction is one image; a posterior is all images that fit the data and look like a brain. This notebook
# draws from it with the shipped PFGM++ prior, and asks how far its spread can be trusted. The anatomy is real
# (`colin27`, whom the prior never saw); phase, coils and noise are simulated.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from pgm_jax import load_prior, metrics, operators, reconstruction
from pgm_jax.recipes import mri

brain = mri.brain_slices("colin27", 3)
scan = mri.undersampled_scan(jax.random.key(0), jnp.asarray(brain.magnitude[1]), acceleration=4)
truth, A = scan.truth, scan.operator
height, width = truth.shape[:2]
SIGNAL = "signal over the 99.5th percentile"


def show(axis, image, title="", high=1.2, cmap="gray", low=0.0):
    """An axial slice: anterior on top, the patient's right on the left; the axes are mm from the centre."""
    y, x = height / 2 * brain.spacing[0], width / 2 * brain.spacing[1]
    picture = axis.imshow(np.squeeze(image), cmap, vmin=low, vmax=high, extent=(-x, x, y, -y))
    axis.set(title=title, xlabel="R    mm    L", ylabel="P    mm    A")
    axis.set(xticks=(-50, 0, 50), yticks=(-100, -50, 0, 50, 100))
    return picture


# %% [markdown]
# ## 1. Draws in one call
#
# A likelihood says how the data came about, a prior what images are like. `posterior` runs all draws as one
# compiled program: a new scan of this size, new weights or another D do not compile again. `gamma` is the variance
# that DDS gives the true image around the network's at each noise level; 2.5 sigma^2 was chosen on other people.

# %%
prior = load_prior("brain-t1-pfgmpp")
print(prior.card["images"], "| D =", prior.process.law.df, "|", prior.card["people"])
likelihood = operators.GaussianLikelihood.create(A, scan.y, scan.noise_std)
first = reconstruction.cg_sense(A, scan.y, 7)[0]
tv = reconstruction.tv(A, scan.y, 0.002, 200, balance=8.0)[0]


def annealed(process, t):
    return 2.5 * process.sigma(t) ** 2


settings = {"gamma": annealed, "cg": 10, "sigma_min": 0.005, "sigma_max": 1.0, "steps": 20, "draws": 6}
found = reconstruction.posterior(jax.random.key(1), prior, likelihood, start=first, **settings)

images = {"truth": truth, "CG-SENSE": first, "TV": tv, "one draw": found.draws[0], "mean of 6": found.mean}
figure, axes = plt.subplots(2, len(images), figsize=(3.2 * len(images), 6.8), layout="constrained")
for column, (name, image) in zip(axes.T, images.items(), strict=True):
    title = name if image is truth else f"{name}: {mri.scores(image, truth)['psnr']:.1f} dB"
    above = show(column[0], jnp.abs(image), title)
    below = show(column[1], jnp.abs(image) - jnp.abs(truth), "error", 0.2, "RdBu_r", -0.2)
for row, picture in zip(axes, (above, below), strict=True):
    plt.colorbar(picture, ax=row, label=SIGNAL, shrink=0.8)

# %% [markdown]
# The mean of the draws is nearer to the truth than any of them: it is the estimate of least squared error. A
# single draw has the sharpness of a real image, and details that the data do not hold.
#
# ## 2. Does the spread know the error?
#
# Where the draws differ, the mean should be wrong. The standard deviation is per real component.

# %%
error = jnp.abs(found.mean - truth) / np.sqrt(2)
figure, axes = plt.subplots(1, 3, figsize=(14, 4.4), layout="constrained")
for axis, (name, image) in zip(
    axes[:2], {"standard deviation of 6 draws": found.std, "error of their mean": error}.items(), strict=True
):
    plt.colorbar(show(axis, image, name, 0.06, "magma"), ax=axis, label=SIGNAL)
body = np.abs(found.mean) > 0.05
order = np.argsort(np.asarray(found.std)[body])
groups = np.array_split(order, 20)
spread = [np.sqrt(np.mean(np.asarray(found.std)[body][g] ** 2)) for g in groups]
wrong = [np.sqrt(np.mean(np.asarray(error)[body][g] ** 2)) for g in groups]
axes[2].plot(spread, wrong, "o-", label="pixels in 20 groups")
axes[2].plot([0, max(spread)], [0, max(spread)], "k:", label="honest")
axes[2].set(xlabel="standard deviation of the draws", ylabel="root mean square error")
axes[2].legend()

# %% [markdown]
# The order is right, the size is not: these draws are too sure of themselves, and nothing in the method promised
# otherwise. `metrics.conformal_factor` finds the factor that makes intervals cover on people with known truth,
# however wrong the model is. Here eight slices of a validation person calibrate, and the test person checks.

# %%
draw = jax.jit(lambda key, prior, scan: mri.posterior_draws(key, prior, scan, chosen))
chosen = mri.settings(4)._replace(steps=8, draws=3)


def intervals(name, count):
    """Mean, standard deviation and truth of the magnitude, stacked over slices of one person."""
    rows = []
    for number, magnitude in enumerate(mri.brain_slices(name, count).magnitude):
        one = mri.undersampled_scan(jax.random.key(number), jnp.asarray(magnitude), 4, mask_seed=number)
        absolute = np.abs(draw(jax.random.key(number), prior, one))
        rows.append((absolute.mean(0), absolute.std(0, ddof=1), np.abs(one.truth)))
    return [np.stack(part) for part in zip(*rows, strict=True)]


known, test = intervals("brain1", 8), intervals("colin27", 2)
factor = metrics.conformal_factor(*known, level=0.8, mask=known[0] > 0.05)
for name, q in {"normal law, 1.28 deviations": 1.28, f"calibrated, {factor:.2f}": factor}.items():
    inside = 1 - metrics.miscoverage(*test, q, mask=test[0] > 0.05)
    print(f"{name}: {100 * inside.mean():.1f} % of the pixels of colin27 inside, 80 % asked")

# %% [markdown]
# ## 3. What was never measured
#
# Part of an image is invisible to the scanner, `x - A^+ A x`. The spread there comes from the prior alone: a
# structure of that size may be invented, and no statistic of the data can tell.

# %%
energy, share = reconstruction.null_space_energy(A, found.draws, steps=30)
figure, axes = plt.subplots(1, 2, figsize=(10, 4.4), layout="constrained")
plt.colorbar(
    show(axes[0], jnp.sqrt(energy), f"unseen: {100 * share:.0f} % of the variance", 0.06, "magma"),
    ax=axes[0], label=SIGNAL,
)  # fmt: skip
unseen = reconstruction.null_space(A, truth, steps=30)
plt.colorbar(show(axes[1], jnp.abs(unseen), "unseen part of the truth", 0.5), ax=axes[1], label=SIGNAL)

# %% [markdown]
# ## 4. Other methods, another trajectory
#
# A method is a name; the prior, the operator and the sampler stay. Spokes at the golden angle need another
# operator and nothing else.

# %%
few = settings | {"draws": 2, "steps": 10}
del few["gamma"]
for method, options in {"diffpir": {"strength": 1.0}, "dds": {"gamma": annealed}}.items():
    other = reconstruction.posterior(
        jax.random.key(1), prior, likelihood, method=method, start=first, **(few | options)
    )
    print(f"{method:10s} mean of 2 draws {mri.scores(other.mean, truth)['psnr']:.2f} dB")

spokes = mri.radial_scan(jax.random.key(0), jnp.asarray(brain.magnitude[1]), spokes=48)
radial = operators.GaussianLikelihood.create(spokes.operator, spokes.y, spokes.noise_std)
start = reconstruction.cg_sense(spokes.operator, spokes.y, 7)[0]
drawn = reconstruction.posterior(jax.random.key(1), prior, radial, start=start, **(few | {"gamma": annealed}))
figure, axes = plt.subplots(1, 3, figsize=(12, 4), layout="constrained")
for axis, (name, image) in zip(
    axes, {"truth": truth, "48 spokes, CG-SENSE": start, "mean of 2 draws": drawn.mean}.items(), strict=True
):
    psnr = mri.scores(image, truth)["psnr"]
    show(axis, jnp.abs(image), name if image is truth else f"{name}: {psnr:.1f} dB")

# %% [markdown]
# From the command line, with a report: `pgm reconstruct scan.h5 --prior brain-t1-pfgmpp --noise-std 0.01`. Research
# software: structures may come from the prior and not from the data.

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
# # First steps: compose a posterior sampler by hand
#
# Five parts meet here: a **process**, an exact **prior** (a trained network works the same), a **sampler** on a
# **grid**, and **guidance** by a measurement. The image is a real brain slice; the coils, the phase and the noise are
# simulated, because no package ships raw k-space.

# %%
import math

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from pgm_jax import guidance, metrics, operators, processes, samplers
from pgm_jax.recipes import mri

brain = mri.brain_slices("colin27", 3)
truth = jnp.asarray(brain.magnitude[1]).astype(jnp.complex64)
print(truth.shape, brain.spacing, "mm; 1 is the 99.5th percentile of the volume")

# %% [markdown]
# ## 1. A process corrupts the image
#
# `x_t = x0 + t noise`. With Student-t noise of D degrees of freedom this is PFGM++ (r = t sqrt(D)); D = inf is EDM. At a
# small D the radius of the noise differs from draw to draw.

# %%
figure, axes = plt.subplots(1, 4, figsize=(10, 3.2))
for axis, D in zip(axes, (2.0, 64.0, 2048.0, math.inf)):
    noisy = processes.PFGMpp(D=D).perturb(jax.random.key(2), truth, 0.2)
    axis.imshow(np.abs(noisy[..., 0]), cmap="gray", vmin=0, vmax=1.2)
    axis.set_title(f"D = {D:g}, t = 0.2")
    axis.axis("off")

# %% [markdown]
# ## 2. A prior gives the way back
#
# The stationary Gaussian below was fitted in closed form to other people's slices. Its denoiser, the posterior mean of
# the clean image, is exact for every process: a Wiener filter, averaged over the radius where D is finite.

# %%
prior = mri.brain_prior(truth.shape, brain.spacing, like=truth.real)
process = processes.PFGMpp(D=64.0)
denoise = prior.denoiser(process)

noisy = process.perturb(jax.random.key(2), truth, 0.2)
denoised = jax.jit(denoise)(noisy, 0.2)
for name, image in (("noisy", noisy), ("denoised", denoised)):
    print(f"{name}: relative error {jnp.linalg.norm(image - truth) / jnp.linalg.norm(truth):.3f}")

# %% [markdown]
# ## 3. A sampler moves a state along a grid of times
#
# `sample` is one scan in one compiled program. Without guidance it draws from the prior: textures with the brain's power
# spectrum, and no anatomy, since that is all a stationary Gaussian knows.

# %%
grid = processes.karras(20, sigma_min=0.005, sigma_max=20.0)


@jax.jit
def prior_draws(key, process):
    return samplers.sample(
        key,
        samplers.heun(),
        prior.denoiser(process),
        process,
        grid,
        shape=(2, *truth.shape),
        dtype=jnp.complex64,
    )


draws = prior_draws(jax.random.key(3), process)
figure, axes = plt.subplots(1, 2, figsize=(6, 3.5))
for axis, image in zip(axes, draws):
    axis.imshow(np.abs(image[..., 0]), cmap="gray")
    axis.axis("off")

# %% [markdown]
# ## 4. An operator measures, and guidance follows the measurement
#
# A quarter of the k-space lines from four coils. `dds` corrects the clean image with a few conjugate gradient steps; it is
# valid for every noise law. A guidance that the law cannot follow refuses, and says why.

# %%
scan = mri.undersampled_scan(jax.random.key(4), jnp.abs(truth), acceleration=4)
likelihood = operators.GaussianLikelihood.create(scan.operator, scan.y, scan.noise_std)
print("adjoint gap", operators.adjoint_gap(scan.operator, jax.random.key(5)))


@jax.jit
def posterior_draws(key, process, likelihood):
    return samplers.sample(
        key,
        samplers.ddim(),
        prior.denoiser(process),
        process,
        grid,
        shape=(4, *truth.shape),
        dtype=jnp.complex64,
        guidance=guidance.dds(likelihood, gamma=lambda process, t: 0.05 * t**2 / (t**2 + 0.05), steps=5),
    )


draws = posterior_draws(jax.random.key(6), process, likelihood)

try:
    samplers.sample(
        jax.random.key(6),
        samplers.ancestral(),
        denoise,
        process,
        grid,
        shape=(1, *truth.shape),
        dtype=jnp.complex64,
    )
except ValueError as refusal:
    print("refused:", refusal)

# %% [markdown]
# ## 5. Look at it, and score it
#
# The mean of a few draws, their spread, and the zero-filled image. A stationary Gaussian is a weak prior: tuned total
# variation beats it, as the table of `pgm demo` says.

# %%
zero_filled = scan.operator.adjoint(scan.y)
shown = {
    "truth": scan.truth,
    "zero-filled": zero_filled,
    "one draw": draws[0],
    "mean of 4": draws.mean(axis=0),
}
figure, axes = plt.subplots(1, 5, figsize=(13, 3.4))
for axis, (name, image) in zip(axes, shown.items()):
    quality = metrics.psnr(jnp.abs(image), jnp.abs(scan.truth), jnp.abs(scan.truth).max())
    axis.imshow(np.abs(image[..., 0]), cmap="gray", vmin=0, vmax=1.2)
    axis.set_title(name if name == "truth" else f"{name}: {quality:.1f} dB")
    axis.axis("off")
axes[4].imshow(np.abs(draws[..., 0]).std(axis=0), cmap="magma")
axes[4].set_title("spread of the draws")
axes[4].axis("off")

# %% [markdown]
# ## Where to go next
#
# `pgm list` names every part, `pgm show guidance.dds` documents one, and `pgm verify` prints how far each sampler and
# guidance is from exact posteriors.

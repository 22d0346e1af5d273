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
# # MRI: from k-space of several coils to an image
#
# A quarter of the k-space lines of a real brain slice, then spokes through the centre of k-space: CG-SENSE,
# wavelet compressed sensing and total variation (TV). The anatomy is real; phase, coils and noise are simulated,
# because no package ships raw k-space. Steps and weights below were chosen by PSNR on a slice of another person
# (`brain1`), for the same scan.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from pgm_jax import operators, reconstruction
from pgm_jax.recipes import mri

brain = mri.brain_slices("colin27", 3)
magnitude = jnp.asarray(brain.magnitude[1])
height, width = magnitude.shape[:2]
phase = mri.smooth_phase(jax.random.key(1), height, width)[..., None]
truth = (magnitude * jnp.exp(1j * phase)).astype(jnp.complex64)
SIGNAL = "signal over the 99.5th percentile"


def show(axis, image, title="", high=1.2, cmap="gray", low=0.0):
    """An axial slice: anterior on top, the patient's right on the left; the axes are mm from the centre."""
    y, x = height / 2 * brain.spacing[0], width / 2 * brain.spacing[1]
    picture = axis.imshow(np.squeeze(image), cmap, vmin=low, vmax=high, extent=(-x, x, y, -y))
    axis.set(
        title=title,
        xlabel="R    mm    L",
        ylabel="P    mm    A",
        xticks=(-50, 0, 50),
        yticks=(-100, -50, 0, 50, 100),
    )
    return picture


def compare(images):
    """Magnitudes above, their errors below."""
    figure, axes = plt.subplots(2, len(images), figsize=(3.2 * len(images), 6.8), layout="constrained")
    for column, (name, image) in zip(axes.T, images.items(), strict=True):
        score = mri.scores(image, truth)
        above = show(column[0], jnp.abs(image), f"{name}: {score['psnr']:.1f} dB")
        below = show(column[1], jnp.abs(image) - magnitude, "error", 0.2, "RdBu_r", -0.2)
        print(f"{name:22s} PSNR {score['psnr']:.2f} dB, SSIM {score['ssim']:.3f}")
    for row, picture in zip(axes, (above, below), strict=True):
        plt.colorbar(picture, ax=row, label=SIGNAL, shrink=0.8)


# %% [markdown]
# ## 1. A scan
#
# `Sense` maps an image to the k-space of every coil, `M F (S_c x)`. Eight coils lie around the head; the mask
# takes a quarter of the columns, with a tenth of all columns in the centre.

# %%
coils = operators.birdcage_maps(8, height, width)
mask = operators.random_mask(0, width, acceleration=4, centre_fraction=0.1)
scanner = operators.Sense.create(coils, mask)
y = operators.measure(jax.random.key(2), scanner, truth, noise_std=0.01, weights=mask)
print(f"{int(mask.sum())} of {width} columns; adjoint gap", operators.adjoint_gap(scanner, jax.random.key(3)))

figure, axes = plt.subplots(1, 3, figsize=(14, 4), layout="constrained")
plt.colorbar(show(axes[0], magnitude, "magnitude"), ax=axes[0], label=SIGNAL)
inside = magnitude > 0.05
picture = show(axes[1], jnp.where(inside, jnp.angle(truth), jnp.nan), "phase", np.pi, "twilight", -np.pi)
plt.colorbar(picture, ax=axes[1], label="radians")
band = [0.5 / step for step in brain.spacing]  # cycles per mm
picture = axes[2].imshow(np.log10(np.abs(y[0]) + 1e-3), extent=(-band[1], band[1], band[0], -band[0]))
axes[2].set(title="k-space of the first coil", xlabel="cycles per mm", ylabel="cycles per mm")
plt.colorbar(picture, ax=axes[2], label="log10 |signal|")

# %% [markdown]
# ## 2. Coil maps from the scan itself
#
# A real scan does not come with maps. ESPIRiT finds them in the fully sampled centre, up to a phase that all
# coils share. Far from the head it finds no signal and gives 0, and so will every image below.

# %%
centre = operators.calibration_region(y, (24, round(0.1 * width)))
maps, eigenvalue = operators.espirit_maps(centre, (height, width))
aligned = maps * jnp.exp(-1j * jnp.angle(jnp.sum(maps * coils.conj(), axis=0)))
print(f"mean error of the maps inside the head: {jnp.abs(aligned - coils)[:, inside[..., 0]].mean():.4f}")

figure, axes = plt.subplots(1, 3, figsize=(14, 4), layout="constrained")
show(axes[0], np.abs(coils[0]), "first coil, birdcage", 0.8, "viridis")
picture = show(axes[1], jnp.abs(maps[0]), "first coil, ESPIRiT", 0.8, "viridis")
plt.colorbar(picture, ax=axes[:2], label="sensitivity, no unit")
plt.colorbar(
    show(axes[2], eigenvalue, "largest eigenvalue", 1, "magma"),
    ax=axes[2],
    label="1: signal, below 0.95: none",
)

# %% [markdown]
# ## 3. A quarter of the lines
#
# The zero-filled image folds onto itself. CG-SENSE lets the coils tell the folds apart, and stops early, since
# its last steps amplify noise. Wavelets and TV add what images are like: few large details. Each solver takes the
# operator and the data, and returns the image and a trace.

# %%
A = operators.Sense.create(maps, mask)


@jax.jit
def cartesian(A, y):
    wavelets = reconstruction.wavelet_cs(A, y, 0.004, 60, key=jax.random.key(4))
    return reconstruction.cg_sense(A, y, 7), wavelets, reconstruction.tv(A, y, 0.002, 200, balance=8.0)


found = dict(zip(("CG-SENSE", "wavelets", "TV"), cartesian(A, y), strict=True))
compare(
    {"zero-filled": reconstruction.zero_filled(A, y)} | {name: image for name, (image, _) in found.items()}
)

# %% [markdown]
# The objectives of the three are different functions; each falls. That of the wavelets is measured on a grid that
# a random shift moves in every step, so it trembles.

# %%
figure, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
for name, (_, trace) in found.items():
    axis.loglog(np.arange(1, len(trace.objective) + 1), trace.objective, label=name)
axis.set(xlabel="step", ylabel="objective")
axis.legend()
plt.show()

# %% [markdown]
# ## 4. Spokes
#
# 48 radial spokes at the golden angle are a seventh of what full sampling needs. `NonCartesian` is the same model
# with a non-uniform FFT; conjugate gradients use its convolution form. Gridding weighs every sample by its area
# of k-space and goes back once: fast, with streaks. The same weights inside the least squares make CG need a
# quarter of the steps, at the price of more noise.

# %%
spokes = operators.radial(48, 2 * height, (height, width), golden=True)
radial_scanner = operators.NonCartesian.create(coils, spokes.points)
radial_y = operators.measure(jax.random.key(5), radial_scanner, truth, noise_std=0.02)
N = operators.NonCartesian.create(maps, spokes.points)
W = operators.NonCartesian.create(maps, spokes.points, weights=spokes.density)


@jax.jit
def radial(N, W, y):
    gridded = reconstruction.gridding(N, y, spokes.density)
    return gridded, reconstruction.cg_sense(N, y, 20)[0], reconstruction.cg_sense(W, W.weigh(y), 5)[0]


names = "gridding", "CG, 20 steps", "weighted CG, 5 steps"
compare(dict(zip(names, radial(N, W, radial_y), strict=True)))

# %% [markdown]
# ## Where to go next
#
# The scan can be a spiral, a stack of volumes or off resonance (`operators.spiral`, `kooshball`, `OffResonance`),
# and `reconstruction.tgv` or `wavelet_cs` take these operators too. `pgm reconstruct` runs the same methods on
# fastMRI and ISMRMRD files, with ESPIRiT and noise whitening.

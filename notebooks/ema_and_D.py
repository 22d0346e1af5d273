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
# # Two numbers chosen late: the width of the average, and D
#
# Samples are drawn with an average of the weights along training, and its width matters as much as the learning
# rate. With power-function averages the width can be chosen **after** training. The second number is PFGM++'s
# **D**, which sets how heavy the tails of the noise are. Both are studied where the truth is known: a mixture of
# Gaussians, whose denoiser is exact.

# %%
import math

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from pgm_jax import metrics, networks, priors, processes, samplers, training
from pgm_jax.core import Network, Sampler
from pgm_jax.processes import precondition
from pgm_jax.training import ema, objectives

angles = 2 * np.pi * np.arange(8) / 8
circle = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
toy = priors.MixturePrior(jnp.ones(8), jnp.asarray(circle), 0.1**2 * jnp.tile(jnp.eye(2), (8, 1, 1)))

# %% [markdown]
# ## 1. A short run that stores averages of two widths
#
# A network is two functions, `init` and `apply`. Adam's rate stays high and constant, so that the weights keep
# moving and averaging pays. The run carries the power-function averages of relative width 0.05 and 0.10 (Karras
# et al. 2024); a hook stores both every 250 steps. The average of width 0.075 is carried too, only to check the
# reconstruction.

# %%
WIDTH, STEPS = 96, 3000


def init(key, x=None, t=None, cond=None):
    sizes = [2 + 16, WIDTH, WIDTH, 2]
    keys = jax.random.split(key, len(sizes) - 1)
    return {
        str(i): {"kernel": jax.random.normal(k, (a, b)) / math.sqrt(a), "bias": jnp.zeros(b)}
        for i, (k, a, b) in enumerate(zip(keys, sizes[:-1], sizes[1:], strict=True))
    }


def apply(params, x, t, cond=None, *, key=None, train=False):
    phase = 4 * t[:, None] * jnp.geomspace(0.25, 4.0, 8)[None]
    h = jnp.concatenate([x, jnp.cos(phase), jnp.sin(phase)], axis=1)
    for i in range(3):
        layer = params[str(i)]
        h = h @ layer["kernel"] + layer["bias"][None]
        h = jax.nn.silu(h) if i < 2 else h
    return h


network, process, scaling = Network(init, apply), processes.EDM(), precondition.edm(0.7)
levels = objectives.levels.lognormal(-1.2, 1.2)
points = np.asarray(jax.vmap(toy.sample)(jax.random.split(jax.random.key(0), 128 * STEPS // 10)))
batches = ({"x0": points[128 * i : 128 * (i + 1)]} for _ in range(10) for i in range(STEPS // 10))
stored = []


def store(step, values, state):
    for width in (0.05, 0.1):
        # A copy: the next step deletes the state.
        stored.append((step, width, jax.tree.map(np.array, state.ema[f"power_{width:g}"])))


state = training.fit(
    objectives.denoising(process, network, scaling, levels),
    optax.adam(5e-3),
    init,
    batches,
    key=jax.random.key(1),
    steps=STEPS,
    ema=[ema.power(0.05), ema.power(0.1), ema.power(0.075)],
    hooks=[store],
    log_every=250,
)
times, widths, snapshots = zip(*stored, strict=True)
print(len(snapshots), "snapshots")

# %% [markdown]
# ## 2. Any width, after training
#
# `ema.post_hoc` adds up snapshots with the weights that come nearest to the profile asked for. What a network
# still has to learn is known here: the weighted square distance of its denoiser from the exact one, which is its
# loss less the least possible loss. Far below the stored widths the few snapshots cannot form the profile, and
# the nearest sum is shown.

# %%
tracked = state.ema["power_0.075"]
rebuilt = ema.post_hoc(snapshots, times, widths, 0.075)
size = lambda tree: math.sqrt(sum(float(np.sum(np.square(leaf))) for leaf in jax.tree.leaves(tree)))
print(
    f"0.075 rebuilt against carried: {size(jax.tree.map(np.subtract, rebuilt, tracked)) / size(tracked):.1e}"
)

count = 4096
keys = jax.random.split(jax.random.key(2), (2, count))
at = levels(process, (jnp.arange(count) + 0.5) / count)
noisy = jax.vmap(process.perturb)(keys[0], jax.vmap(toy.sample)(keys[1]), at)
exact = jax.jit(jax.vmap(toy.denoiser(process)))(noisy, at)
weight = objectives.weighting.edm(0.7)(process, at)


@jax.jit
def excess(params):
    estimate = jax.vmap(networks.as_denoiser(network, params, process, scaling))(noisy, at)
    return jnp.mean(weight[:, None] * (estimate - exact) ** 2)


asked = np.geomspace(0.015, 0.25, 16)
figure, axis = plt.subplots(figsize=(6.5, 3.6))
for target in (STEPS // 4, STEPS // 2, STEPS):
    found = [float(excess(ema.post_hoc(snapshots, times, widths, width, target))) for width in asked]
    axis.loglog(asked, found, "o-", markersize=3, label=f"after {target} steps")
    print(f"after {target} steps: best width {asked[np.argmin(found)]:.3f}, excess loss {min(found):.4f}")
last = float(excess(state.params))
axis.axhline(last, color="black", linestyle=":", label=f"last weights after {STEPS} steps")
print(f"last weights: {last:.4f}")
axis.axvspan(0.05, 0.1, color="0.9")
axis.set_xlabel("relative width of the average (grey: between the stored ones)")
axis.set_ylabel("excess loss")
axis.legend(fontsize=8)
figure.tight_layout()

# %% [markdown]
# ## 3. What D changes
#
# PFGM++ perturbs with Student-t noise of D degrees of freedom; D = inf is EDM. To see its effect alone, the
# network's error is taken away: the denoisers below are exact. The same ring of eight Gaussians now lies in a
# plane of a space of N = 32 dimensions, because what D does depends on N / D: under heavy tails the denoiser must
# read the radius of the noise from the state, and in many dimensions it can.

# %%
N = 32
frame = np.linalg.qr(np.random.default_rng(0).normal(size=(N, 2)))[0].astype(np.float32)
cov = 0.1**2 * frame @ frame.T + 0.02**2 * np.eye(N, dtype=np.float32)
ring = priors.MixturePrior(jnp.ones(8), jnp.asarray(circle @ frame.T), jnp.tile(jnp.asarray(cov), (8, 1, 1)))


def jittered(sampler, amount):
    """The sampler, its state disturbed after each step by `amount` times the noise level there."""

    def step(key, process, estimate, state, t, s):
        key, own = jax.random.split(key)
        state = sampler.step(key, process, estimate, state, t, s)
        return state._replace(x=state.x + amount * process.sigma(s) * jax.random.normal(own, state.x.shape))

    return Sampler(sampler.init, step, sampler.check)


@jax.jit(static_argnames="steps")
def distance(key, process, amount, steps):
    grid = processes.karras(steps, sigma_min=0.01, sigma_max=20.0)
    found = samplers.sample(
        key, jittered(samplers.heun(), amount), ring.denoiser(process), process, grid, shape=(COUNT, N)
    )
    return metrics.energy_distance(found, reference), found @ frame


COUNT = 256
reference = jax.vmap(ring.sample)(jax.random.split(jax.random.key(3), COUNT))
floor = metrics.energy_distance(reference, jax.vmap(ring.sample)(jax.random.split(jax.random.key(4), COUNT)))
dimensions = (2.0, 8.0, 64.0, math.inf)
by_steps, by_amount, seen = {}, {}, {}
for D in dimensions:
    run = lambda amount, steps, D=D: distance(jax.random.key(5), processes.PFGMpp(D=D), amount, steps)
    by_steps[D] = {steps: float(run(0.0, steps)[0]) for steps in (4, 8)}
    results = {amount: run(amount, 12) for amount in (0.0, 0.4, 0.8)}
    by_amount[D] = {amount: float(result[0]) for amount, result in results.items()}
    by_steps[D][12], seen[D] = by_amount[D][0.0], results[0.8][1]

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True)
for axis, table, label in ((axes[0], by_steps, "Heun steps"), (axes[1], by_amount, "disturbance, 12 steps")):
    for D in dimensions:
        axis.semilogy(list(table[D]), list(table[D].values()), "o-", label=f"D = {D:g}")
    axis.axhline(float(floor), color="black", linestyle=":", label="exact draws")
    axis.set_xlabel(label)
axes[0].set_ylabel("energy distance")
axes[1].legend(fontsize=8)
figure.tight_layout()
for D in dimensions:
    print(f"D = {D:g}", *(f"{value:.4f}" for value in (*by_steps[D].values(), *by_amount[D].values())))
print(f"exact draws {floor:.4f}")

# %%
figure, axes = plt.subplots(1, 5, figsize=(12, 2.7), sharex=True, sharey=True)
shown = {"exact": reference @ frame} | {f"D = {D:g}, disturbance 0.8": seen[D] for D in dimensions}
for axis, (name, points) in zip(axes, shown.items(), strict=True):
    axis.plot(*np.asarray(points).T, ".", markersize=2)
    axis.set_title(name, fontsize=9)
    axis.set_aspect("equal")
axes[0].set_xlim(-2, 2)
axes[0].set_ylim(-2, 2)
figure.tight_layout()

# %% [markdown]
# ## What to take from it
#
# - Any width between the stored ones costs a sum of snapshots instead of another training run, and so does an
#   earlier step. In this run the best width fell as the run grew, and the minimum is flat: every stored width beats
#   the last weights by half. Measure it, on data that was not trained on.
# - With four Heun steps a small D came far closer to the truth than D = inf; from eight steps on D = inf was
#   slightly ahead. A disturbed state moves D = inf furthest from the truth: with Student-t noise the denoiser reads
#   the noise level from the state as well as from t, and takes the excess away. At D = 2 and 8 the clusters are
#   tighter than the exact ones, which the energy distance hardly sees.
# - This is one toy with exact denoisers and one key, 256 draws a point, its steps and disturbances
#   chosen after a look at several: do not read differences of a few thousandths. It shows a mechanism, not which D is best for images: choose that on validation data.

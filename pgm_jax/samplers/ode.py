"""Second-order steps of the probability-flow ODE, in the coefficients of the process."""

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax.core import Sampler, safe_divide
from pgm_jax.samplers.ancestral import ddim, empty


def heun():
    """Makes Heun's step in the coefficients (Karras et al. 2022, Algorithm 1, on any affine process).

    `trial = mix(e_t, s)`, `m` the mean of the estimates at `(x_t, t)` and `(trial, s)`, and
    `x_s = mix(e_t, t) + mix(m, s) - mix(m, t)`: EDM's Heun on EDM and PFGM++, finite at alpha = 0. The step
    that ends at sigma 0 stays first order. Guidance keeps the state of the first evaluation; the second is a
    trial.

    Returns:
        `Sampler` with two evaluations a step, one on the last.
    """

    def step(key, process, estimate, state, t, s):
        key_start, key_trial = jax.random.split(key)
        # Euler step from t to s.
        start, guidance = estimate(key_start, state.x, t, state.guidance)
        trial = process.mix(start, s)

        def corrected(trial):
            # Apply the second-order correction.
            end, _ = estimate(key_trial, trial, s, guidance)
            # A voxel that arrives at sigma 0 has no noise to average with.
            arrived = process.sigma(s) == 0
            mean = jax.tree.map(lambda a, b: jnp.where(arrived, a, 0.5 * (a + b)), start, end)
            moved = process.mix(start, t) + process.mix(mean, s) - process.mix(mean, t)
            return jnp.where(arrived, trial, moved)

        x = jax.lax.cond(jnp.any(process.sigma(s) > 0), corrected, lambda trial: trial, trial)
        return state._replace(x=x, guidance=guidance)

    return Sampler(empty, step)


def dpmpp_1s():
    """Makes DPM-Solver++'s first-order step (Lu et al. 2022), which is DDIM's; equals `ddim(0.)`.

    `x_s = (sigma_s / sigma_t) x_t + alpha_s (1 - e^-h) x0`, `h` the step in `lambda = ln(alpha / sigma)`.

    Returns:
        `Sampler` with one evaluation a step.
    """
    return ddim(0.0)


def dpmpp_2m():
    """Makes DPM-Solver++ 2M, the two-step multistep method (Lu et al. 2022, Algorithm 2).

    With `h_i` the step in `lambda = ln(alpha / sigma)` and `r = h_(i-1) / h_i`, the clean image is
    extrapolated, `x0 + (x0 - x0_previous) / (2 r)`, and the state moves with that image and the noise that
    keeps it in place. The first step and the step to sigma 0 are first order. History is in the memory.

    Returns:
        `Sampler` with one evaluation a step; it refuses grids that start at alpha 0 or at a pinned end.
    """

    def init(x):
        return (jnp.zeros_like(x), jnp.zeros((), jnp.finfo(x.dtype).dtype))

    def step(key, process, estimate, state, t, s):
        current, guidance = estimate(key, state.x, t, state.guidance)
        previous, previous_h = state.memory
        h = _log_ratio(process, t) - _log_ratio(process, s)
        second = (previous_h > 0) & jnp.isfinite(h)
        weight = jnp.where(second, 0.5 * safe_divide(jnp.where(second, h, 0.0), previous_h), 0.0)
        x0 = current.x0 + weight * (current.x0 - previous)
        x_t = process.mix(current, t)
        x = process.mix(process.estimate(x_t, t, x0.astype(x_t.dtype), current.x1), s)
        memory = (current.x0, jnp.where(jnp.isfinite(h), h, 0.0).astype(previous_h.dtype))
        return state._replace(x=x, guidance=guidance, memory=memory)

    return Sampler(init, step, finite_start)


def dpmpp_2s():
    """Makes DPM-Solver++ 2S, the singlestep method with the midpoint in lambda (Lu et al. 2022, r = 1/2).

    Returns:
        `Sampler` with two evaluations a step, one on the step to sigma 0; grids as `dpmpp_2m`.
    """

    def step(key, process, estimate, state, t, s):
        key_start, key_middle = jax.random.split(key)
        start, guidance = estimate(key_start, state.x, t, state.guidance)
        x_t = process.mix(start, t)

        def second(x_t):
            half = jnp.exp(0.5 * (_log_ratio(process, t) + _log_ratio(process, s)))
            middle = process.time(half)
            between, _ = estimate(key_middle, process.mix(start, middle), middle, guidance)
            return process.mix(process.estimate(x_t, t, between.x0, start.x1), s)

        first = lambda x_t: process.mix(start, s)
        x = jax.lax.cond(jnp.all(process.sigma(s) > 0), second, first, x_t)
        return state._replace(x=x, guidance=guidance)

    return Sampler(empty, step, finite_start)


def _log_ratio(process, t):
    ratio = safe_divide(process.sigma(t), process.alpha(t), jnp.inf)
    return jnp.log(ratio)


def finite_start(process, grid):
    """Refuses a grid whose first time has no finite ln(alpha / sigma), and voxel-wise grids."""
    first = grid[0]
    alpha, sigma = np.asarray(process.alpha(first)), np.asarray(process.sigma(first))
    if not (alpha > 0).all() or not (sigma > 0).all():
        raise ValueError(
            "A sampler in ln(sigma / alpha) needs it finite at its first time, but this grid starts where "
            f"alpha is {alpha.min():.3g} and sigma {sigma.min():.3g}: start the grid slightly below "
            "(t_max=0.999), or use heun()."
        )
    if grid.ndim > 1:
        raise ValueError(
            "A sampler in ln(sigma / alpha) steps all voxels alike: use ddim() or heun() on a voxel-wise grid."
        )

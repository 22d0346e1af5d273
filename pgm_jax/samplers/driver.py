"""The one driver: a sampler moves one state along a grid, in one scan and one compiled program."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax.core import State, lift, prior_key, sample_key, step_key


def sample_one(
    key,
    sampler,
    denoise,
    process,
    grid,
    *,
    shape=None,
    x_init=None,
    cond=None,
    x1=None,
    guidance=None,
    trace=None,
    dtype=jnp.float32,
):
    """Draws one sample: starts from the prior (or `x_init`) and visits the grid's times in order.

    Pairs of the grid that descend call the sampler's step, pairs that rise call `process.renoise`: RePaint's
    resampling, EDM's churn and restarts are grids. Step i draws from `fold_in(key, i)`.

    Args:
        key: PRNG key of this sample.
        sampler: a `Sampler`, such as `heun()`.
        denoise: raw denoiser `(x_t, t, cond) -> x0_hat`; batches are made by `vmap`, see `sample`.
        process: the process that the denoiser was made for.
        grid: times in visiting order, (n + 1,) or (n + 1, *image) for voxel-wise time; float64 on the host.
        shape: shape of one image; needed unless `x_init` is given.
        x_init: starting state at the first time; a measurement hijacks the run, `process.perturb(...)`
            jump-starts it.
        cond: condition handed to the denoiser.
        x1: given end point of a bridge.
        guidance: a transform of estimators, see `pgm_jax.guidance`.
        trace: optional `(state, t, s) -> pytree`, evaluated after each step and stacked.
        dtype: dtype of the state when it is drawn from the prior; complex64 for complex images.

    Returns:
        The image at the last time, of the state's shape; `(image, traced)` when `trace` is given.

    Raises:
        ValueError: for a grid with fewer than two times, non-finite times or a voxel-wise step that rises in
            one voxel and falls in another; when neither `shape` nor `x_init` is given; and whatever the
            process, its noise law, the sampler or the guidance refuse, with the reason.
    """
    walk, start, steps = build_walk(
        key, sampler, denoise, process, grid, shape, x_init, cond, x1, guidance, dtype, trace
    )
    state, traced = walk(start, jnp.arange(steps))
    return state.x if trace is None else (state.x, traced)


def build_walk(
    key, sampler, denoise, process, grid, shape, x_init, cond, x1, guidance, dtype, trace=None, begin=True
):
    """Builds the scan of `sample_one` over any run of its steps; arguments as there.

    Returns:
        `(walk, start, steps)`: `walk(state, numbers of steps) -> (state, traced)`, the first state (None without
        `begin`) and the number of steps of the grid.
    """
    grid, rising = _checked(grid)
    sampler.check(process, grid)
    estimator = lift(process, denoise, x1)
    if guidance is not None:
        estimator = guidance(estimator)
    x = _start(key, process, grid[0], shape, x_init, x1, dtype) if begin else None
    estimate = functools.partial(_estimate, estimator, cond)

    def down(key, state, t, s):
        return sampler.step(key, process, estimate, state, t, s)

    def up(key, state, t, s):
        return state._replace(x=process.renoise(key, state.x, t, s))

    def body(state, index):
        times = jnp.asarray(grid, jnp.finfo(state.x.dtype).dtype)
        t, s, at = times[index], times[index + 1], step_key(key, index)
        # A grid that only descends leaves no branch, and asks no law for a forward move.
        state = (
            jax.lax.cond(jnp.asarray(rising)[index], up, down, at, state, t, s)
            if rising.any()
            else down(at, state, t, s)
        )
        return state, None if trace is None else trace(state, t, s)

    walk = functools.partial(jax.lax.scan, body)
    return walk, None if x is None else State(x, estimator.init(x), sampler.init(x)), len(rising)


def sample(
    key,
    sampler,
    denoise,
    process,
    grid,
    *,
    shape=None,
    x_init=None,
    cond=None,
    x1=None,
    guidance=None,
    trace=None,
    dtype=jnp.float32,
):
    """Draws a batch: `vmap` of `sample_one` over a leading sample axis, sample i with `fold_in(key, i)`.

    A sample depends on the key and on its index alone, not on the batch size, device count or sharding.

    Args:
        key: PRNG key of the run.
        sampler: see `sample_one`.
        denoise: see `sample_one`; takes one image.
        process: see `sample_one`.
        grid: see `sample_one`.
        shape: `(samples, *image)`.
        x_init: `(samples, *image)` or None.
        cond: pytree with a leading sample axis, or None.
        x1: `(samples, *image)` or None.
        guidance: see `sample_one`; shared by all samples.
        trace: see `sample_one`.
        dtype: see `sample_one`.

    Returns:
        `(samples, *image)`; with `trace`, a pair whose second part has the sample axis first.

    Raises:
        ValueError: as `sample_one`.
    """
    leaves = jax.tree.leaves((x_init, cond, x1))
    if shape is None and not leaves:
        raise ValueError("sample needs shape=(samples, *image), or x_init with a leading sample axis.")
    count = shape[0] if shape is not None else leaves[0].shape[0]
    if any(leaf.shape[0] != count for leaf in leaves):
        raise ValueError(
            f"sample draws {count} images, but x_init, cond or x1 have leading axes "
            f"{sorted({leaf.shape[0] for leaf in leaves})}: repeat them to one row a sample."
        )

    def one(index, x_init, cond, x1):
        return sample_one(
            sample_key(key, index),
            sampler,
            denoise,
            process,
            grid,
            shape=None if shape is None else tuple(shape[1:]),
            x_init=x_init,
            cond=cond,
            x1=x1,
            guidance=guidance,
            trace=trace,
            dtype=dtype,
        )

    return jax.vmap(one)(jnp.arange(count), x_init, cond, x1)


def _estimate(estimator, cond, key, x_t, t, guidance, s=None):
    return estimator.apply(key, x_t, t, guidance, cond=cond, s=s)


def _checked(grid):
    grid = np.asarray(grid, np.float64)
    if grid.ndim < 1 or grid.shape[0] < 2:
        raise ValueError(
            f"A grid needs at least two times, got shape {grid.shape}: see pgm_jax.processes.karras."
        )
    if not np.isfinite(grid).all():
        raise ValueError("The grid holds non-finite times: check sigma_min, sigma_max and the process.")
    change = np.diff(grid, axis=0).reshape(len(grid) - 1, -1)
    rising = (change > 0).any(axis=1)
    if (rising & (change < 0).any(axis=1)).any():
        raise ValueError(
            "A voxel-wise grid rises in one voxel and falls in another within one step: split the step."
        )
    return grid, rising


def _start(key, process, t, shape, x_init, x1, dtype):
    if x_init is not None:
        if shape is not None and tuple(shape) != tuple(x_init.shape):
            raise ValueError(
                f"shape is {tuple(shape)} but x_init has shape {tuple(x_init.shape)}: leave shape out."
            )
        return jnp.asarray(x_init)
    if shape is None and x1 is None:
        raise ValueError("sample_one needs the shape of one image, or x_init.")
    shape = x1.shape if shape is None else tuple(shape)
    first = jnp.asarray(t, jnp.finfo(dtype).dtype)
    return process.prior(prior_key(key), shape, first, x1=x1, dtype=dtype)

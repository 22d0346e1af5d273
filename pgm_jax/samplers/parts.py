"""Long runs in parts: the driver's scan a few steps at a time, so that a run is watched, kept and resumed."""

import jax.numpy as jnp
import numpy as np

from pgm_jax.samplers.driver import build_walk


def sample_in_parts(
    key,
    sampler,
    denoise,
    process,
    grid,
    *,
    part: int = 1,
    shape=None,
    x_init=None,
    cond=None,
    x1=None,
    guidance=None,
    dtype=jnp.float32,
):
    """Splits `sample_one` into calls of a few steps each, for runs so long that they are watched and resumed.

    All parts are the same compiled program: the number of the first step is an argument. The state between two
    parts is a pytree of arrays; kept on disk, it is all that a killed run needs.

        start, advance, count = sample_in_parts(key, ddim(), denoise, process, grid, shape=shape, part=5)
        state = jax.jit(start)()
        advance = jax.jit(advance, donate_argnums=0)
        for number in range(count):
            state = advance(state, number)
        image = state.x

    Args:
        key: see `sample_one`.
        sampler: see `sample_one`.
        denoise: see `sample_one`.
        process: see `sample_one`.
        grid: see `sample_one`.
        part: steps of a part; it divides the steps of the grid.
        shape: see `sample_one`.
        x_init: see `sample_one`.
        cond: see `sample_one`.
        x1: see `sample_one`.
        guidance: see `sample_one`.
        dtype: see `sample_one`.

    Returns:
        `(start, advance, count)`: `start() -> State`, `advance(state, number) -> State` for part number 0 to
        count - 1. The last state's `x` is the image of `sample_one`.

    Raises:
        ValueError: as `sample_one`, and for a part that does not divide the steps.
    """
    steps = len(np.asarray(grid)) - 1
    if part < 1 or steps % part:
        raise ValueError(f"{steps} steps do not divide into parts of {part}: use a divisor of {steps}.")
    arguments = (key, sampler, denoise, process, grid, shape, x_init, cond, x1, guidance, dtype)

    def start():
        return build_walk(*arguments)[1]

    def advance(state, number):
        walk = build_walk(*arguments, begin=False)[0]
        return walk(state, number * part + jnp.arange(part))[0]

    return start, advance, steps // part

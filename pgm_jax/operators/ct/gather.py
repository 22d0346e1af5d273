"""The inner loop that all two-dimensional projectors share: sums of gathers with weights made on the way."""

import jax
import jax.numpy as jnp

# From this many slices on it pays to store the weights of a step.
_MANY = 4


def take(values, index):
    """Gathers rows of values; an index beyond either end gives the first or last row."""
    return values.at[index].get(mode="clip", wrap_negative_indices=False)


def gather_sum(locate, steps, values, shape):
    """Computes `sum_s sum_m weight_sm values_s[index_s + m]` with `index_s, weights_s = locate(steps_s)`.

    One loop over s, with the result as its accumulator. Left alone XLA computes the weights anew for every
    slice; so with many slices a step stores them: from a branch on a CPU, and elsewhere, where a branch waits for
    the host, by carrying those of the next step.

    Args:
        locate: function of one step that returns an int32 index of some shape and a list of weights of that shape.
        steps: pytree of arrays with a leading axis of steps.
        values: what is gathered (steps, positions, slices).
        shape: shape of an index.

    Returns:
        Array (*shape, slices).
    """

    def add(total, place, row):
        index, weights = place
        for m, weight in enumerate(weights):
            total = total + weight[..., None] * take(row, index + m)
        return total

    start = jnp.zeros((*shape, values.shape[-1]), values.dtype)

    def fused(start, steps, values):
        def step(total, inputs):
            return add(total, locate(inputs[0]), inputs[1]), None

        return jax.lax.scan(step, start, (steps, values))[0]

    def from_a_branch(start, steps, values):
        def step(total, inputs):
            here, row, number = inputs
            nothing = jax.tree.map(
                lambda part: jnp.zeros(part.shape, part.dtype), jax.eval_shape(locate, here)
            )
            # Always true, which XLA does not know.
            place = jax.lax.cond(number >= 0, lambda: locate(here), lambda: nothing)
            return add(total, place, row), None

        return jax.lax.scan(step, start, (steps, values, jnp.arange(len(values))))[0]

    def a_step_ahead(start, steps, values):
        def step(carry, inputs):
            total, place = carry
            return (add(total, place, inputs[1]), locate(inputs[0])), None

        first = locate(jax.tree.map(lambda part: part[0], steps))
        following = jax.tree.map(lambda part: jnp.roll(part, -1, axis=0), steps)
        return jax.lax.scan(step, (start, first), (following, values))[0][0]

    if values.shape[-1] < _MANY:
        return fused(start, steps, values)
    return jax.lax.platform_dependent(start, steps, values, cpu=from_a_branch, default=a_step_ahead)

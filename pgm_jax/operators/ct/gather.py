"""The inner loop that all two-dimensional projectors share: sums of gathers with weights made on the way."""

import math

import jax
import jax.numpy as jnp

# From this many slices on it pays to store the weights of a step.
_MANY = 4
# A step with fewer numbers than this is over before the threads of a CPU have started on it.
_SHORT = 2**17


def take(values, index):
    """Gathers rows of values; an index beyond either end gives the first or last row."""
    return values.at[index].get(mode="clip", wrap_negative_indices=False)


def gather_sum(locate, steps, values, shape, *, together=1):
    """Computes `sum_s sum_m weight_sm values_s[index_s + m]` with `index_s, weights_s = locate(steps_s)`.

    One loop over s, with the result as its accumulator. Left alone XLA computes the weights anew for every
    slice; so with many slices a step stores them: from a branch on a CPU, and elsewhere, where a branch waits for
    the host, by carrying those of the next step. On a CPU short steps are taken several at a time.

    Args:
        locate: function of one step that returns an int32 index of some shape and a list of weights of that shape.
        steps: pytree of arrays with a leading axis of steps.
        values: what is gathered (steps, positions, slices).
        shape: shape of an index.
        together: how many steps a CPU may take at once, if they are short.

    Returns:
        Array (*shape, slices).
    """
    size = math.prod(shape) * values.shape[-1]

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
        count = together if size <= _SHORT else 1
        steps, values = _in_groups(steps, values, count)
        locate_all = jax.vmap(locate)

        def step(total, inputs):
            here, rows, number = inputs
            nothing = jax.tree.map(
                lambda part: jnp.zeros(part.shape, part.dtype), jax.eval_shape(locate_all, here)
            )
            # Always true, which XLA does not know.
            places = jax.lax.cond(number >= 0, lambda: locate_all(here), lambda: nothing)
            for n in range(count):
                total = add(total, jax.tree.map(lambda part, n=n: part[n], places), rows[n])
            return total, None

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


def _in_groups(steps, values, count):
    """Cuts steps and values into groups of count; the last is filled with its last step and with zeros."""
    groups = -(-len(values) // count)
    missing = groups * count - len(values)

    def cut(part, mode):
        part = jnp.pad(part, ((0, missing),) + ((0, 0),) * (part.ndim - 1), mode=mode)
        return part.reshape(groups, count, *part.shape[1:])

    return jax.tree.map(lambda part: cut(part, "edge"), steps), cut(values, "constant")

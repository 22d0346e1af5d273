"""What a measurement cannot see: the part of an image, and of the spread of draws, in the null space."""

import jax
import jax.numpy as jnp

from pgm_jax.reconstruction.cgls import cgls


def null_space(operator, x, steps: int = 50):
    """Computes the part of an image that the operator does not see, `x - A^+ A x`.

    `A^+ A x` is the least-squares image of smallest norm for the data `A x`, by conjugate gradients from 0. After
    few steps directions that A sees weakly count as unseen; their number sets the border, as it regularises `cgls`.

    Args:
        operator: linear operator A.
        x: image of the shape of `operator.domain`.
        steps: conjugate gradient steps, each one A and one A^H.

    Returns:
        Image of the shape of x; `A` maps it to about 0.
    """
    return x - cgls(operator, operator(x), steps)[0].astype(x.dtype)


def null_space_energy(operator, draws, steps: int = 50):
    """Maps where the spread of posterior draws comes from the prior alone.

    `E_i |(I - A^+ A)(x_i - mean)|^2`, pixel by pixel, with its sum over the sum of the whole variance. What an
    image shows there was not measured: structures of that size may be invented.

    Args:
        operator: linear operator A.
        draws: (draws, *image), at least 2, such as `Posterior.draws`.
        steps: see `null_space`.

    Returns:
        (map of the shape of an image, real, in the squared unit of the image; share in [0, 1]).

    Raises:
        ValueError: for fewer than two draws.
    """
    if len(draws) < 2:
        raise ValueError(f"null_space_energy needs at least 2 draws, got {len(draws)}: draw more")
    centred = draws - jnp.mean(draws, axis=0, keepdims=True)
    unseen = jax.vmap(lambda x: null_space(operator, x, steps))(centred)
    square = lambda images: jnp.sum(jnp.square(jnp.abs(images)), axis=0) / (len(draws) - 1)
    energy = square(unseen)
    total = jnp.sum(square(centred))
    return energy, jnp.sum(energy) / jnp.where(total > 0, total, 1.0)

"""Networks made of exact denoisers and of plain matrices, for the tests of the objectives."""

import jax
import jax.numpy as jnp

from pgm_jax.core import Network


def exact(denoise):
    """Makes the network that is a denoiser, for `predict_x0`: its input is x_t and it is told t."""

    def apply(params, x, t, cond=None, *, key=None, train=False):
        return jax.vmap(denoise)(x, t)

    return Network(lambda key, *_: (), apply)


def linear(size):
    """Makes the affine network `F = W x + b` on images of one axis."""

    def init(key=None, *_):
        return {"w": jnp.zeros((size, size)), "b": jnp.zeros((1, size))}

    def apply(params, x, t, cond=None, *, key=None, train=False):
        return x @ params["w"].T + params["b"]

    return Network(init, apply)


def mean_and_error(values):
    """Returns the mean of independent values and its standard error."""
    return float(jnp.mean(values)), float(jnp.std(values) / values.size**0.5)

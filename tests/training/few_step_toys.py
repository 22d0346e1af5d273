"""A small nonlinear network of image, time and target, for tests of few-step objectives."""

import jax.numpy as jnp

from pgm_jax.core import Network


def network(dtype):
    """A small nonlinear function of image and time, computed in dtype."""

    def apply(params, x, t, cond=None, *, key=None, train=False):
        level = jnp.tanh(t).reshape(-1, *[1] * (x.ndim - 1))
        told = 0.0 if not cond else jnp.mean(cond["vector"], -1).reshape(level.shape)
        value = params["w"] * jnp.tanh(x) + params["b"] * (level + told)
        return value.astype(dtype).astype(jnp.float32) if dtype == jnp.bfloat16 else value

    return Network(None, apply)


PARAMS = {"w": jnp.float32(0.7), "b": jnp.float32(-0.3)}

"""From a batched network to the denoiser of one sample."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from pgm_jax.core import Denoiser, Network, join_complex, split_complex


def as_denoiser(network: Network, params, process, parameterisation: Callable) -> Denoiser:
    """Makes the denoiser of a network under a parameterisation:

        x0 = c_skip x_t + c_out F(c_in x_t, c_noise, cond)

    The network sees a batch of one, and `vmap` of the denoiser is a plain batched call. A complex image of c
    channels is shown to it as 2c real channels, real parts first, and its output is joined again; complex
    leaves of cond are split in the same way. cond is never scaled.

    Args:
        network: `Network(init, apply)`.
        params: its parameters.
        process: the process whose times the denoiser reads.
        parameterisation: `(process, t) -> coefficients` with fields c_skip, c_out, c_in (arrays that
            broadcast against the image) and c_noise (what the network is told of t, of the shape of t).

    Returns:
        `denoise(x_t, t, cond=None) -> x0` for one image, with the shape and dtype of x_t. t is a scalar,
        which reaches the network as (1,), or an array of times for each voxel, which reaches it as
        (1, *t.shape). It raises a ValueError if the network changes the shape of the image.
    """

    def denoise(x_t, t, cond=None):
        c = parameterisation(process, t)
        seen = split_complex(jnp.asarray(c.c_in * x_t, x_t.dtype))
        cond = jax.tree.map(lambda leaf: split_complex(jnp.asarray(leaf))[None], cond)
        output = network.apply(params, seen[None], jnp.asarray(c.c_noise)[None], cond)[0]
        if output.shape != seen.shape:
            raise ValueError(
                f"the network returned {output.shape} for an input of {seen.shape}; they must be equal"
            )
        output = join_complex(output) if jnp.iscomplexobj(x_t) else output
        return jnp.asarray(c.c_skip * x_t + c.c_out * output.astype(x_t.dtype), x_t.dtype)

    return denoise

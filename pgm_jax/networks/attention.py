"""Multi-head attention of tokens to themselves or to given tokens, softmax in float32."""

import jax
import jax.numpy as jnp
from flax import nnx

from pgm_jax.core.precision import FULL
from pgm_jax.networks.layers import Linear


class Attention(nnx.Module):
    """Multi-head attention (Vaswani et al. 2017, section 3.2.2), without norm and without residual.

    Parameters: query, key, value and out, each a `Linear`. Head j reads the channels
    j c / heads to (j + 1) c / heads - 1. `out` starts at zero.

    Args:
        channels: channels of the tokens that ask, and of the result.
        rngs: `nnx.Rngs`.
        heads: number of heads, a divisor of channels.
        context: channels of the tokens that answer; None attends to the asking tokens themselves.
        precision: dtypes of the layers.
    """

    def __init__(self, channels, rngs, *, heads=1, context=None, precision=FULL):
        if channels % heads:
            raise ValueError(f"{heads} heads do not divide {channels} channels")
        self.heads, self.precision = heads, precision
        source = channels if context is None else context
        self.query = Linear(channels, channels, rngs, precision=precision)
        self.key = Linear(source, channels, rngs, precision=precision)
        self.value = Linear(source, channels, rngs, precision=precision)
        self.out = Linear(channels, channels, rngs, zero=True, precision=precision)

    def __call__(self, x, context=None, mask=None):
        """Attends from x (b, n, channels) to context (b, m, d), or to x, where mask (b, m) is not 0."""
        context = x if context is None else context
        split = lambda h: h.reshape(*h.shape[:2], self.heads, -1)
        h = attend(split(self.query(x)), split(self.key(context)), split(self.value(context)), mask)
        return self.out(h.reshape(*h.shape[:2], -1))


def attend(query, key, value, mask=None):
    """Returns `softmax(query key^T / sqrt(d)) value` for each head, the softmax in float32.

    Args:
        query: (b, n, heads, d).
        key, value: (b, m, heads, d).
        mask: (b, m), 0 or False where a key is not looked at, which must leave at least one; None looks at all.

    Returns:
        (b, n, heads, d), in the dtype of query.
    """
    mask = None if mask is None else jnp.asarray(mask, bool)[:, None, None, :]
    return jax.nn.dot_product_attention(query, key, value, mask=mask)

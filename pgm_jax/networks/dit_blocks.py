"""The parts of a diffusion transformer: its block, its head, the table of positions.

block   modulate (Linear of the embedding to 6 width, starts at zero), qkv, out, mlp1, mlp2; with tokens: cross
head    modulate (to 2 width, starts at zero), out (starts at zero)
"""

import jax
import jax.numpy as jnp
from flax import nnx

from pgm_jax.networks.attention import Attention, attend
from pgm_jax.networks.embedding import sinusoidal
from pgm_jax.networks.layers import Linear
from pgm_jax.networks.normalisation import layer_norm


class DiTBlock(nnx.Module):
    """The adaLN-zero block (Peebles and Xie 2023, Figure 3): the identity at the start.

        x = x + gate1 attention(norm(x) (1 + gain1) + shift1)
        x = x + cross(norm(x), tokens)                              with tokens
        x = x + gate2 mlp(norm(x) (1 + gain2) + shift2)

    `norm` has no parameters, and `mlp(x) = mlp2(gelu(mlp1(x)))` with gelu's tanh form. The six vectors are linear
    in the embedding. `cross` has no gate: its last layer starts at zero.

    Args:
        options: `DiTOptions`.
        rngs: `nnx.Rngs`.
    """

    def __init__(self, options, rngs):
        width, precision, tokens = options.width, options.precision, options.conditions.tokens
        self.heads, self.precision = options.heads, precision
        hidden = options.expansion * width
        self.modulate = Linear(width, 6 * width, rngs, zero=True, precision=precision)
        self.qkv = Linear(width, 3 * width, rngs, precision=precision)
        # Not zero: behind a gate of zero neither would ever get a gradient.
        self.out = Linear(width, width, rngs, precision=precision)
        self.mlp1 = Linear(width, hidden, rngs, precision=precision)
        self.mlp2 = Linear(hidden, width, rngs, precision=precision)
        if tokens:
            self.cross = Attention(width, rngs, heads=options.heads, context=tokens, precision=precision)

    def __call__(self, x, embedding, tokens=None, mask=None):
        """Maps x (b, n, width); embedding (b, width), tokens (b, m, d) and mask (b, m)."""
        shift1, gain1, gate1, shift2, gain2, gate2 = _vectors(self.modulate, embedding, 6)
        x = x + gate1 * self._attention(_modulated(x, shift1, gain1))
        if tokens is not None:
            x = x + self.cross(layer_norm(x), tokens, mask)
        h = jax.nn.gelu(self.mlp1(_modulated(x, shift2, gain2)))
        return x + gate2 * self.mlp2(h)

    def _attention(self, x):
        split = self.qkv(x).reshape(*x.shape[:2], 3, self.heads, -1)
        return self.out(attend(*jnp.moveaxis(split, 2, 0)).reshape(x.shape))


class DiTHead(nnx.Module):
    """Norm, shift and gain of the embedding, and a linear map that starts at zero.

    Args:
        outputs: numbers of a patch.
        options: `DiTOptions`.
        rngs: `nnx.Rngs`.
    """

    def __init__(self, outputs, options, rngs):
        width, precision = options.width, options.precision
        self.modulate = Linear(width, 2 * width, rngs, zero=True, precision=precision)
        self.out = Linear(width, outputs, rngs, zero=True, precision=precision)

    def __call__(self, x, embedding):
        """Maps x (b, n, width) and embedding (b, width) to (b, n, outputs)."""
        return self.out(_modulated(x, *_vectors(self.modulate, embedding, 2)))


def position_table(spatial, width):
    """Returns the fixed table of positions, of any size.

    Each of the d axes has width / d channels, in order: those of axis a are `sinusoidal(i_a, width / d)`, the
    cosines and sines of the index i_a along it (Vaswani et al. 2017, section 3.5; He et al. 2022 in 2-D). A table
    is thus the corner of a larger one.

    Args:
        spatial: patches along each axis.
        width: channels, a multiple of 2 d.

    Returns:
        (*spatial, width), float32.
    """
    lines = [sinusoidal(jnp.arange(n), width // len(spatial)) for n in spatial]
    others = lambda a: [axis for axis in range(len(spatial)) if axis != a]
    spread = [
        jnp.broadcast_to(jnp.expand_dims(line, others(a)), (*spatial, line.shape[-1]))
        for a, line in enumerate(lines)
    ]
    return jnp.concatenate(spread, axis=-1)


def _vectors(linear, embedding, count):
    return jnp.split(linear(embedding)[:, None], count, axis=-1)


def _modulated(x, shift, gain):
    # The norm is float32, and so is the sum; the layer behind casts.
    return layer_norm(x) * (1 + gain) + shift

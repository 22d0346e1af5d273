"""The blocks of the U-Net: residual blocks with time, resampling, skip and attention; attention of an image.

residual block  norm1, conv1, modulate (a Linear of the embedding), norm2, conv2; where needed: shortcut and skip
                (1 x 1 Conv), attention, cross (norm, query, key, value, out)
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from pgm_jax.core import Precision
from pgm_jax.networks.attention import Attention
from pgm_jax.networks.convolution import settled
from pgm_jax.networks.layers import Conv, GroupNorm, Linear, dropout
from pgm_jax.networks.resample import DOUBLE, HALVE


class BlockStyle(NamedTuple):
    """What all blocks of a U-Net share; the fields of `UNetOptions` with the same names, and `embedding`."""

    dims: int
    embedding: int
    resample: str
    skip: str
    adaptive: bool
    rescale: bool
    dropout: float
    head_channels: int | None
    tokens: int
    precision: Precision

    def add(self, x, h):
        """Returns x + h, times sqrt(1/2) where the style rescales, so that the variance stays."""
        return (x + h) * math.sqrt(0.5) if self.rescale else x + h


class Context(NamedTuple):
    """What every block is told.

    Attributes:
        embedding: (b, features) of time and conditions.
        tokens: (b, m, d), or None.
        mask: (b, m), or None.
    """

    embedding: jax.Array
    tokens: jax.Array | None
    mask: jax.Array | None


class ResidualBlock(nnx.Module):
    """`x + conv2(dropout(silu(norm2(conv1(silu(norm1(x)))))))` with the embedding between, then attention.

    With resampling, the value after the first activation and the shortcut are halved or doubled (BigGAN's block,
    which DDPM++, NCSN++ and ADM share). The embedding is added before norm2, or scales and shifts its result.

    Args:
        inputs, outputs: channels.
        style: `BlockStyle`.
        rngs: `nnx.Rngs`.
        skip: channels of the skip that joins the input; 0 for none.
        change: "halve", "double" or "".
        attends: whether attention follows, and cross-attention where the style has tokens.
    """

    def __init__(self, inputs, outputs, style, rngs, *, skip=0, change="", attends=False):
        self.style, self.change, self.takes_skip = style, change, skip > 0
        layer = lambda i, o, **options: Conv(i, o, style.dims, rngs, precision=style.precision, **options)
        joined = inputs + skip if style.skip == "concat" else inputs
        if style.skip == "add" and skip not in (0, inputs):
            self.skip = layer(skip, inputs, size=1)
        self.norm1 = GroupNorm(joined, precision=style.precision)
        self.conv1 = layer(joined, outputs)
        features = 2 * outputs if style.adaptive else outputs
        self.modulate = Linear(style.embedding, features, rngs, precision=style.precision)
        self.norm2 = GroupNorm(outputs, precision=style.precision)
        self.conv2 = layer(outputs, outputs, zero=True)
        if joined != outputs:
            self.shortcut = layer(joined, outputs, size=1)
        if attends:
            self.attention = ImageAttention(outputs, style, rngs)
        if attends and style.tokens:
            self.cross = ImageAttention(outputs, style, rngs, context=style.tokens)

    def __call__(self, x, skip, context, key=None, train=False):
        """Maps x (b, *spatial, inputs), skip (b, *spatial, channels) or None, and `Context` to the next image."""
        x = x if skip is None else self._join(x, skip)
        h = self.conv1(self._resample(self.norm1(x, silu=True)))
        h = self._modulated(h, self.modulate(context.embedding))
        h = self.conv2(dropout(key, h, self.style.dropout, train))
        x = self._resample(x)
        x = self.style.add(self.shortcut(x) if hasattr(self, "shortcut") else x, h)
        if hasattr(self, "attention"):
            x = self.attention(x)
        if hasattr(self, "cross"):
            x = self.cross(x, context.tokens, context.mask)
        return settled(x)

    def _join(self, x, skip):
        if self.style.skip == "concat":
            return jnp.concatenate([x, skip], axis=-1)
        return self.style.add(x, self.skip(skip) if hasattr(self, "skip") else skip)

    def _resample(self, x):
        tables = {"halve": HALVE, "double": DOUBLE}
        return tables[self.change][self.style.resample](x) if self.change else x

    def _modulated(self, h, modulation):
        if self.style.adaptive:
            return self.norm2(h, *jnp.split(modulation, 2, axis=-1), silu=True)
        return self.norm2(h + modulation.reshape(h.shape[0], *[1] * self.style.dims, -1), silu=True)


class ImageAttention(Attention):
    """Attention between the voxels of an image, or to tokens, with its norm and its residual.

    Args:
        channels: channels of the image.
        style: `BlockStyle`.
        rngs: `nnx.Rngs`.
        context: channels of the tokens, or None for attention to the image itself.
    """

    def __init__(self, channels, style, rngs, *, context=None):
        width = style.head_channels or channels
        if channels % width:
            raise ValueError(
                f"head_channels {width} does not divide the {channels} channels of an attention level"
            )
        super().__init__(channels, rngs, heads=channels // width, context=context, precision=style.precision)
        self.style = style
        self.norm = GroupNorm(channels, precision=style.precision)

    def __call__(self, x, context=None, mask=None):
        voxels = self.norm(x).reshape(x.shape[0], -1, x.shape[-1])
        return self.style.add(x, super().__call__(voxels, context, mask).reshape(x.shape))

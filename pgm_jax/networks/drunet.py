"""DRUNet told the noise level: a U-Net without normalisation, made for denoising at little cost.

The parameters, for `levels` widths:

    embed/linear1, linear2             the noise level
    conditioning/...                   where built for conditions, see `networks.condition`
    stem, head                         3x3 convolutions at the resolution behind space-to-depth
    encoder/<level>/<block>            conv1, modulate, conv2
    down/<level>, up/<level>           pointwise maps around space-to-depth of 2
    decoder/<level>/<block>            as the encoder; the coarsest level has none
"""

import jax
import jax.numpy as jnp
from flax import nnx

from pgm_jax.core import Network, Precision
from pgm_jax.core.precision import FULL
from pgm_jax.networks.condition import Conditioning, Conditions
from pgm_jax.networks.convolution import settled
from pgm_jax.networks.embedding import TimeEmbedding
from pgm_jax.networks.functional import from_nnx
from pgm_jax.networks.layers import Conv, Linear
from pgm_jax.networks.resample import depth_to_space, space_to_depth

_NONE = Conditions()


def drunet(
    channels: int,
    *,
    widths=(48, 96, 144, 192),
    encoder=(1, 1, 1, 2),
    decoder=(1, 1, 1),
    patch: int = 2,
    embedding: int = 128,
    dims: int = 2,
    conditions: Conditions = _NONE,
    precision: Precision = FULL,
) -> Network:
    """Builds DRUNet (Zhang et al. 2021, Fig. 2) with a learned embedding in place of its noise-level map.

    Residual blocks `x + conv2(relu(conv1(x) (1 + g) + s))`, with g and s linear in the embedding of the noise
    level; no normalisation and no attention, so that the cost is that of the convolutions. It starts as the
    zero function.

    Args:
        channels: channels of the input and of the output (2 for one complex image).
        widths: channels of each level; a level has half the resolution of the one before.
        encoder: residual blocks of each level on the way down; the last is the bottleneck.
        decoder: residual blocks of each level but the coarsest on the way up, finest first.
        patch: side of the space-to-depth stem; 1 works at full resolution.
        embedding: size of the embedding of the noise level.
        dims: spatial axes, 1 to 3.
        conditions: `Conditions`: an image joins the input, class and vector the embedding of the noise level; there
            is no attention for tokens.
        precision: dtypes; parameters stay in `precision.param`.

    Returns:
        `Network(init, apply)`.

    Raises:
        ValueError: if the numbers of levels disagree, or for tokens; by `apply`, if a spatial size is not a
            multiple of `patch 2^(levels - 1)`, the channels differ, or a condition does not fit.
    """
    if not len(widths) == len(encoder) == len(decoder) + 1:
        raise ValueError(
            f"drunet has {len(widths)} widths, {len(encoder)} encoder and {len(decoder)} decoder levels; "
            "give one encoder entry a width and one decoder entry fewer"
        )
    if conditions.tokens:
        raise ValueError("drunet has no attention for tokens: use unet or dit, or conditions without tokens")
    shape = (tuple(widths), tuple(encoder), tuple(decoder), patch, embedding, dims)
    return from_nnx(lambda rngs: _DRUNet(channels, *shape, conditions, precision, rngs))


class _Block(nnx.Module):
    def __init__(self, width, embedding, dims, rngs, precision):
        self.conv1 = Conv(width, width, dims, rngs, precision=precision)
        self.modulate = Linear(embedding, 2 * width, rngs, zero=True, precision=precision)
        self.conv2 = Conv(width, width, dims, rngs, zero=True, precision=precision)

    def __call__(self, x, embedded):
        modulation = self.modulate(embedded)
        gain, shift = jnp.split(modulation.reshape(x.shape[0], *[1] * (x.ndim - 2), -1), 2, axis=-1)
        return settled(x + self.conv2(jax.nn.relu(self.conv1(x) * (1 + gain) + shift)))


class _DRUNet(nnx.Module):
    def __init__(
        self, channels, widths, encoder, decoder, patch, embedding, dims, conditions, precision, rngs
    ):
        self.channels, self.patch, self.dims, self.precision = channels, patch, dims, precision
        self.multiple = patch * 2 ** (len(widths) - 1)
        folded, joined = (n * patch**dims for n in (channels, conditions.input_channels(channels)))
        blocks = lambda width, count: nnx.List(
            [_Block(width, embedding, dims, rngs, precision) for _ in range(count)]
        )
        pairs = list(zip(widths[:-1], widths[1:], strict=True))
        self.embed = TimeEmbedding(64, embedding, rngs, precision=precision)
        self.conditioning = Conditioning(conditions, embedding, rngs, precision=precision)
        self.stem = Conv(joined, widths[0], dims, rngs, precision=precision)
        self.encoder = nnx.List([blocks(width, n) for width, n in zip(widths, encoder, strict=True)])
        self.down = nnx.List(
            [Linear(fine * 2**dims, coarse, rngs, precision=precision) for fine, coarse in pairs]
        )
        self.up = nnx.List(
            [Linear(coarse, fine * 2**dims, rngs, precision=precision) for fine, coarse in pairs]
        )
        self.decoder = nnx.List([blocks(width, n) for width, n in zip(widths[:-1], decoder, strict=True)])
        self.head = Conv(widths[0], folded, dims, rngs, zero=True, precision=precision)

    def __call__(self, x, t, cond=None):
        self._check(x)
        given = self.conditioning(x, cond)
        # c_noise is ln(sigma) / 4: the waves are taken over ln(sigma) itself.
        embedded = jax.nn.silu(self.embed(4 * t) + given.embedding)
        h = self.stem(space_to_depth(given.x, self.patch))
        skips = []
        for level, blocks in enumerate(self.encoder):
            if level:
                skips.append(h)
                h = self.down[level - 1](space_to_depth(h, 2))
            for block in blocks:
                h = block(h, embedded)
        for level in reversed(range(len(self.decoder))):
            h = depth_to_space(self.up[level](h), 2) + skips[level]
            for block in self.decoder[level]:
                h = block(h, embedded)
        return depth_to_space(self.head(h), self.patch).astype(self.precision.output)

    def _check(self, x):
        if x.ndim != self.dims + 2 or x.shape[-1] != self.channels:
            raise ValueError(
                f"this network takes (batch, {self.dims} spatial axes, {self.channels} channels), got {x.shape}"
            )
        if any(n % self.multiple for n in x.shape[1:-1]):
            raise ValueError(
                f"spatial sizes {x.shape[1:-1]} must be multiples of {self.multiple}: pad the image"
            )

"""The U-Net for 1 to 3 spatial dimensions, with the options that span DDPM++, NCSN++ and ADM.

Layout of the parameters (a nested dict with string keys; see `layers` and `unet_blocks` for the leaves):

    conditioning   table, vector, token: where the network was built for them
    time           linear1, linear2
    stem           Conv from the input (x, image, presence; space-to-depth) to `width` channels
    encoder/n      residual blocks from fine to coarse; a halving block opens each level but the first
    pyramid/n      Conv of the residual input pyramid into level n + 1
    middle/0, 1    residual blocks, the first with attention if any level has it
    decoder/n      residual blocks from coarse to fine; a doubling block opens each level but the coarsest, then
                   blocks + 1 blocks, each joined by one skip (of the stem or an encoder block, last first)
    head           norm, conv (starts at zero)
    coarse/n       the same of level n + 1, with outputs="all"
"""

import jax
from flax import nnx

from pgm_jax.core import Network
from pgm_jax.networks.condition import Conditioning
from pgm_jax.networks.embedding import TimeEmbedding
from pgm_jax.networks.functional import from_nnx
from pgm_jax.networks.layers import Conv, GroupNorm, fold_key
from pgm_jax.networks.resample import HALVE, depth_to_space, space_to_depth
from pgm_jax.networks.unet_blocks import BlockStyle, Context, ResidualBlock
from pgm_jax.networks.unet_options import UNetOptions, check_input, check_options


def unet(channels: int, **options) -> Network:
    """Builds a U-Net (Ronneberger et al. 2015; Ho et al. 2020; Song et al. 2021; Dhariwal and Nichol 2021).

    Each spatial size of x must be a multiple of `patch 2^(levels - 1)`. The output starts at zero.

    Args:
        channels: channels of the input x.
        **options: the other fields of `UNetOptions`.

    Returns:
        `Network(init, apply)`: `apply(params, x, t, cond=None, *, key=None, train=False)` maps x
        (b, *spatial, channels), t (b,) as the parameterisation's c_noise and cond (see `condition`) to
        (b, *spatial, out_channels), or to a tuple of outputs. key is needed for dropout in training: one key, or
        one for each sample (b,).

    Raises:
        ValueError: for an unknown or impossible option; by `apply` for x, t or cond of another shape.
        TypeError: for an option that does not exist.
    """
    options = UNetOptions(channels, **options)
    check_options(options)
    return from_nnx(lambda rngs: UNet(options, rngs))


class UNet(nnx.Module):
    """The module behind `unet`.

    Args:
        options: `UNetOptions`.
        rngs: `nnx.Rngs`.
    """

    def __init__(self, options, rngs):
        self.options, precision, width = options, options.precision, options.width
        channels = [width * m for m in options.multipliers]
        style = _style(options)
        features = width * (2 if options.embedding == "fourier" else 1)
        self.time = TimeEmbedding(
            features, style.embedding, rngs, kind=options.embedding, precision=precision
        )
        self.conditioning = Conditioning(options.conditions, style.embedding, rngs, precision=precision)
        entering = options.conditions.input_channels(options.channels) * options.patch**options.dims
        self.stem = Conv(entering, width, options.dims, rngs, precision=precision)
        self.encoder, skips = _encoder(options, style, channels, rngs)
        if options.residual_input:
            self.pyramid = _pyramid(options, entering, channels, rngs)
        last = channels[-1]
        self.middle = nnx.List(
            ResidualBlock(last, last, style, rngs, attends=attends)
            for attends in (bool(options.attention), False)
        )
        self.decoder = _decoder(options, style, channels, skips, rngs)
        self.head = Head(channels[0], options, rngs)
        if options.outputs == "all":
            self.coarse = nnx.List(Head(c, options, rngs) for c in channels[1:])

    def __call__(self, x, t, cond=None, *, key=None, train=False):
        """Applies the U-Net; see `unet`."""
        check_input(self.options, x, t)
        seen = self.conditioning(x, cond)
        context = Context(jax.nn.silu(self.time(t) + seen.embedding), seen.tokens, seen.mask)
        blocks = Runner(context, key, train, self.options.remat)
        h, skips = self._encode(space_to_depth(seen.x, self.options.patch), blocks)
        for block in self.middle:
            h = blocks.run(block, h)
        ends = self._decode(h, skips, blocks)
        finest = self.head(ends[0])
        if self.options.outputs == "finest":
            return finest
        return (finest, *(head(h) for head, h in zip(self.coarse, ends[1:], strict=True)))

    def _encode(self, x, blocks):
        """Returns the coarsest image and the skips, fine to coarse."""
        h, entering, level = self.stem(x), x, 0
        skips = [h]
        for block in self.encoder:
            h = blocks.run(block, h)
            if block.change == "halve" and self.options.residual_input:
                entering = self.pyramid[level](HALVE[self.options.resample](entering))
                h = entering = block.style.add(h, entering)
                level += 1
            skips.append(h)
        return h, skips

    def _decode(self, h, skips, blocks):
        """Returns the image at the end of each level, fine to coarse."""
        ends = []
        for block in self.decoder:
            if block.change == "double":
                ends.append(h)
            h = blocks.run(block, h, skips.pop() if block.takes_skip else None)
        return [h, *reversed(ends)]


class Head(nnx.Module):
    """Norm, activation and a convolution that starts at zero, then depth-to-space.

    Args:
        channels: channels of the input.
        options: `UNetOptions`.
        rngs: `nnx.Rngs`.
    """

    def __init__(self, channels, options, rngs):
        self.options = options
        leaving = (options.out_channels or options.channels) * options.patch**options.dims
        self.norm = GroupNorm(channels, precision=options.precision)
        self.conv = Conv(channels, leaving, options.dims, rngs, zero=True, precision=options.precision)

    def __call__(self, h):
        image = self.conv(self.norm(h, silu=True)).astype(self.options.precision.output)
        return depth_to_space(image, self.options.patch)


class Runner:
    """Runs blocks one after the other: hands each the context and its own key, and rematerialises it.

    Args:
        context: `Context`.
        key: key, keys or None.
        train: whether dropout acts.
        remat: "none" or "block".
    """

    def __init__(self, context, key, train, remat):
        self.context, self.key, self.train, self.remat, self.number = context, key, train, remat, 0

    def run(self, block, h, skip=None):
        """Returns `block(h, skip)`."""
        key = fold_key(self.key, self.number) if self.train else None
        self.number += 1
        call = lambda h, skip, context: block(h, skip, context, key, self.train)
        return (jax.checkpoint(call) if self.remat == "block" else call)(h, skip, self.context)


def _style(options):
    values = options._asdict() | {"embedding": 4 * options.width, "tokens": options.conditions.tokens}
    return BlockStyle(**{name: values[name] for name in BlockStyle._fields})


def _encoder(options, style, channels, rngs):
    blocks, c, skips = [], options.width, [options.width]
    for level, outputs in enumerate(channels):
        if level:
            blocks.append(ResidualBlock(c, c, style, rngs, change="halve"))
            skips.append(c)
        for _ in range(options.blocks):
            blocks.append(ResidualBlock(c, outputs, style, rngs, attends=level in options.attention))
            c = outputs
            skips.append(c)
    return nnx.List(blocks), skips


def _decoder(options, style, channels, skips, rngs):
    blocks, c, skips = [], channels[-1], list(skips)
    for level in reversed(range(len(channels))):
        if level < len(channels) - 1:
            blocks.append(ResidualBlock(c, c, style, rngs, change="double"))
        for _ in range(options.blocks + 1):
            attends = level in options.attention
            blocks.append(ResidualBlock(c, channels[level], style, rngs, skip=skips.pop(), attends=attends))
            c = channels[level]
    return nnx.List(blocks)


def _pyramid(options, entering, channels, rngs):
    layers = []
    for c in channels[:-1]:
        layers.append(Conv(entering, c, options.dims, rngs, precision=options.precision))
        entering = c
    return nnx.List(layers)

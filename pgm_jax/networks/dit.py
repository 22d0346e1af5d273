"""The diffusion transformer for 1 to 3 spatial dimensions.

Layout of the parameters (a nested dict with string keys; see `layers` and `dit_blocks` for the leaves):

    conditioning   table, vector, token: where the network was built for them
    time           linear1, linear2
    stem           Linear from a patch of the input (x, image, presence) to `width` channels
    blocks         one block, every leaf with a leading axis of `depth`: the loop over blocks is a scan, so
                   the program is as long as that of one block
    head           modulate, out
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from pgm_jax.core import Network, Precision
from pgm_jax.networks.condition import Conditioning, Conditions
from pgm_jax.networks.dit_blocks import DiTBlock, DiTHead, position_table
from pgm_jax.networks.embedding import FEATURES, TimeEmbedding
from pgm_jax.networks.functional import from_nnx
from pgm_jax.networks.layers import Linear
from pgm_jax.networks.resample import depth_to_space, space_to_depth

# DiT's number of time features, whatever the width.
_TIME_FEATURES = 256


class DiTOptions(NamedTuple):
    """Sizes and options of a diffusion transformer; the defaults are those of DiT-S/2.

    Attributes:
        channels: channels of the input x; real ones (a complex image of c channels counts 2c).
        out_channels: channels of the output; None is `channels`.
        dims: spatial dimensions, 1 to 3.
        width: channels of a token, a multiple of `heads` and of 2 dims; the embedding has as many.
        depth: number of blocks.
        heads: number of attention heads.
        expansion: hidden channels of the two-layer network of a block, in units of width.
        patch: side of a patch, which is one token.
        embedding: features of time, "sinusoidal" or "fourier".
        conditions: `Conditions`, what `cond` may hold.
        precision: `Precision`; norms and softmax are float32 in any case.
        remat: "none", or "block" to keep only the input of each block for the backward pass.
    """

    channels: int
    out_channels: int | None = None
    dims: int = 2
    width: int = 384
    depth: int = 12
    heads: int = 6
    expansion: int = 4
    patch: int = 2
    embedding: str = "sinusoidal"
    conditions: Conditions = Conditions()
    precision: Precision = Precision()
    remat: str = "none"


def dit(channels: int, **options) -> Network:
    """Builds a diffusion transformer (Peebles and Xie 2023): adaLN-zero blocks over the patches of an image.

    Each spatial size of x must be a multiple of `patch`, and may differ between calls: positions are a fixed
    table. Class and vector are added to the embedding of time; tokens are looked at by cross-attention in every
    block. The output starts at zero, and every block as the identity.

    Args:
        channels: channels of the input x.
        **options: the other fields of `DiTOptions`.

    Returns:
        `Network(init, apply)`: `apply(params, x, t, cond=None)` maps x (b, *spatial, channels), t (b,) as the
        parameterisation's c_noise and cond (see `condition`) to (b, *spatial, out_channels).

    Raises:
        ValueError: for an impossible option; by `apply` for x, t or cond of another shape.
        TypeError: for an option that does not exist.
    """
    options = DiTOptions(channels, **options)
    _check_options(options)
    return from_nnx(lambda rngs: DiT(options, rngs))


class DiT(nnx.Module):
    """The module behind `dit`.

    Args:
        options: `DiTOptions`.
        rngs: `nnx.Rngs`.
    """

    def __init__(self, options, rngs):
        self.options, width, precision = options, options.width, options.precision
        numbers = options.patch**options.dims
        self.time = TimeEmbedding(_TIME_FEATURES, width, rngs, kind=options.embedding, precision=precision)
        self.conditioning = Conditioning(options.conditions, width, rngs, precision=precision)
        entering = options.conditions.input_channels(options.channels) * numbers
        self.stem = Linear(entering, width, rngs, precision=precision)
        keys = jax.random.split(rngs.params(), options.depth)
        self.blocks = nnx.vmap(lambda key: DiTBlock(options, nnx.Rngs(key)))(keys)
        self.head = DiTHead((options.out_channels or options.channels) * numbers, options, rngs)

    def __call__(self, x, t, cond=None):
        """Applies the transformer; see `dit`."""
        _check_input(self.options, x, t)
        seen = self.conditioning(x, cond)
        embedding = jax.nn.silu(self.time(t) + seen.embedding)
        patches = self.stem(space_to_depth(seen.x, self.options.patch))
        patches = (
            patches + position_table(patches.shape[1:-1], self.options.width).astype(patches.dtype)[None]
        )
        h = patches.reshape(patches.shape[0], -1, self.options.width)
        h = self._run_blocks(h, embedding, seen.tokens, seen.mask)
        image = self.head(h, embedding).reshape(*patches.shape[:-1], -1)
        return depth_to_space(image.astype(self.options.precision.output), self.options.patch)

    def _run_blocks(self, h, embedding, tokens, mask):
        graph, layers = nnx.split(self.blocks)

        def step(h, layer):
            return nnx.merge(graph, layer)(h, embedding, tokens, mask), None

        # The scan itself keeps XLA from merging the second forward pass into the first.
        step = jax.checkpoint(step, prevent_cse=False) if self.options.remat == "block" else step
        return jax.lax.scan(step, h, layers)[0]


def _check_options(options):
    choices = {"dims": (1, 2, 3), "embedding": tuple(FEATURES), "remat": ("none", "block")}
    for name, allowed in choices.items():
        if getattr(options, name) not in allowed:
            raise ValueError(f"{name} is {getattr(options, name)!r}; choose one of {list(allowed)}")
    for name in ("channels", "width", "depth", "heads", "expansion", "patch"):
        if getattr(options, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(options, name)}")
    unit = math.lcm(options.heads, 2 * options.dims)
    if options.width % unit:
        raise ValueError(
            f"width {options.width} must be a multiple of {unit}: of {options.heads} heads, and of a cosine and "
            f"a sine of the position along each of {options.dims} axes"
        )


def _check_input(options, x, t):
    if jnp.iscomplexobj(x):
        raise ValueError(
            "x is complex: give real parts, then imaginary parts, as channels, or use as_denoiser"
        )
    if x.ndim != options.dims + 2 or x.shape[-1] != options.channels:
        axes = ", ".join(("depth", "height", "width")[3 - options.dims :])
        raise ValueError(f"x has shape {x.shape}; the network needs (batch, {axes}, {options.channels})")
    if t.shape != x.shape[:1]:
        raise ValueError(f"t has shape {t.shape}; the network needs one time a sample, {x.shape[:1]}")
    if any(size % options.patch for size in x.shape[1:-1]):
        raise ValueError(
            f"the spatial size {x.shape[1:-1]} must be a multiple of the patch {options.patch}: pad or crop x"
        )

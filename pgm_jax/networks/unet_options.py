"""Sizes and options of a U-Net, and what is refused."""

import math
from typing import NamedTuple

import jax.numpy as jnp

from pgm_jax.core import Precision
from pgm_jax.networks.condition import Conditions
from pgm_jax.networks.embedding import FEATURES
from pgm_jax.networks.resample import HALVE


class UNetOptions(NamedTuple):
    """Sizes and options of a U-Net.

    Attributes:
        channels: channels of the input x; real ones (a complex image of c channels counts 2c).
        out_channels: channels of the output; None is `channels`.
        dims: spatial dimensions, 1 to 3.
        width: channels of the first level, even; the embedding has 4 width.
        multipliers: channels of each level, in units of width.
        blocks: residual blocks of a level in the encoder (one more in the decoder).
        attention: levels with attention, 0 the finest.
        head_channels: channels of an attention head; None is one head.
        embedding: features of time, "sinusoidal" (width of them) or "fourier" (2 width).
        adaptive: the embedding scales and shifts the second norm (ADM) instead of being added before it.
        resample: "average" (mean, repetition) or "fir" ([1, 3, 3, 1]).
        skip: how a skip joins the decoder, "concat" or "add" (through a 1 x 1 convolution where channels differ).
        residual_input: adds the halved and convolved input to the encoder at each level (NCSN++).
        rescale: multiplies every sum of two branches by sqrt(1/2).
        dropout: probability, before the second convolution of a block.
        patch: side of the space-to-depth stem; convolutions run at 1 / patch of the resolution.
        outputs: "finest", or "all" for a tuple with one output for each level, the finest first: output n has
            the spatial size of x over 2^n.
        conditions: `Conditions`, what `cond` may hold.
        precision: `Precision`; norm statistics and softmax are float32 in any case.
        remat: "none", or "block" to keep only the input of each block for the backward pass.
    """

    channels: int
    out_channels: int | None = None
    dims: int = 2
    width: int = 64
    multipliers: tuple[int, ...] = (1, 2, 2)
    blocks: int = 2
    attention: tuple[int, ...] = ()
    head_channels: int | None = None
    embedding: str = "sinusoidal"
    adaptive: bool = False
    resample: str = "average"
    skip: str = "concat"
    residual_input: bool = False
    rescale: bool = True
    dropout: float = 0.0
    patch: int = 1
    outputs: str = "finest"
    conditions: Conditions = Conditions()
    precision: Precision = Precision()
    remat: str = "none"


def check_options(options):
    """Raises where an option is unknown or impossible.

    Args:
        options: `UNetOptions`.

    Returns:
        None.

    Raises:
        ValueError: naming the option, its value and what is allowed.
    """
    choices = {
        "dims": (1, 2, 3),
        "embedding": tuple(FEATURES),
        "resample": tuple(HALVE),
        "skip": ("concat", "add"),
        "outputs": ("finest", "all"),
        "remat": ("none", "block"),
    }
    for name, allowed in choices.items():
        if getattr(options, name) not in allowed:
            raise ValueError(f"{name} is {getattr(options, name)!r}; choose one of {list(allowed)}")
    for name in ("channels", "width", "blocks", "patch"):
        if getattr(options, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(options, name)}")
    if options.width % 2:
        raise ValueError(f"width must be even (cosines and sines of time), got {options.width}")
    if not 0 <= options.dropout < 1:
        raise ValueError(f"dropout is a probability in [0, 1), got {options.dropout}")
    levels = len(options.multipliers)
    beyond = [level for level in options.attention if not 0 <= level < levels]
    if not levels or beyond:
        raise ValueError(
            f"attention levels {beyond} are none of the {levels} levels, which count from 0 (finest)"
        )


def check_input(options, x, t):
    """Raises where x or t does not fit the network.

    Args:
        options: `UNetOptions`.
        x: (b, *spatial, channels).
        t: (b,).

    Returns:
        None.

    Raises:
        ValueError: for a complex x, another rank or channel count, a spatial size that is no multiple of
            `patch 2^(levels - 1)`, or a t that is not (b,).
    """
    if jnp.iscomplexobj(x):
        raise ValueError(
            "x is complex: give real parts, then imaginary parts, as channels, or use as_denoiser"
        )
    if x.ndim != options.dims + 2 or x.shape[-1] != options.channels:
        axes = ("depth", "height", "width")[3 - options.dims :]
        raise ValueError(
            f"x has shape {x.shape}; the network needs (batch, {', '.join(axes)}, {options.channels})"
        )
    if t.shape != x.shape[:1]:
        raise ValueError(f"t has shape {t.shape}; the network needs one time a sample, {x.shape[:1]}")
    unit = options.patch * 2 ** (len(options.multipliers) - 1)
    if any(size % unit for size in x.shape[1:-1]):
        enough = tuple(math.ceil(size / unit) * unit for size in x.shape[1:-1])
        raise ValueError(
            f"the spatial size {x.shape[1:-1]} must be a multiple of {unit} "
            f"(patch {options.patch}, {len(options.multipliers)} levels): pad or crop x, to {enough} for example"
        )

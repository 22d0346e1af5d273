"""A patch discriminator: how real each patch of an image looks, for adversarial terms.

The parameters, for `levels` widths:

    stem, head      3x3 convolutions at the finest and at the coarsest resolution; the head starts at zero
    down/<level>    pointwise maps behind space-to-depth of 2
    mix/<level>     3x3 convolutions after each of them
"""

import jax
import jax.numpy as jnp
from flax import nnx

from pgm_jax.core import Network, Precision
from pgm_jax.core.precision import FULL
from pgm_jax.networks.functional import from_nnx
from pgm_jax.networks.layers import Conv, Linear
from pgm_jax.networks.resample import space_to_depth

_SLOPE = 0.2


def patch_discriminator(
    channels: int, *, widths=(32, 64, 128), condition: int = 0, dims: int = 2, precision: Precision = FULL
) -> Network:
    """Builds a convolutional discriminator of patches (after Isola et al. 2017, PatchGAN), one logit a patch.

    No normalisation: an image's own scale stays visible, which in medical images has a unit, and no logit depends
    on voxels beyond its patch: `7 2^(levels - 1) - 2` a side, 26 with three widths. It starts as the
    zero function, so that it pushes nowhere until it has learnt.

    Args:
        channels: channels of the image (2 for one complex image).
        widths: channels of each level; a level has half the resolution of the one before.
        condition: channels of `cond["image"]`, which joins the input; 0 reads no condition.
        dims: spatial axes, 1 to 3.
        precision: dtypes; parameters stay in `precision.param`.

    Returns:
        `Network(init, apply)`: `apply(params, x, None, cond) -> logits`, x (b, *spatial, channels), logits
        (b, *spatial / 2^(levels - 1), 1); the time is not read.

    Raises:
        ValueError: for no width; by `apply`, if a spatial size is not a multiple of `2^(levels - 1)`, the channels
            differ, or the condition is missing.
    """
    if not widths:
        raise ValueError("patch_discriminator needs at least one width, got none")
    sizes = (channels, tuple(widths), condition, dims, precision)
    return from_nnx(lambda rngs: _PatchDiscriminator(*sizes, rngs))


class _PatchDiscriminator(nnx.Module):
    def __init__(self, channels, widths, condition, dims, precision, rngs):
        self.channels, self.condition, self.dims, self.precision = channels, condition, dims, precision
        self.multiple = 2 ** (len(widths) - 1)
        pairs = zip(widths[:-1], widths[1:], strict=True)
        self.stem = Conv(channels + condition, widths[0], dims, rngs, precision=precision)
        self.down = nnx.List([Linear(a * 2**dims, b, rngs, precision=precision) for a, b in pairs])
        self.mix = nnx.List([Conv(width, width, dims, rngs, precision=precision) for width in widths[1:]])
        self.head = Conv(widths[-1], 1, dims, rngs, zero=True, precision=precision)

    def __call__(self, x, t, cond=None):
        self._check(x, cond)
        if self.condition:
            x = jnp.concatenate([x, cond["image"].astype(x.dtype)], axis=-1)
        h = jax.nn.leaky_relu(self.stem(x), _SLOPE)
        for down, mix in zip(self.down, self.mix, strict=True):
            h = jax.nn.leaky_relu(mix(down(space_to_depth(h, 2))), _SLOPE)
        return self.head(h).astype(self.precision.output)

    def _check(self, x, cond):
        if x.ndim != self.dims + 2 or x.shape[-1] != self.channels:
            raise ValueError(
                f"this discriminator takes (batch, {self.dims} spatial axes, "
                f"{self.channels} channels), got {x.shape}"
            )
        if any(n % self.multiple for n in x.shape[1:-1]):
            raise ValueError(
                f"spatial sizes {x.shape[1:-1]} must be multiples of {self.multiple}: pad the image"
            )
        if self.condition and "image" not in (cond or {}):
            raise ValueError(
                f'this discriminator reads cond["image"] of {self.condition} channels: give it, or build with 0'
            )

"""The U-Net of `pgm_jax.networks.unet` in PyTorch, on copied weights: the peer of every timing.

Plain functions of a dict of tensors, as a PyTorch user would write them: `conv2d`, `group_norm`,
`scaled_dot_product_attention`. Images are (b, c, height, width). Conditions, dropout and other than two dimensions
are left out, because no timing has them.
"""

import math

import jax
import numpy as np

from pgm_jax.core import require
from pgm_jax.networks import UNetOptions


def torch_params(params, channels_last: bool = False):
    """Copies the parameters of a U-Net to PyTorch's layouts.

    Args:
        params: nested dict of `Network.init`; kernels (*size, in, out) and (in, out).
        channels_last: whether the kernels of convolutions get the memory format channels_last.

    Returns:
        The nested dict of float32 tensors; kernels (out, in, *size) and (out, in).
    """
    torch = require("torch", "torch")

    def leaf(x):
        x = np.asarray(x, np.float32)
        axes = () if x.ndim < 2 else (x.ndim - 1, x.ndim - 2, *range(x.ndim - 2))
        tensor = torch.from_numpy(np.ascontiguousarray(x.transpose(axes) if axes else x).copy())
        last = channels_last and x.ndim == 4
        return tensor.contiguous(memory_format=torch.channels_last) if last else tensor

    return jax.tree.map(leaf, params)


class TorchUNet:
    """The forward pass: `TorchUNet(options)(params, x, t)`.

    Args:
        options: `UNetOptions` of the network whose weights are copied.

    Raises:
        ValueError: for options without a counterpart here: dims other than 2, conditions, outputs="all".
        MissingExtra: without PyTorch.
    """

    def __init__(self, options: UNetOptions):
        if options.dims != 2 or options.conditions.keys() or options.outputs != "finest":
            raise ValueError(
                f"the PyTorch twin has two dimensions, one output and no conditions, got dims={options.dims}, "
                f"outputs={options.outputs!r} and conditions {list(options.conditions.keys())}"
            )
        self.torch, self.F = require("torch", "torch"), require("torch.nn.functional", "torch")
        self.options = options
        self.frequencies = self._frequencies()

    def __call__(self, params, x, t):
        """Returns the output (b, c, height, width) for x (b, channels, height, width) and t (b,)."""
        options, F = self.options, self.F
        angle = t[:, None].float() * self.frequencies
        features = self.torch.cat([angle.cos(), angle.sin()], 1).to(x.dtype)
        time = params["time"]
        embedding = F.silu(linear(F, time["linear2"], F.silu(linear(F, time["linear1"], features))))
        entering = F.pixel_unshuffle(x, options.patch) if options.patch > 1 else x
        entering = _patch_order(entering, options.patch)
        h, skips = self._encode(params, entering, embedding)
        h = self._block(params["middle"]["0"], h, embedding)
        h = self._block(params["middle"]["1"], h, embedding)
        for level, n in self._decoder_blocks():
            change = "double" if level is not None else ""
            h = self._block(params["decoder"][str(n)], h, embedding, change, None if change else skips.pop())
        h = self._conv(params["head"]["conv"], F.silu(self._norm(params["head"]["norm"], h)))
        return F.pixel_shuffle(_shuffle_order(h, options.patch), options.patch) if options.patch > 1 else h

    def _encode(self, params, entering, embedding):
        h, n = self._conv(params["stem"], entering), 0
        skips = [h]
        for level in range(len(self.options.multipliers)):
            if level:
                h = self._block(params["encoder"][str(n)], h, embedding, "halve")
                if self.options.residual_input:
                    entering = self._conv(params["pyramid"][str(level - 1)], self._halve(entering))
                    h = entering = self._add(h, entering)
                skips.append(h)
                n += 1
            for _ in range(self.options.blocks):
                h = self._block(params["encoder"][str(n)], h, embedding)
                skips.append(h)
                n += 1
        return h, skips

    def _decoder_blocks(self):
        """Yields (level to double to, or None, number of the block)."""
        n = 0
        for level in reversed(range(len(self.options.multipliers))):
            doubling = level < len(self.options.multipliers) - 1
            for place in range(self.options.blocks + 1 + doubling):
                yield (level if doubling and place == 0 else None), n
                n += 1

    def _block(self, p, x, embedding, change="", skip=None):
        F = self.F
        if skip is not None:
            x = self._join(p, x, skip)
        resample = {"": lambda x: x, "halve": self._halve, "double": self._double}[change]
        h = self._conv(p["conv1"], resample(F.silu(self._norm(p["norm1"], x))))
        modulation = linear(F, p["modulate"], embedding)[:, :, None, None]
        if self.options.adaptive:
            gain, shift = modulation.chunk(2, 1)
            h = self.torch.addcmul(shift, self._norm(p["norm2"], h), 1 + gain)
        else:
            h = self._norm(p["norm2"], h + modulation)
        h = self._conv(p["conv2"], F.silu(h))
        x = resample(x)
        x = self._add(self._conv(p["shortcut"], x) if "shortcut" in p else x, h)
        return self._attend(p["attention"], x) if "attention" in p else x

    def _join(self, p, x, skip):
        if self.options.skip == "concat":
            return self.torch.cat([x, skip], 1)
        return self._add(x, self._conv(p["skip"], skip) if "skip" in p else skip)

    def _attend(self, p, x):
        b, c, height, width = x.shape
        heads = c // (self.options.head_channels or c)
        voxels = self._norm(p["norm"], x).flatten(2).transpose(1, 2)
        split = lambda name: (
            linear(self.F, p[name], voxels).view(b, height * width, heads, -1).transpose(1, 2)
        )
        h = self.F.scaled_dot_product_attention(split("query"), split("key"), split("value"))
        h = linear(self.F, p["out"], h.transpose(1, 2).reshape(b, height * width, c))
        return self._add(x, h.transpose(1, 2).reshape(b, c, height, width))

    def _add(self, x, h):
        return (x + h) * math.sqrt(0.5) if self.options.rescale else x + h

    def _conv(self, p, x):
        return self.F.conv2d(x, p["kernel"], p["bias"], padding=p["kernel"].shape[-1] // 2)

    def _norm(self, p, x):
        channels = x.shape[1]
        most = max(1, min(32, channels // 4))
        groups = next(groups for groups in range(most, 0, -1) if channels % groups == 0)
        return self.F.group_norm(x, groups, p["scale"], p["bias"], 1e-6)

    def _halve(self, x):
        if self.options.resample == "average":
            return self.F.avg_pool2d(x, 2)
        return self.F.conv2d(x, self._filter(x, 8), stride=2, padding=1, groups=x.shape[1])

    def _double(self, x):
        if self.options.resample == "average":
            return self.F.interpolate(x, scale_factor=2, mode="nearest")
        return self.F.conv_transpose2d(x, self._filter(x, 4), stride=2, padding=1, groups=x.shape[1])

    def _filter(self, x, total):
        taps = self.torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype, device=x.device) / total
        return (taps[:, None] * taps).expand(x.shape[1], 1, 4, 4)

    def _frequencies(self):
        half = self.options.width // 2
        rates = 10000.0 ** (-np.arange(half) / half)
        if self.options.embedding == "fourier":
            # The quantiles of the half-normal law that `networks.embedding.fourier` takes.
            half = self.options.width
            uniform = (np.arange(half) + 0.5) / (2 * half) + 0.5
            quantile = self.torch.special.ndtri(self.torch.from_numpy(uniform)).numpy()
            rates = 2 * np.pi * 16.0 * quantile
        return self.torch.from_numpy(rates.astype(np.float32))


def linear(F, p, x):
    """Returns `x kernel^T + bias` for a layer's dict p of tensors; F is `torch.nn.functional`."""
    return F.linear(x, p["kernel"], p["bias"])


def _patch_order(x, patch):
    """From pixel_unshuffle's channels (channel, place) to those of space_to_depth (place, channel)."""
    if patch == 1:
        return x
    b, c, height, width = x.shape
    return x.view(b, -1, patch * patch, height, width).transpose(1, 2).reshape(b, c, height, width)


def _shuffle_order(x, patch):
    b, c, height, width = x.shape
    return x.view(b, patch * patch, -1, height, width).transpose(1, 2).reshape(b, c, height, width)

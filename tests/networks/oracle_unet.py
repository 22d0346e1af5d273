"""The U-Net again, in float64 NumPy, from its published description: no code is shared with the package."""

import itertools

import jax
import numpy as np
from scipy.signal import upfirdn
from scipy.special import expit
from scipy.stats import halfnorm


def filled(network, seed=0):
    """Returns random parameters without zeros, so that no branch is silent."""
    draw = np.random.default_rng(seed).standard_normal

    def leaf(path, p):
        name = path[-1].key
        scale = np.prod(p.shape[:-1]) ** -0.5 if name == "kernel" else 0.3
        return np.asarray((name == "scale") + scale * draw(p.shape), p.dtype)

    return jax.tree_util.tree_map_with_path(leaf, jax.eval_shape(network.init, jax.random.key(0)))


def silu(x):
    return x * expit(x)


def linear(p, x):
    return x @ p["kernel"] + p["bias"]


def conv(p, x):
    kernel = p["kernel"]
    sizes, spatial = kernel.shape[:-2], x.shape[1:-1]
    padded = np.pad(x, [(0, 0), *[(n // 2, n // 2) for n in sizes], (0, 0)])
    out = np.zeros((*x.shape[:-1], kernel.shape[-1])) + p["bias"]
    for place in itertools.product(*map(range, sizes)):
        window = tuple(slice(a, a + n) for a, n in zip(place, spatial, strict=True))
        out += padded[(slice(None), *window)] @ kernel[place]
    return out


def group_norm(p, x):
    b, c = x.shape[0], x.shape[-1]
    groups = max(g for g in range(1, 33) if c % g == 0 and (4 * g <= c or g == 1))
    h = np.moveaxis(x, -1, 1).reshape(b, groups, -1)
    h = (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + 1e-6)
    return np.moveaxis(h.reshape(b, c, *x.shape[1:-1]), 1, -1) * p["scale"] + p["bias"]


def attention(p, queries, context, heads, mask=None):
    q, k, v = linear(p["query"], queries), linear(p["key"], context), linear(p["value"], context)
    width, results = q.shape[-1] // heads, []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        logits = q[..., part] @ k[..., part].transpose(0, 2, 1) / np.sqrt(width)
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        weights = weights if mask is None else weights * mask[:, None]
        results.append(weights / weights.sum(-1, keepdims=True) @ v[..., part])
    return linear(p["out"], np.concatenate(results, -1))


def resampled(x, change, how):
    if how == "average":
        taps, lead, factor = np.ones(2) / 2, 0, 2
    else:
        taps, lead, factor = np.array([1, 3, 3, 1]) / 8, 1, 2
    for axis in range(1, x.ndim - 1):
        n = x.shape[axis]
        if change == "halve":
            # Output i of upfirdn ends at input 2 i, so the window of pair i ends at 2 i + 1 + lead.
            full = upfirdn(taps, x, axis=axis)
            x = full.take(1 + lead + 2 * np.arange(n // 2), axis)
        else:
            x = upfirdn(factor * taps, x, up=2, axis=axis)
            x = x.take(lead + np.arange(2 * n), axis)
    return x


def time_features(t, width, kind):
    half = width // 2
    if kind == "sinusoidal":
        angle = t[:, None] * 10000.0 ** (-np.arange(half) / half)
    else:
        angle = t[:, None] * 2 * np.pi * halfnorm.ppf((np.arange(half) + 0.5) / half, scale=16)
    return np.concatenate([np.cos(angle), np.sin(angle)], -1)


def blocks_to_channels(x, patch):
    spatial = [n // patch for n in x.shape[1:-1]]
    out = np.zeros((x.shape[0], *spatial, patch ** len(spatial) * x.shape[-1]))
    for number, place in enumerate(itertools.product(range(patch), repeat=len(spatial))):
        window = (slice(None), *(slice(a, None, patch) for a in place))
        out[..., number * x.shape[-1] : (number + 1) * x.shape[-1]] = x[window]
    return out


def channels_to_blocks(x, patch):
    spatial = [n * patch for n in x.shape[1:-1]]
    c = x.shape[-1] // patch ** len(spatial)
    out = np.zeros((x.shape[0], *spatial, c))
    for number, place in enumerate(itertools.product(range(patch), repeat=len(spatial))):
        out[(slice(None), *(slice(a, None, patch) for a in place))] = x[..., number * c : (number + 1) * c]
    return out


class Oracle:
    """Holds the options and walks the parameters of one network; drop(h, n) is what block n does before conv2."""

    def __init__(self, params, options, drop=lambda h, number: h):
        self.params, self.o = jax.tree.map(lambda p: np.asarray(p, np.float64), params), options
        self.drop, self.number = drop, 0

    def add(self, a, b):
        return (a + b) * (np.sqrt(0.5) if self.o.rescale else 1)

    def block(self, p, x, skip=None, change=""):
        if skip is not None and self.o.skip == "concat":
            x = np.concatenate([x, skip], -1)
        elif skip is not None:
            x = self.add(x, conv(p["skip"], skip) if "skip" in p else skip)
        change_size = lambda h: resampled(h, change, self.o.resample) if change else h
        h = conv(p["conv1"], change_size(silu(group_norm(p["norm1"], x))))
        told = linear(p["modulate"], self.embedding).reshape(len(x), *[1] * self.o.dims, -1)
        if self.o.adaptive:
            gain, shift = np.split(told, 2, -1)
            h = group_norm(p["norm2"], h) * (1 + gain) + shift
        else:
            h = group_norm(p["norm2"], h + told)
        h, x = conv(p["conv2"], self.drop(silu(h), self.number)), change_size(x)
        self.number += 1
        x = self.add(conv(p["shortcut"], x) if "shortcut" in p else x, h)
        for name, context, mask in (("attention", None, None), ("cross", self.tokens, self.mask)):
            if name in p:
                q = group_norm(p[name]["norm"], x).reshape(len(x), -1, x.shape[-1])
                heads = x.shape[-1] // (self.o.head_channels or x.shape[-1])
                h = attention(p[name], q, q if context is None else context, heads, mask)
                x = self.add(x, h.reshape(x.shape))
        return x

    def read(self, x, t, cond):
        p, take = self.params, self.o.conditions
        if take.image:
            present = np.asarray(cond.get("present", np.ones(len(x)) * ("image" in cond)))
            present = present.reshape(-1, *[1] * self.o.dims, 1) * np.ones((*x.shape[:-1], 1))
            image = cond.get("image", np.zeros((*x.shape[:-1], take.image)))
            x = np.concatenate([x, present * image, present], -1)
        width = self.o.width * (2 if self.o.embedding == "fourier" else 1)
        embedding = linear(
            p["time"]["linear2"],
            silu(linear(p["time"]["linear1"], time_features(t, width, self.o.embedding))),
        )
        if take.classes:
            embedding = (
                embedding + p["conditioning"]["table"][cond.get("class", np.full(len(x), take.classes))]
            )
        if "vector" in cond:
            embedding = embedding + linear(p["conditioning"]["vector"], cond["vector"])
        self.embedding, self.tokens, self.mask = silu(embedding), None, None
        if take.tokens:
            null = np.tile(p["conditioning"]["token"], (len(x), 1, 1))
            given = cond.get("tokens", np.zeros((len(x), 0, take.tokens)))
            mask = cond.get("token_mask", np.ones(given.shape[:2]))
            self.tokens = np.concatenate([null, given], 1)
            self.mask = np.concatenate([np.ones((len(x), 1)), mask], 1)
        return blocks_to_channels(x, self.o.patch)

    def head(self, p, h):
        return channels_to_blocks(conv(p["conv"], silu(group_norm(p["norm"], h))), self.o.patch)

    def __call__(self, x, t, cond=None):
        p, o = self.params, self.o
        x = self.read(np.asarray(x, np.float64), np.asarray(t, np.float64), cond or {})
        levels, number, self.number = len(o.multipliers), 0, 0
        h = conv(p["stem"], x)
        skips = [h]
        for level in range(levels):
            if level:
                h, number = self.block(p["encoder"][str(number)], h, change="halve"), number + 1
                if o.residual_input:
                    x = conv(p["pyramid"][str(level - 1)], resampled(x, "halve", o.resample))
                    h = x = self.add(h, x)
                skips.append(h)
            for _ in range(o.blocks):
                h, number = self.block(p["encoder"][str(number)], h), number + 1
                skips.append(h)
        h = self.block(p["middle"]["1"], self.block(p["middle"]["0"], h))
        outputs, number = [], 0
        for level in reversed(range(levels)):
            if level < levels - 1:
                h, number = self.block(p["decoder"][str(number)], h, change="double"), number + 1
            for _ in range(o.blocks + 1):
                h, number = self.block(p["decoder"][str(number)], h, skips.pop()), number + 1
            if level == 0:
                outputs.append(self.head(p["head"], h))
            elif o.outputs == "all":
                outputs.append(self.head(p["coarse"][str(level - 1)], h))
        return outputs[0] if o.outputs == "finest" else tuple(reversed(outputs))

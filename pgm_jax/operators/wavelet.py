"""The orthogonal discrete wavelet transform of images and volumes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from pgm_jax.operators.daubechies import daubechies_filter
from pgm_jax.operators.operator import LinearOperator, require_shape


class Wavelet(LinearOperator):
    """The periodic multi-level wavelet transform, orthogonal: `A^H A = A A^H = I` to rounding.

    Along each axis, with L taps h and their mirror `g_k = (-1)^(k + 1) h_(L - 1 - k)`,

        a_n = sum_k h_(L - 1 - k) x_(2 n + L / 2 - k),   d_n = sum_k g_k x_(2 n + L / 2 - k)      indices modulo N

    and again on the coarse band a, level by level. The coefficients have the shape of the image, the coarse band
    in the corner at the origin: those of PyWavelets' `wavedecn` with mode "periodization", put together by
    `coeffs_to_array`. Real or complex images.

    Source: S. Mallat, A theory for multiresolution signal decomposition, IEEE PAMI 11 (1989).

    Attributes:
        shape: shape of the image, such as (height, width, channel); sizes along the transformed axes are divisible
            by 2^levels.
        wavelet: "haar", or "db1" to "db10".
        levels: number of levels >= 1.
        axes: transformed axes; all but the last (channel) axis by default.
    """

    shape: tuple = struct.field(pytree_node=False)
    wavelet: str = struct.field(pytree_node=False, default="db4")
    levels: int = struct.field(pytree_node=False, default=3)
    axes: tuple | None = struct.field(pytree_node=False, default=None)

    _signed = True

    def __call__(self, x):
        """Computes the coefficients of an image, an array of its shape."""
        require_shape(x, self.domain, self, "image")
        return _analyse(x, self.wavelet, self._axes, self._corners)

    def adjoint(self, y):
        """Computes the image of coefficients y, which is also the inverse."""
        require_shape(y, self.range, self, "array of coefficients")
        return _synthesise(y, self.wavelet, self._axes, self._corners)

    def gram(self, x):
        require_shape(x, self.domain, self, "image")
        return jnp.asarray(x)

    def norm(self, *, steps: int = 50, key=None):
        """Returns 1, exactly."""
        return jnp.ones(())

    def details(self):
        """Marks the detail coefficients with 1 and the coarse band, which sparsity should not shrink, with 0.

        Returns:
            Real array of the shape of the coefficients.
        """
        marks = np.ones(self.shape)
        marks[_slices(_corner(self.shape, self._axes, self.levels))] = 0
        return jnp.asarray(marks, jnp.result_type(float))

    @property
    def domain(self):
        return jax.ShapeDtypeStruct(tuple(self.shape), jnp.result_type(float))

    @property
    def range(self):
        return self.domain

    @property
    def _axes(self):
        axes = tuple(range(len(self.shape) - 1)) if self.axes is None else tuple(self.axes)
        sizes = tuple(self.shape[axis] for axis in axes)
        if self.levels < 1 or any(size % 2**self.levels for size in sizes):
            raise ValueError(
                f"Wavelet of {self.levels} levels needs at least 1 level and sizes divisible by "
                f"{2 ** max(self.levels, 1)}, got {sizes}: pad the image, or take fewer levels"
            )
        return axes

    @property
    def _corners(self):
        """Sizes of the band that each level splits."""
        return tuple(_corner(self.shape, self._axes, level) for level in range(self.levels))


def _corner(shape, axes, level):
    halved = [axis % len(shape) for axis in axes]
    return tuple(size >> level if axis in halved else size for axis, size in enumerate(shape))


def _slices(sizes):
    return tuple(slice(0, size) for size in sizes)


# Compiled here, so that a call outside of jit is one program, not one for every tap.
@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _analyse(x, name, axes, corners):
    low, high = _filters(name)
    for corner in corners:
        part = x[_slices(corner)]
        for axis in axes:
            part = _split(part, axis, low, high)
        x = x.at[_slices(corner)].set(part)
    return x


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _synthesise(y, name, axes, corners):
    low, high = _filters(name)
    for corner in reversed(corners):
        part = y[_slices(corner)]
        for axis in reversed(axes):
            part = _join(part, axis, low, high)
        y = y.at[_slices(corner)].set(part)
    return y


def _filters(name):
    """Returns the analysis filters, the reconstruction filters reversed, as host numbers."""
    low = daubechies_filter(name)[::-1]
    return low, (-1.0) ** (np.arange(len(low)) + 1) * low[::-1]


def _split(x, axis, low, high):
    """Filters x with both filters along an axis and keeps every second sample: coarse half, then detail half."""
    taps, size = len(low), x.shape[axis]
    # x_(2 n + L / 2 - k) for all n and k lie in x from 1 - L / 2 to N - 2 + L / 2.
    around = _wrapped(x, axis, taps // 2 - 1, taps // 2)

    def filtered(weights):
        terms = (
            weight * jax.lax.slice_in_dim(around, taps - 1 - k, taps - 1 - k + size - 1, 2, axis)
            for k, weight in enumerate(weights)
        )
        return sum(terms)

    return jnp.concatenate([filtered(low), filtered(high)], axis)


def _join(y, axis, low, high):
    """Computes the adjoint of `_split`."""
    taps, size = len(low), y.shape[axis]
    bands = [jax.lax.slice_in_dim(y, start, start + size // 2, axis=axis) for start in (0, size // 2)]
    outputs = []
    for parity in (0, 1):
        # Sample 2 m + parity meets a_n and d_n with k = 2 (n - m) + L / 2 - parity in [0, L).
        offsets = [
            (k, (k + parity - taps // 2) // 2) for k in range(taps) if (k + parity - taps // 2) % 2 == 0
        ]
        before = max(0, -min(offset for _, offset in offsets))
        after = max(0, max(offset for _, offset in offsets))
        total = 0.0
        for band, weights in zip(bands, (low, high), strict=True):
            around = _wrapped(band, axis, before, after)
            for k, offset in offsets:
                start = before + offset
                total = total + weights[k] * jax.lax.slice_in_dim(around, start, start + size // 2, axis=axis)
        outputs.append(total)
    return jnp.stack(outputs, axis % y.ndim + 1).reshape(y.shape)


def _wrapped(x, axis, before, after):
    """Continues x periodically by some samples before and after, which may be more than it has."""
    size = x.shape[axis]
    if max(before, after) <= size:
        head = jax.lax.slice_in_dim(x, size - before, size, axis=axis)
        tail = jax.lax.slice_in_dim(x, 0, after, axis=axis)
        return jnp.concatenate([head, x, tail], axis)
    return jnp.take(x, np.arange(-before, size + after) % size, axis=axis)

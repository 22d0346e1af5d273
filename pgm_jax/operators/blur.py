"""Blur by a point spread function, and down-sampling."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from pgm_jax.operators.operator import LinearOperator, require_shape


class Blur(LinearOperator):
    """Convolution with a point spread function, `(A x)[i] = sum_j psf[j + c] x[i - j]`, c the centre of the psf.

    The centre is entry `size // 2` along each axis. Past the border the image wraps around ("periodic") or is 0
    ("zero"). By the FFT, in O(n log n) for any psf. Real or complex images.

    Attributes:
        psf: point spread function, real, one axis for each spatial axis of the image; of sum 1 to keep the mean.
        shape: shape of the image, such as (height, width, channel).
        boundary: "periodic" or "zero".
    """

    psf: Any
    shape: tuple = struct.field(pytree_node=False)
    boundary: str = struct.field(pytree_node=False, default="periodic")

    def __call__(self, x):
        require_shape(x, self.domain, self, "image")
        return self._filter(x, conjugate=False)

    def adjoint(self, y):
        """Computes `A^H y`, the correlation with the point spread function."""
        require_shape(y, self.range, self, "image")
        return self._filter(y, conjugate=True)

    @property
    def domain(self):
        return jax.ShapeDtypeStruct(tuple(self.shape), jnp.result_type(float))

    @property
    def range(self):
        return self.domain

    def _filter(self, x, conjugate):
        sizes, axes = self._sizes, tuple(range(len(self.shape) - 1))
        is_complex = jnp.iscomplexobj(x)
        transform = jnp.fft.fftn if is_complex else jnp.fft.rfftn
        response = transform(self._kernel(sizes), sizes, axes)[..., None]
        response = jnp.conj(response) if conjugate else response
        spectrum = response * transform(x, sizes, axes)
        inverse = jnp.fft.ifftn if is_complex else jnp.fft.irfftn
        return inverse(spectrum, sizes, axes)[tuple(slice(0, n) for n in self.shape)].astype(x.dtype)

    @property
    def _sizes(self):
        spatial, psf = tuple(self.shape[:-1]), jnp.shape(self.psf)
        if len(psf) != len(spatial) or any(p > n for p, n in zip(psf, spatial, strict=True)):
            raise ValueError(
                f"Blur needs a psf with {len(spatial)} axes and no larger than the image {spatial}, got {psf}"
            )
        if self.boundary not in ("periodic", "zero"):
            raise ValueError(f'Blur needs the boundary "periodic" or "zero", got {self.boundary!r}')
        # Zeros as wide as the psf keep what leaves the image from coming back on the other side.
        return tuple(n + p - 1 if self.boundary == "zero" else n for n, p in zip(spatial, psf, strict=True))

    def _kernel(self, sizes):
        psf = jnp.asarray(self.psf)
        padded = jnp.pad(psf, [(0, n - p) for n, p in zip(sizes, psf.shape, strict=True)])
        return jnp.roll(padded, [-(p // 2) for p in psf.shape], range(psf.ndim))


def gaussian_psf(fwhm, spacing, radius=3.0) -> np.ndarray:
    """Samples a Gaussian point spread function of sum 1, of odd size along each axis.

    Args:
        fwhm: full width at half maximum along each axis, mm; 0 for none.
        spacing: voxel size along each axis, mm.
        radius: half width of the window in standard deviations.

    Returns:
        float64 host array with one axis for each.

    Raises:
        ValueError: if a width is negative, a spacing not positive, or their numbers differ.
    """
    if len(fwhm) != len(spacing) or min(fwhm) < 0 or min(spacing) <= 0:
        raise ValueError(
            f"gaussian_psf needs one width >= 0 and spacing > 0 an axis, got {fwhm} and {spacing}"
        )
    psf = np.ones(())
    for width, step in zip(fwhm, spacing, strict=True):
        deviation = width / (2 * np.sqrt(2 * np.log(2))) / step
        half = int(np.ceil(radius * deviation))
        line = np.exp(-0.5 * (np.arange(-half, half + 1) / max(deviation, 1e-12)) ** 2)
        psf = np.multiply.outer(psf, line / line.sum())
    return psf


class Downsample(LinearOperator):
    """Coarser sampling, by the mean of each block of voxels or by its first voxel.

    After a `Blur` the latter is the model of super-resolution; the former is thicker slices.

    Attributes:
        shape: shape of the image, such as (height, width, channel).
        factors: size of the blocks along each axis but the last; they divide the image.
        kind: "mean" or "pick".
    """

    shape: tuple = struct.field(pytree_node=False)
    factors: tuple = struct.field(pytree_node=False)
    kind: str = struct.field(pytree_node=False, default="mean")

    def __call__(self, x):
        require_shape(x, self.domain, self, "image")
        if self._kind == "pick":
            return x[tuple(slice(None, None, f) for f in (*self.factors, 1))]
        blocks = [n for size, f in zip(self.shape, (*self.factors, 1), strict=True) for n in (size // f, f)]
        return jnp.mean(x.reshape(blocks), axis=tuple(range(1, len(blocks), 2)))

    def adjoint(self, y):
        require_shape(y, self.range, self, "image")
        if self._kind == "pick":
            return jax.lax.pad(
                y, jnp.zeros((), y.dtype), [(0, f - 1, f - 1) for f in self.factors] + [(0, 0, 0)]
            )
        for axis, factor in enumerate(self.factors):
            y = jnp.repeat(y, factor, axis) / factor
        return y

    def norm(self, *, steps: int = 50, key=None):
        """Returns the norm, exactly: 1, or one over the root of the number of voxels in a block."""
        size = np.prod(self.factors) if self._kind == "mean" else 1.0
        return jnp.asarray(1 / np.sqrt(size), jnp.result_type(float))

    @property
    def domain(self):
        return jax.ShapeDtypeStruct(tuple(self.shape), jnp.result_type(float))

    @property
    def range(self):
        spatial = self.shape[:-1]
        if len(self.factors) != len(spatial) or any(
            n % f for n, f in zip(spatial, self.factors, strict=False)
        ):
            raise ValueError(
                f"Downsample needs one factor an axis that divides {spatial}, got {self.factors}"
            )
        coarse = tuple(n // f for n, f in zip(spatial, self.factors, strict=True))
        return jax.ShapeDtypeStruct((*coarse, self.shape[-1]), jnp.result_type(float))

    @property
    def _kind(self):
        if self.kind not in ("mean", "pick"):
            raise ValueError(f'Downsample needs the kind "mean" or "pick", got {self.kind!r}')
        _ = self.range
        return self.kind

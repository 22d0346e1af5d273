"""The dipole convolution of quantitative susceptibility mapping."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from pgm_jax.operators.operator import LinearOperator, require_shape


class Dipole(LinearOperator):
    """The field shift of a magnetic susceptibility, `A = F^H D F` with `D(k) = 1/3 - (k . b)^2 / |k|^2`.

    b is the direction of the main field and D(0) = 0. Real and self-adjoint; D vanishes on the cone of the magic
    angle, so that A has no stable inverse. Without units: a susceptibility in ppm gives a field in ppm of the main
    one. The volume wraps around: pad it where the field has to fade.

    Source: J. Marques and R. Bowtell, Application of a Fourier-based method for rapid calculation of field
    inhomogeneity due to spatial variation of magnetic susceptibility (2005), Eq. 5.

    Attributes:
        shape: shape of the volume, (depth, height, width, channel).
        spacing: voxel size along (z, y, x), mm.
        direction: direction of the main field along (z, y, x), of any length; z by default.
    """

    shape: tuple = struct.field(pytree_node=False)
    spacing: tuple = struct.field(pytree_node=False, default=(1.0, 1.0, 1.0))
    direction: tuple = struct.field(pytree_node=False, default=(1.0, 0.0, 0.0))

    _signed = True

    def __call__(self, x):
        require_shape(x, self.domain, self, "volume")
        axes, sizes = (0, 1, 2), self.shape[:3]
        if jnp.iscomplexobj(x):
            return jnp.fft.ifftn(self._kernel(sizes[2]) * jnp.fft.fftn(x, axes=axes), axes=axes)
        kernel = self._kernel(sizes[2] // 2 + 1)
        return jnp.fft.irfftn(kernel * jnp.fft.rfftn(x, axes=axes), sizes, axes)

    def adjoint(self, y):
        return self(y)

    def norm(self, *, steps: int = 50, key=None):
        """Returns an upper bound, 2/3, which the wave along the field reaches."""
        return jnp.asarray(2 / 3, jnp.result_type(float))

    @property
    def domain(self):
        if len(self.shape) != 4 or len(self.spacing) != 3 or len(self.direction) != 3:
            raise ValueError(
                f"Dipole needs a volume (depth, height, width, channel), three spacings and three components, "
                f"got {self.shape}, {self.spacing} and {self.direction}"
            )
        if not np.any(self.direction) or min(self.spacing) <= 0:
            raise ValueError(
                f"Dipole needs a direction and spacings above 0, got {self.direction} and {self.spacing}"
            )
        return jax.ShapeDtypeStruct(tuple(self.shape), jnp.result_type(float))

    @property
    def range(self):
        return self.domain

    def _kernel(self, last):
        """D on the grid of the FFT, of which the last axis keeps `last` frequencies, from lines of host numbers."""
        along = np.asarray(self.direction, float) / np.linalg.norm(self.direction)
        squares, products = 0.0, 0.0
        lines = []
        for axis, (size, step) in enumerate(zip(self.shape[:3], self.spacing, strict=True)):
            k = np.fft.fftfreq(size, step)[: last if axis == 2 else size]
            odd = np.where(2 * np.arange(len(k)) == size, 0.0, k)
            shape = [1, 1, 1]
            shape[axis] = len(k)
            line = [jnp.asarray(v.reshape(shape), jnp.result_type(float)) for v in (k**2, odd)]
            squares = squares + line[0]
            products = products + along[axis] ** 2 * line[0]
            lines.append(line[1])
        # The frequency N / 2 stands for both signs, so that it has no part in the mixed terms: D stays even.
        for a, b in ((0, 1), (0, 2), (1, 2)):
            products = products + 2 * along[a] * along[b] * lines[a] * lines[b]
        empty = squares == 0
        return jnp.where(empty, 0.0, 1 / 3 - products / jnp.where(empty, 1.0, squares))[..., None]

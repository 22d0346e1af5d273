"""The non-uniform fast Fourier transform with a Kaiser-Bessel window."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from pgm_jax.operators.mri.checks import require_trajectory
from pgm_jax.operators.mri.gridding import TILE, gridding_tables, interpolate, spread
from pgm_jax.operators.mri.kaiser_bessel import kaiser_bessel_transform, shape_parameter
from pgm_jax.operators.operator import LinearOperator, require_shape


class NUFFT(LinearOperator):
    """Evaluates the orthonormal centred Fourier transform of an image at scattered k-space points.

    `y_m = N^(-1/2) sum_n x_n exp(-2 pi i sum_a k_ma (n_a - c_a) / N_a)`, c_a = N_a // 2, N the number of voxels.
    k is in cycles per field of view, so at integer k it equals `centred_fft` at index k + c, and -N_a / 2 and
    N_a / 2 are the edges of the band. Divided by the window's transform, padded, FFT, interpolated.

    Width 6 on a grid of twice the size is exact to about 5e-6 (relative, over all samples), width 4 to 5e-4.
    The adjoint is the exact conjugate transpose of the same approximation. The trajectory is fixed, its tables
    are built on the host: for gradients with respect to k use `NUDFT`.

    Source: P. J. Beatty, D. G. Nishimura, J. M. Pauly, IEEE TMI 24 (2005); J. A. Fessler, B. P. Sutton,
    Nonuniform fast Fourier transforms using min-max interpolation, IEEE TSP 51 (2003).

    Attributes:
        tables: of `gridding_tables`, from `create`.
        correction: for each axis 1 over the window's transform, (N_a,).
        shape: shape of the image without its channel.
        points: shape of the measurement.
        grid: shape of the oversampled grid.
        width: grid points under the window along one axis.
    """

    tables: tuple
    correction: tuple
    shape: tuple = struct.field(pytree_node=False)
    points: tuple = struct.field(pytree_node=False)
    grid: tuple = struct.field(pytree_node=False)
    width: int = struct.field(pytree_node=False)

    @classmethod
    def create(cls, trajectory, shape, *, width: int = 6, oversampling=2.0) -> "NUFFT":
        """Builds the tables for one trajectory.

        Args:
            trajectory: (..., d) points in cycles per field of view along the d image axes, |k_a| <= N_a / 2, on
                the host.
            shape: d sizes of the image, such as (height, width) or (depth, height, width).
            width: window width in grid points, 2 to 16; the error falls about tenfold with each point.
            oversampling: least ratio of grid to image size, in (1, 4]; sizes are rounded up to fast lengths.

        Raises:
            ValueError: if the trajectory is empty, not finite, outside the band or of another dimension, or an
                option is out of range.
        """
        shape = tuple(int(n) for n in shape)
        points = require_trajectory(trajectory, shape)
        if not 2 <= width <= 16 or not 1 < oversampling <= 4:
            raise ValueError(
                f"NUFFT got width {width} and oversampling {oversampling}: "
                "width must lie in [2, 16], oversampling in (1, 4]"
            )
        grid = tuple(_grid_size(n, oversampling, width) for n in shape)
        ratio = [g / n for g, n in zip(grid, shape, strict=True)]
        position = points.reshape(-1, len(shape)) * np.asarray(ratio)
        real = jnp.result_type(float)
        tables = gridding_tables(position, grid, width, ratio)
        correction = tuple(
            jnp.asarray(1 / _response(n, g, width), real) for n, g in zip(shape, grid, strict=True)
        )
        tables = tuple(jnp.asarray(t, t.dtype if t.dtype == np.int32 else real) for t in tables)
        return cls(tables, correction, shape, points.shape[:-1], grid, width)

    def __call__(self, x):
        """Computes the samples (*points,) of an image (*shape, 1)."""
        require_shape(x, self.domain, self, "image")
        x = self._correct(x[..., 0])
        for axis, (n, g) in enumerate(zip(self.shape, self.grid, strict=True)):
            x = jnp.roll(jnp.pad(x, [(0, g - n if a == axis else 0) for a in range(x.ndim)]), -(n // 2), axis)
        samples = interpolate(self.tables, jnp.fft.fftn(x)[..., None], grid=self.grid, width=self.width)
        return samples.reshape(self.points)

    def adjoint(self, y):
        """Computes `A^H y`, an image (*shape, 1), of samples (*points,)."""
        require_shape(y, self.range, self, "k-space")
        y = jnp.asarray(y, jnp.result_type(y, jnp.complex64)).reshape(-1, 1)
        # N = size of the grid undoes the scale of ifftn.
        x = jnp.fft.ifftn(spread(self.tables, y, grid=self.grid, width=self.width)[..., 0], norm="forward")
        for axis, n in enumerate(self.shape):
            x = jax.lax.slice_in_dim(jnp.roll(x, n // 2, axis), 0, n, axis=axis)
        return self._correct(x)[..., None]

    def _correct(self, x):
        for axis, correction in enumerate(self.correction):
            x = x * correction.reshape([-1 if a == axis else 1 for a in range(x.ndim)])
        return x

    @property
    def domain(self):
        return jax.ShapeDtypeStruct((*self.shape, 1), jnp.result_type(self.correction[0], jnp.complex64))

    @property
    def range(self):
        return jax.ShapeDtypeStruct(self.points, self.domain.dtype)


def fast_length(n: int) -> int:
    """Returns the least length >= n without a prime factor above 7, for which FFTs are fast."""
    while True:
        rest = n
        for prime in (2, 3, 5, 7):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 1


def _grid_size(n, oversampling, width):
    # At least a window wide, so that no sample meets a grid point twice.
    return TILE * fast_length(-(-int(np.ceil(max(oversampling * n, width))) // TILE))


def _response(n, g, width):
    """Returns what interpolation does to the voxels of one axis, with the orthonormal scale sqrt(n)."""
    transform = kaiser_bessel_transform((np.arange(n) - n // 2) / g, width, shape_parameter(width, g / n))
    return np.sqrt(n) * transform

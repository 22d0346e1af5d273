"""Orthonormal Fourier and Hartley transforms over the spatial axes of an image."""

import jax
import jax.numpy as jnp
from flax import struct

from pgm_jax.operators.operator import LinearOperator, require_shape


def centred_fft(x, axes):
    """Computes the centred orthonormal FFT, `fftshift fft(norm="ortho") ifftshift`; DC lies at `N // 2`.

    Args:
        x: real or complex array.
        axes: axes to transform.

    Returns:
        Complex array of the shape of x.
    """
    spectrum = jnp.fft.fftn(jnp.fft.ifftshift(x, axes), axes=axes, norm="ortho")
    return jnp.fft.fftshift(spectrum, axes)


def centred_ifft(y, axes):
    """Computes the inverse, and adjoint, of `centred_fft`.

    Args:
        y: real or complex array.
        axes: axes to transform.

    Returns:
        Complex array of the shape of y.
    """
    image = jnp.fft.ifftn(jnp.fft.ifftshift(y, axes), axes=axes, norm="ortho")
    return jnp.fft.fftshift(image, axes)


class Fourier(LinearOperator):
    """The centred orthonormal Fourier transform; unitary, `A^H A = I`.

    `(A x)_k = N^(-1/2) sum_n x_n exp(-2 pi i (k - c)(n - c) / N)` along each axis, with c = N // 2.

    Attributes:
        shape: shape of the image, such as (height, width, channel).
        axes: axes to transform; all but the last (channel) axis by default.
    """

    shape: tuple = struct.field(pytree_node=False)
    axes: tuple | None = struct.field(pytree_node=False, default=None)

    def __call__(self, x):
        require_shape(x, self.domain, self, "image")
        return centred_fft(x, self._axes)

    def adjoint(self, y):
        require_shape(y, self.range, self, "spectrum")
        return centred_ifft(y, self._axes)

    def gram(self, x):
        require_shape(x, self.domain, self, "image")
        return jnp.asarray(x)

    def norm(self, *, steps: int = 50, key=None):
        """Returns 1, exactly."""
        return jnp.ones(())

    @property
    def domain(self):
        return jax.ShapeDtypeStruct(tuple(self.shape), jnp.result_type(complex))

    @property
    def range(self):
        return self.domain

    @property
    def _axes(self):
        return tuple(range(len(self.shape) - 1)) if self.axes is None else tuple(self.axes)


class Hartley(LinearOperator):
    """The orthonormal Hartley transform: real, self-adjoint and its own inverse.

    `(A x)_k = N^(-1/2) sum_n x_n cas(2 pi k n / N)`, `cas = cos + sin`, which is `Re F x - Im F x` of the
    uncentred orthonormal FFT F (several axes share one angle, the sum over axes of 2 pi k n / N). In these
    real coordinates every stationary covariance with a symmetric spectrum is diagonal.

    Source: R. N. Bracewell, Discrete Hartley transform, J. Opt. Soc. Am. 73 (1983).

    Attributes:
        shape: shape of the real image, such as (height, width, channel).
        axes: axes to transform; all but the last (channel) axis by default.
    """

    shape: tuple = struct.field(pytree_node=False)
    axes: tuple | None = struct.field(pytree_node=False, default=None)

    def __call__(self, x):
        require_shape(x, self.domain, self, "image", allow_complex=False)
        spectrum = jnp.fft.fftn(x, axes=self._axes, norm="ortho")
        return jnp.real(spectrum) - jnp.imag(spectrum)

    def adjoint(self, y):
        return self(y)

    def gram(self, x):
        require_shape(x, self.domain, self, "image", allow_complex=False)
        return jnp.asarray(x)

    def norm(self, *, steps: int = 50, key=None):
        """Returns 1, exactly."""
        return jnp.ones(())

    @property
    def domain(self):
        return jax.ShapeDtypeStruct(tuple(self.shape), jnp.result_type(float))

    @property
    def range(self):
        return self.domain

    @property
    def _axes(self):
        return tuple(range(len(self.shape) - 1)) if self.axes is None else tuple(self.axes)

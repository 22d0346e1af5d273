"""Parallel MRI on a Cartesian grid: coil sensitivities, Fourier transform, sampling mask."""

from typing import Any

import jax
import jax.numpy as jnp

from pgm_jax.operators.fourier import centred_fft, centred_ifft
from pgm_jax.operators.operator import LinearOperator, require_shape

_SPACE = (-2, -1)


class Sense(LinearOperator):
    """Maps an image to the k-space of every coil: `y_c = M F (S_c x)`, `A^H y = sum_c conj(S_c) F^H M y_c`.

    F is the centred orthonormal FFT (DC at N // 2), so `||A|| <= 1` for normalised maps and a mask of zeros
    and ones, and `A^H A` is the identity with a full mask. Unmeasured entries of y are zero.

    Source: K. P. Pruessmann et al., Advances in sensitivity encoding with arbitrary k-space trajectories,
    MRM 46 (2001), its signal model on a Cartesian grid.

    Attributes:
        maps: sensitivities (coils, height, width), complex, unitless.
        mask: sampling weights that broadcast against (height, width): (width,), (height, 1) or all of it.
    """

    maps: Any
    mask: Any

    @classmethod
    def single(cls, height: int, width: int, mask) -> "Sense":
        """Returns the operator of one coil of uniform sensitivity, a plain masked Fourier transform.

        Args:
            height: rows of the image.
            width: columns of the image.
            mask: sampling weights that broadcast against (height, width).
        """
        return cls(jnp.ones((1, height, width), jnp.result_type(complex)), mask)

    def __call__(self, x):
        require_shape(x, self.domain, self, "image")
        return self._weights[None] * centred_fft(self.maps * x[None, :, :, 0], _SPACE)

    def adjoint(self, y):
        require_shape(y, self.range, self, "k-space")
        coils = centred_ifft(self._weights[None] * y, _SPACE)
        return jnp.sum(jnp.conj(self.maps) * coils, axis=0)[:, :, None]

    def gram(self, x):
        """Computes `sum_c conj(S_c) F^H M^2 F S_c x` shifting the image instead of the coils.

        Along an axis on which the mask is constant F^H F cancels, so whole lines of k-space cost one 1-D FFT.
        """
        require_shape(x, self.domain, self, "image")
        weights = self._weights
        shape = (1,) * (2 - jnp.ndim(self.mask)) + jnp.shape(self.mask)
        axes = tuple(axis for axis, size in zip(_SPACE, shape, strict=True) if size > 1)
        if not axes:
            power = jnp.sum(jnp.abs(self.maps) ** 2, axis=0)[:, :, None]
            return weights[:, :, None] ** 2 * power * x
        maps = jnp.fft.ifftshift(self.maps, axes)
        power = jnp.fft.ifftshift(weights**2, axes)
        coils = maps * jnp.fft.ifftshift(x[:, :, 0], axes)[None]
        coils = jnp.fft.ifftn(power[None] * jnp.fft.fftn(coils, axes=axes), axes=axes)
        return jnp.fft.fftshift(jnp.sum(jnp.conj(maps) * coils, axis=0), axes)[:, :, None]

    @property
    def domain(self):
        self._require_maps()
        _, height, width = self.maps.shape
        return jax.ShapeDtypeStruct((height, width, 1), self._dtype)

    @property
    def range(self):
        self._require_maps()
        return jax.ShapeDtypeStruct(self.maps.shape, self._dtype)

    @property
    def _dtype(self):
        return jnp.result_type(self.maps, jnp.complex64)

    @property
    def _weights(self):
        """The mask as a real (height, width) array in the precision of the maps."""
        size, shape = self.maps.shape[1:], jnp.shape(self.mask)
        padded = (1,) * (2 - len(shape)) + shape
        if len(shape) > 2 or any(m not in (1, n) for m, n in zip(padded, size, strict=True)):
            raise ValueError(
                f"Sense needs a mask that broadcasts against (height, width) {size}, got {shape}: "
                "give (width,), (height, 1) or (height, width)"
            )
        mask = jnp.asarray(self.mask, jnp.zeros((), self._dtype).real.dtype)
        return jnp.broadcast_to(mask, size)

    def _require_maps(self):
        if len(jnp.shape(self.maps)) != 3:
            raise ValueError(
                f"Sense needs maps of shape (coils, height, width), got {jnp.shape(self.maps)}: "
                "add a leading axis for one coil, or use Sense.single"
            )

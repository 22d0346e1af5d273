"""Parallel MRI on a Cartesian grid: coil sensitivities, Fourier transform, sampling mask."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax.operators.fourier import centred_fft, centred_ifft
from pgm_jax.operators.operator import LinearOperator, require_shape


class Sense(LinearOperator):
    """Maps an image or volume to the k-space of every coil: `y_c = M F (S_c x)`.

    `A^H y = sum_c conj(S_c) F^H M y_c`. F is the centred orthonormal FFT (DC at N // 2), so `||A|| <= 1` for
    normalised maps and a mask of zeros and ones, and `A^H A` is the identity with a full mask. Unmeasured
    entries of y are zero. Where every coil has zero sensitivity A sees nothing: `A^H y` is 0 there, and so is
    what CG makes of it.

    Source: K. P. Pruessmann et al., Advances in sensitivity encoding with arbitrary k-space trajectories,
    MRM 46 (2001), its signal model on a Cartesian grid.

    Attributes:
        maps: sensitivities (coils, height, width) or (coils, depth, height, width), complex, unitless.
        mask: sampling weights that broadcast against the image: (width,), (height, 1), (height, width), ...
    """

    maps: Any
    mask: Any

    @classmethod
    def create(cls, maps, mask) -> "Sense":
        """Checks the numbers on the host; otherwise the same as the constructor.

        Args:
            maps: sensitivities (coils, *shape).
            mask: sampling weights that broadcast against the shape of the image.

        Raises:
            ValueError: if the shapes do not fit, an entry is not finite, or the mask measures nothing.
        """
        operator = cls(jnp.asarray(maps), mask)
        operator._require_maps()
        weights = np.asarray(operator._weights)
        bad = int(np.sum(~np.isfinite(np.asarray(maps)))) + int(np.sum(~np.isfinite(weights)))
        if bad:
            raise ValueError(f"maps and mask have {bad} entries that are not finite: set them to 0")
        if not np.any(weights):
            raise ValueError("the mask is empty, so nothing would be measured: give it at least one line")
        return operator

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
        return self._weights[None] * centred_fft(self.maps * x[None, ..., 0], self._space)

    def adjoint(self, y):
        require_shape(y, self.range, self, "k-space")
        coils = centred_ifft(self._weights[None] * y, self._space)
        return jnp.sum(jnp.conj(self.maps) * coils, axis=0)[..., None]

    def gram(self, x):
        """Computes `sum_c conj(S_c) F^H M^2 F S_c x` shifting the image instead of the coils.

        Along an axis on which the mask is constant F^H F cancels, so whole lines of k-space cost one 1-D FFT.
        """
        require_shape(x, self.domain, self, "image")
        weights, space = self._weights, self._space
        shape = (1,) * (len(space) - jnp.ndim(self.mask)) + jnp.shape(self.mask)
        axes = tuple(axis for axis, size in zip(space, shape, strict=True) if size > 1)
        if not axes:
            power = jnp.sum(jnp.abs(self.maps) ** 2, axis=0)[..., None]
            return weights[..., None] ** 2 * power * x
        maps = jnp.fft.ifftshift(self.maps, axes)
        power = jnp.fft.ifftshift(weights**2, axes)
        coils = maps * jnp.fft.ifftshift(x[..., 0], axes)[None]
        coils = jnp.fft.ifftn(power[None] * jnp.fft.fftn(coils, axes=axes), axes=axes)
        return jnp.fft.fftshift(jnp.sum(jnp.conj(maps) * coils, axis=0), axes)[..., None]

    @property
    def domain(self):
        self._require_maps()
        return jax.ShapeDtypeStruct((*self.maps.shape[1:], 1), self._dtype)

    @property
    def range(self):
        self._require_maps()
        return jax.ShapeDtypeStruct(self.maps.shape, self._dtype)

    @property
    def _dtype(self):
        return jnp.result_type(self.maps, jnp.complex64)

    @property
    def _space(self):
        """The image axes of the maps, counted from the last."""
        return tuple(range(1 - jnp.ndim(self.maps), 0))

    @property
    def _weights(self):
        """The mask as a real array of the shape of the image, in the precision of the maps."""
        size, shape = self.maps.shape[1:], jnp.shape(self.mask)
        padded = (1,) * (len(size) - len(shape)) + shape
        if len(shape) > len(size) or any(m not in (1, n) for m, n in zip(padded, size, strict=True)):
            raise ValueError(
                f"Sense needs a mask that broadcasts against the image {size}, got {shape}: "
                "give (width,), (height, 1) or (height, width), for a volume also (depth, 1, 1) and so on"
            )
        mask = jnp.asarray(self.mask, jnp.zeros((), self._dtype).real.dtype)
        return jnp.broadcast_to(mask, size)

    def _require_maps(self):
        if jnp.ndim(self.maps) not in (3, 4):
            raise ValueError(
                f"Sense needs maps of shape (coils, height, width) or (coils, depth, height, width), got "
                f"{jnp.shape(self.maps)}: add a leading axis for one coil, or use Sense.single"
            )

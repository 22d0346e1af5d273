"""The resolution of a scanner as a blur of the image."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from pgm_jax.operators.emission.collimator import band, blur, collimator_kernels
from pgm_jax.operators.operator import LinearOperator, require_shape


class GaussianPSF(LinearOperator):
    """Convolves an image with a normal law along each axis; its own adjoint.

    The kernel is integrated over voxels, cut at 3.5 standard deviations, non-negative and of sum 1, so that
    EM keeps an image >= 0 and no voxel goes without sensitivity, which an FFT cannot promise. What is blurred
    beyond the image is lost.

    Attributes:
        kernels: one kernel for each spatial axis, (taps,).
        shape: shape of the image, (height, width, channels) or (depth, height, width, channels).
    """

    kernels: tuple
    shape: tuple = struct.field(pytree_node=False)

    @classmethod
    def create(cls, shape, fwhm, spacing) -> "GaussianPSF":
        """Builds the kernels on the host in float64.

        Args:
            shape: shape of the image; its last axis, the channels, is not blurred.
            fwhm: full width at half maximum in mm, one number or one for each spatial axis; 0 for none.
            spacing: voxel size in mm, one number or one for each spatial axis.

        Returns:
            The operator.

        Raises:
            ValueError: for widths or spacings that are not one number or one an axis, or out of range.
        """
        axes = len(shape) - 1
        widths, steps = (np.asarray(values, np.float64) for values in (fwhm, spacing))
        if any(values.shape not in ((), (axes,)) for values in (widths, steps)):
            raise ValueError(
                f"GaussianPSF of an image with {axes} spatial axes needs one fwhm and one spacing, or {axes} of "
                f"each, got {widths.shape} and {steps.shape}"
            )
        if not (np.all((widths >= 0) & np.isfinite(widths)) and np.all((steps > 0) & np.isfinite(steps))):
            raise ValueError(f"GaussianPSF needs fwhm >= 0 and spacing > 0 in mm, got {fwhm} and {spacing}")
        pairs = zip(np.broadcast_to(widths, axes), np.broadcast_to(steps, axes), strict=True)
        kernels = tuple(collimator_kernels(np.zeros(()), width, 0.0, step) for width, step in pairs)
        return cls(tuple(jnp.asarray(kernel, jnp.result_type(float)) for kernel in kernels), tuple(shape))

    def __call__(self, x):
        require_shape(x, self.domain, self, "image")
        for axis, kernel in enumerate(self.kernels):
            if kernel.shape[0] > 1:
                x = blur(x, band(kernel, self.shape[axis]), axis)
        return x

    def adjoint(self, y):
        return self(y)

    @property
    def domain(self):
        return jax.ShapeDtypeStruct(self.shape, self.kernels[0].dtype)

    @property
    def range(self):
        return self.domain

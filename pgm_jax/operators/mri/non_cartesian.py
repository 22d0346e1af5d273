"""Parallel MRI along any trajectory: coil sensitivities and a non-uniform Fourier transform."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax.operators.mri.checks import require_finite
from pgm_jax.operators.mri.nufft import NUFFT
from pgm_jax.operators.mri.toeplitz import toeplitz_apply, toeplitz_kernel
from pgm_jax.operators.operator import LinearOperator, require_shape


class NonCartesian(LinearOperator):
    """Maps an image or volume to the samples of every coil: `y_c = sqrt(W) F (S_c x)`.

    `A^H y = sum_c conj(S_c) F^H sqrt(W) y_c` and `A^H A` by convolution (Toeplitz). F is scaled like the
    orthonormal FFT, so at the points of the grid A is `Sense` with a full mask. Where every coil has zero
    sensitivity A sees nothing: `A^H y` and what CG makes of it are 0 there.

    Weights W >= 0 act on both sides of the least-squares problem: pass `operator.weigh(y)` as the measurement.
    With the sampling density they precondition CG; as noise precisions they weigh the data.

    Source: K. P. Pruessmann et al., Advances in sensitivity encoding with arbitrary k-space trajectories, MRM
    46 (2001); J. A. Fessler et al., Toeplitz-based iterative image reconstruction, IEEE TSP 53 (2005).

    Attributes:
        maps: sensitivities (coils, *shape), complex, unitless.
        transform: `NUFFT` or `NUDFT` F.
        weights: W, real, of the shape of one coil's samples, or None for 1.
        kernel: transfer function of `F^H W F`, or None: then `gram` is the adjoint of the forward map.
    """

    maps: Any
    transform: Any
    weights: Any = None
    kernel: Any = None

    @classmethod
    def create(cls, maps, trajectory, *, weights=None, width: int = 6, oversampling=2.0) -> "NonCartesian":
        """Builds the NUFFT and the Toeplitz kernel of one trajectory, on the host.

        Args:
            maps: sensitivities (coils, height, width) or (coils, depth, height, width).
            trajectory: (..., d) points in cycles per field of view along the image axes, |k_a| <= N_a / 2.
            weights: W >= 0 that broadcast to the samples (...,), or None.
            width: window width of the NUFFT in grid points.
            oversampling: least ratio of grid to image size.

        Raises:
            ValueError: as for `NUFFT.create`, or if maps or weights have entries that are not finite, a weight
                is negative, or all weights are 0.
        """
        shape = _image_shape(maps)
        require_finite(maps, "maps")
        transform = NUFFT.create(trajectory, shape, width=width, oversampling=oversampling)
        if weights is not None:
            require_finite(weights, "weights")
            if np.min(weights) < 0 or not np.max(weights) > 0:
                raise ValueError("weights must be >= 0 and not all 0: no sample would be measured")
            real = jnp.zeros((), transform.range.dtype).real.dtype
            weights = jnp.broadcast_to(jnp.asarray(weights, real), transform.range.shape)
        kernel = jax.jit(lambda f, w: toeplitz_kernel(f, trajectory, w))(transform, weights)
        return cls(jnp.asarray(maps), transform, weights, kernel)

    @classmethod
    def single(cls, shape, trajectory, **options) -> "NonCartesian":
        """Returns the operator of one coil of uniform sensitivity.

        Args:
            shape: (height, width) or (depth, height, width).
            trajectory: as for `create`.
            **options: as for `create`.
        """
        return cls.create(jnp.ones((1, *shape), jnp.result_type(complex)), trajectory, **options)

    def __call__(self, x):
        require_shape(x, self.domain, self, "image")
        image = x[..., 0]
        return self.weigh(each_coil(lambda s: self.transform((s * image)[..., None]), self.maps))

    def adjoint(self, y):
        require_shape(y, self.range, self, "k-space")

        def coil(pair):
            s, samples = pair
            return jnp.conj(s) * self.transform.adjoint(samples)[..., 0]

        return jnp.sum(each_coil(coil, (self.maps, self.weigh(y))), axis=0)[..., None]

    def gram(self, x):
        """Computes `sum_c conj(S_c) F^H W F S_c x` with two FFTs of twice the size a coil."""
        if self.kernel is None:
            return self.adjoint(self(x))
        require_shape(x, self.domain, self, "image")
        image = x[..., 0]
        coils = each_coil(lambda s: jnp.conj(s) * toeplitz_apply(self.kernel, s * image), self.maps)
        return jnp.sum(coils, axis=0)[..., None]

    def weigh(self, y):
        """Computes `sqrt(W) y`, the measurement that belongs to a weighted operator.

        Args:
            y: samples (coils, ...).
        """
        return y if self.weights is None else jnp.sqrt(self.weights)[None] * y

    @property
    def domain(self):
        shape = _image_shape(self.maps)
        if shape != self.transform.shape:
            raise ValueError(
                f"maps are {shape} but the transform is of an image {self.transform.shape}: build both for it"
            )
        return jax.ShapeDtypeStruct((*shape, 1), self._dtype)

    @property
    def range(self):
        return jax.ShapeDtypeStruct((self.maps.shape[0], *self.transform.range.shape), self._dtype)

    @property
    def _dtype(self):
        return jnp.result_type(self.maps, self.transform.range.dtype)


def _image_shape(maps):
    if len(jnp.shape(maps)) not in (3, 4):
        raise ValueError(
            f"NonCartesian needs maps (coils, height, width) or (coils, depth, height, width), got "
            f"{jnp.shape(maps)}: add a leading axis for one coil, or use NonCartesian.single"
        )
    return jnp.shape(maps)[1:]


def each_coil(function, coils):
    """Applies a function to every coil: together where that pays, one after the other where memory does.

    The padded grid of a volume is eight times its size, and on a CPU that of an image just fits the cache.

    Args:
        function: function of the slices of `coils`.
        coils: pytree of arrays (coils, ...); the first is the map of an image or a volume.

    Returns:
        The stacked results.
    """
    if jax.tree.leaves(coils)[0].shape[0] == 1:
        # A loop of one step would copy what it carries: half as long again as the FFTs of an image.
        alone = function(jax.tree.map(lambda part: part[0], coils))
        return jax.tree.map(lambda part: part[None], alone)
    if jax.tree.leaves(coils)[0].ndim > 3:
        return jax.lax.map(function, coils)
    return jax.lax.platform_dependent(
        coils, cpu=lambda c: jax.lax.map(function, c), default=lambda c: jax.vmap(function)(c)
    )

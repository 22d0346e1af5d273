"""The stationary Gaussian prior: diagonal in the Fourier basis, exact at any image size."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from pgm_jax.core import safe_divide
from pgm_jax.operators import Hartley
from pgm_jax.priors.base import Prior, one_number, working_dtype
from pgm_jax.priors.circulant import gram_spectrum, is_circulant
from pgm_jax.priors.dense import HIGHEST
from pgm_jax.priors.diagonal import DiagonalGaussianPrior
from pgm_jax.priors.evidence import likely_variance, multiplicity
from pgm_jax.priors.linear_posterior import LinearPosterior
from pgm_jax.priors.spectrum import RadialSpectrum, fit_spectrum
from pgm_jax.processes.normal import unit_normal


class StationaryGaussianPrior(Prior):
    """A periodic stationary Gaussian image `mean + F^H sqrt(P) F z`, z unit white noise, F the ortho FFT.

    `power` P is the eigenvalue of the covariance of the real components at each frequency: white noise of
    standard deviation s per real component has P = s^2 everywhere, real or complex. So P = E|X_k|^2 for a
    real image and E|X_k|^2 / 2, the variance per real component of X_k, for a complex one. Channels are
    independent. A denoiser is one Wiener filter, averaged over the noise law before it is applied.

    Attributes:
        mean: a number, one number a channel (channel,), or an image.
        power: real array of the image's shape (h, w, channel) or (d, h, w, channel), in FFT order (DC first),
            equal at k and -k for real images; intensity squared.
        dtype: dtype of the image, static; decides whether it is complex. None: the dtype of power.
    """

    mean: Any
    power: Any
    dtype: Any = struct.field(pytree_node=False, default=None)

    @classmethod
    def fit(cls, images, spacing, unit="") -> RadialSpectrum:
        """Estimates a radial power spectrum from images; `.at(shape, spacing)` of it gives the prior.

        Args:
            images: array (n, h, w, channel) or (n, d, h, w, channel), or a list of images of any sizes.
            spacing: voxel size in mm: a number, one an axis, or a list of them, one an image.
            unit: unit of the intensities, such as "HU"; recorded.

        Returns:
            `RadialSpectrum`; see `fit_spectrum`.

        Raises:
            ValueError: see `fit_spectrum`.
        """
        return fit_spectrum(images, spacing, unit)

    @property
    def is_complex(self) -> bool:
        """Whether images are complex."""
        return self.dtype is not None and jnp.issubdtype(self.dtype, jnp.complexfloating)

    @property
    def image_dtype(self):
        """The dtype of an image."""
        return jnp.dtype(self.dtype) if self.dtype is not None else jnp.asarray(self.power).dtype

    @property
    def mean_image(self):
        """The mean, of the image's shape."""
        mean, shape = jnp.asarray(self.mean, self.image_dtype), self.power.shape
        if mean.ndim <= 1:
            mean = jnp.reshape(mean, (1,) * (len(shape) - 1) + (-1,))
        return jnp.broadcast_to(mean, shape)

    def filter(self, x, gain):
        """Applies the Fourier multiplier `F^H gain F`.

        Args:
            x: image.
            gain: real array over the frequencies that `half` keeps.

        Returns:
            Image of the shape of x.
        """
        return self._inverse(gain * self._transform(x))

    def half(self, spectrum):
        """Keeps the frequencies that a real FFT returns: the half w // 2 + 1 of the last spatial axis.

        Args:
            spectrum: real array of the image's shape, equal at k and -k.

        Returns:
            Array (..., w // 2 + 1, channel), or the whole spectrum for complex images.
        """
        return spectrum if self.is_complex else spectrum[..., : spectrum.shape[-2] // 2 + 1, :]

    def real_part(self, x):
        """Returns x, or its real part where the images of this prior are real.

        Args:
            x: image, such as an adjoint applied to complex data.

        Returns:
            Image of the prior's kind.
        """
        return x if self.is_complex else jnp.real(x)

    def observe(self, x, alpha):
        """See `Prior.observe`: Wiener gain `alpha P / (alpha^2 P + variance)` at each frequency.

        Args:
            x: state of the image's shape.
            alpha: scale of the clean image, a scalar.

        Returns:
            `(given, combine, offset)`; one FFT each way, the evidence is a sum over frequencies.

        Raises:
            ValueError: for voxel-wise alpha or sigma, or if x does not match the prior.
        """
        self._check(x)
        one_number("alpha", alpha, "StationaryGaussianPrior")
        mean, dtype = self.mean_image, working_dtype(x)
        power = self.half(jnp.asarray(self.power, dtype))
        signal = alpha**2 * power
        spectrum = self._transform(x - alpha * mean)
        energy = jnp.abs(spectrum) ** 2 / (2 if self.is_complex else 1)
        count = jnp.ravel(
            jnp.broadcast_to(multiplicity(self.power.shape, self.is_complex, dtype), signal.shape)
        )
        # A product, not a sum: XLA's CPU reductions would compute the logarithms one by one.
        weighted = lambda terms: jnp.dot(jnp.ravel(terms), count, precision=HIGHEST)
        nearby = likely_variance(energy, signal, weighted)
        level = signal + nearby
        inverse, ratio = 1 / level, energy / level

        def given(variance):
            one_number("sigma", variance, "StationaryGaussianPrior")
            total = signal + variance
            # Relative to a nearby level: in float32 the sum itself is coarser than the evidence it holds.
            terms = ratio * safe_divide(nearby - variance, total) + jnp.log(total * inverse)
            log_density = -0.5 * weighted(terms)
            return log_density, (jnp.ones_like(log_density), safe_divide(alpha * power, total))

        def combine(statistics):
            share, gain = statistics
            return share * mean + self._inverse(gain * spectrum)

        log_two_pi = self.power.size * (2 if self.is_complex else 1) * jnp.log(2 * jnp.pi)
        offset = -0.5 * (weighted(ratio + jnp.log(level)) + log_two_pi)
        return given, combine, offset

    def sample(self, key):
        """Draws one image, `mean + F^H sqrt(P) F z`.

        Args:
            key: PRNG key.

        Returns:
            Array of the image's shape and dtype.
        """
        z = unit_normal(key, self.power.shape, self.image_dtype)
        return self.mean_image + self.filter(z, self.half(jnp.sqrt(self.power))).astype(z.dtype)

    def covariance(self, x):
        """Applies the prior covariance `F^H P F`.

        Args:
            x: image.

        Returns:
            Image of the shape of x.
        """
        return self.filter(x, self.half(self.power))

    def in_hartley(self) -> DiagonalGaussianPrior:
        """Returns the same prior in Hartley coordinates, where its coefficients are independent.

        Raises:
            ValueError: for complex images.
        """
        if self.is_complex:
            raise ValueError(
                "Hartley coordinates are for real images: write a complex image in Fourier coordinates."
            )
        return DiagonalGaussianPrior(Hartley(self.power.shape)(self.mean_image), self.power)

    def posterior(self, operator, y, noise_std, *, circulant=None, rtol=1e-5, max_steps=2000):
        """Conditions on `y = A x + noise_std n`.

        If `A^H A` is a Fourier multiplier with spectrum g (a Cartesian mask of one coil, a blur, the
        identity) the posterior is stationary again, for real images with complex data too:

            mean m + F^H [P / (g P + s^2)] F Re A^H (y - A m),   power P s^2 / (g P + s^2).

        Any other operator gives a `LinearPosterior`: mean by CG, exact draws by perturb-and-MAP.

        Args:
            operator: linear map with an adjoint.
            y: measurement.
            noise_std: standard deviation s per real component of y; an array is never circulant.
            circulant: whether `A^H A` is a Fourier multiplier; None tests it on one image where all values
                are known, and says no under `jit`: state it there.
            rtol: relative residual at which CG stops.
            max_steps: most CG steps; a prior of wide range and little noise takes a thousand.

        Returns:
            `StationaryGaussianPrior` with an image as mean, or `LinearPosterior`.

        Raises:
            ValueError: if `circulant=True` and noise_std is not one number.
        """
        one_level = not isinstance(noise_std, (tuple, list)) and jnp.ndim(noise_std) == 0
        if circulant and not one_level:
            raise ValueError(
                "posterior: a circulant problem has one noise_std for all of y; say circulant=False."
            )
        if circulant is None:
            circulant = one_level and is_circulant(self, operator)
        if not circulant:
            return LinearPosterior(self, operator, y, noise_std, rtol, max_steps)
        mean = self.mean_image
        gap = jax.tree.map(lambda a, b: a - b, y, operator(mean))
        total = gram_spectrum(self, operator) * self.power + noise_std**2
        shift = self.filter(self.real_part(operator.adjoint(gap)), self.half(safe_divide(self.power, total)))
        new_power = safe_divide(self.power * noise_std**2, total)
        return self.replace(mean=(mean + shift).astype(mean.dtype), power=new_power)

    def _check(self, x):
        if x.shape != self.power.shape or jnp.iscomplexobj(x) != self.is_complex:
            raise ValueError(
                f"StationaryGaussianPrior is of {self.power.shape} {self.image_dtype} images, got {x.shape} "
                f"{x.dtype}: build it with fit(...).at(shape, spacing); dtype=complex64 makes it complex."
            )

    @property
    def _axes(self):
        return tuple(range(len(self.power.shape) - 1))

    def _transform(self, x):
        transform = jnp.fft.fftn if self.is_complex else jnp.fft.rfftn
        return transform(x.astype(jnp.promote_types(x.dtype, jnp.float32)), axes=self._axes, norm="ortho")

    def _inverse(self, spectrum):
        if self.is_complex:
            return jnp.fft.ifftn(spectrum, axes=self._axes, norm="ortho")
        return jnp.fft.irfftn(spectrum, s=self.power.shape[:-1], axes=self._axes, norm="ortho")

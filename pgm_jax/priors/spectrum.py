"""A radial power spectrum with units: fitted once, a stationary prior at any size and voxel size."""

import warnings
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct

# Relative slack before a voxel size or an intensity counts as outside of the fitted range.
_SLACK = 0.05


class RadialSpectrum(struct.PyTreeNode):
    """The spectral density of a stationary, isotropic image as a table.

    `S(f)` in intensity^2 mm^d is the power of the ortho FFT times the voxel volume. The power of an ortho FFT
    does not depend on the matrix size, and at another voxel size it is `P = S(|f|) / prod(spacing)`:
    band-limited resampling, so a coarser grid holds less variance, `sum(P) / N = int S df` up to its Nyquist.

    Attributes:
        frequency: (bins,) increasing, cycles / mm, float64 on the host.
        density: (bins, channel) S, per real component, intensity^2 mm^d.
        mean: (channel,) mean intensity.
        dim: number d of spatial axes, static.
        unit: unit of the intensities, static.
        dtype: name of the images' dtype, static.
        spacing: ((smallest, largest) of each axis) voxel sizes of the fit in mm, static.
        intensity: (low, high) range of the intensities (of the real components) in the fit, static.
    """

    frequency: Any
    density: Any
    mean: Any
    dim: int = struct.field(pytree_node=False, default=2)
    unit: str = struct.field(pytree_node=False, default="")
    dtype: str = struct.field(pytree_node=False, default="float32")
    spacing: tuple = struct.field(pytree_node=False, default=())
    intensity: tuple = struct.field(pytree_node=False, default=())

    def at(self, shape, spacing, like=None):
        """Builds the prior of one matrix size and voxel size; a host function.

        Between the bins `log S` is linear in f; beyond the last it is constant. Warns where the voxel size,
        or the intensities of `like`, lie outside of the fitted range.

        Args:
            shape: shape of the image, (h, w, channel) or (d, h, w, channel), or without the channel.
            spacing: voxel size in mm, a number or one an axis.
            like: image in the units that will be used, whose intensities are checked.

        Returns:
            `StationaryGaussianPrior`, float32 or complex64 (float64 in JAX's 64-bit mode).

        Raises:
            ValueError: if the shape has another number of axes or channels than the fit.
        """
        # The prior's `fit` makes this table, so one of the two imports waits until it is used.
        from pgm_jax.priors.stationary import StationaryGaussianPrior

        channels = self.density.shape[1]
        shape = tuple(shape) if len(shape) == self.dim + 1 else (*shape, channels)
        if len(shape) != self.dim + 1 or shape[-1] != channels:
            raise ValueError(
                f"RadialSpectrum of {self.dim} axes and {channels} channels cannot make an image of {shape}."
            )
        spacing = per_axis(spacing, self.dim)
        self.check(spacing, like)
        frequency = radial_frequency(shape[:-1], spacing)
        table = np.asarray(self.frequency)
        with np.errstate(divide="ignore"):
            logs = np.log(np.maximum(np.asarray(self.density), np.finfo(np.float64).tiny))
        density = np.stack([np.exp(np.interp(frequency, table, column)) for column in logs.T], axis=-1)
        power = jnp.asarray(density / np.prod(spacing), jnp.result_type(float))
        is_complex = np.issubdtype(np.dtype(self.dtype), np.complexfloating)
        dtype = np.dtype(jnp.result_type(complex)) if is_complex else power.dtype
        return StationaryGaussianPrior(jnp.asarray(self.mean, dtype), power, dtype)

    def check(self, spacing, image=None) -> None:
        """Warns where a voxel size or an image lies outside of the range of the fit; a host function.

        Args:
            spacing: voxel size in mm, a number or one an axis.
            image: image whose intensities are compared, or None.
        """
        spacing, outside = per_axis(spacing, self.dim), False
        for axis, (size, (low, high)) in enumerate(zip(spacing, self.spacing, strict=True)):
            if not low * (1 - _SLACK) <= size <= high * (1 + _SLACK):
                outside = True
                warnings.warn(
                    f"The prior was fitted on voxels of {low:g} to {high:g} mm along axis {axis}, "
                    f"not {size:g} mm: its spectrum there is a guess.",
                    stacklevel=3,
                )
        corner, last = np.sqrt(sum((0.5 / size) ** 2 for size in spacing)), self.frequency[-1]
        if not outside and corner > last * (1 + 2 * _SLACK):
            warnings.warn(
                f"Frequencies up to {corner:.3g} / mm in the corner of this grid exceed the last fitted one, "
                f"{last:.3g} / mm: the spectrum is continued as a constant.",
                stacklevel=3,
            )
        if image is None:
            return
        low, high = intensity_range([np.asarray(image)])
        fit_low, fit_high = self.intensity
        width = fit_high - fit_low
        if low < fit_low - 0.5 * width or high > fit_high + 0.5 * width or high - low < _SLACK * width:
            warnings.warn(
                f"The prior was fitted on intensities {fit_low:g} to {fit_high:g} {self.unit}, the image has "
                f"{low:g} to {high:g}: is it in another unit?",
                stacklevel=3,
            )


def fit_spectrum(images, spacing, unit="") -> RadialSpectrum:
    """Estimates the radial spectral density of images by averaged periodograms; a host function.

    The mean is one number a channel. Rings are as wide as the finest frequency step; DC, which one image does
    not tell apart from the mean, shares the first ring. Images are taken as periodic: a jump at the border
    adds a 1 / f^2 tail along the axes.

    Args:
        images: array (n, h, w, channel) or (n, d, h, w, channel), or a list of images of any sizes.
        spacing: voxel size in mm: a number, one an axis, or a list of them, one an image.
        unit: unit of the intensities; recorded.

    Returns:
        `RadialSpectrum`.

    Raises:
        ValueError: without images, or if they differ in the number of axes or channels.
    """
    images = [np.asarray(image) for image in images]
    if not images or len({(image.ndim, image.shape[-1]) for image in images}) != 1 or images[0].ndim < 2:
        raise ValueError(
            "fit needs images of one number of axes and channels, (n, h, w, channel) or a list of "
            f"(h, w, channel); got {[image.shape for image in images[:4]]}."
        )
    dim = images[0].ndim - 1
    one_each = isinstance(spacing, (list, tuple)) and len(spacing) == len(images) and np.ndim(spacing[0]) > 0
    spacings = [per_axis(s, dim) for s in (spacing if one_each else [spacing] * len(images))]
    pixels = sum(image[..., 0].size for image in images)
    mean = sum(image.sum(axis=tuple(range(dim))) for image in images) / pixels
    frequency, density = _rings(images, spacings, mean)
    return RadialSpectrum(
        frequency,
        density,
        mean,
        dim=dim,
        unit=unit,
        dtype=np.result_type(*images).name,
        spacing=tuple((float(min(axis)), float(max(axis))) for axis in zip(*spacings, strict=True)),
        intensity=intensity_range(images),
    )


def _rings(images, spacings, mean):
    """Returns ring-averaged `(frequency, density)` of all images."""
    extents = [
        np.multiply(image.shape[:-1], sizes).max() for image, sizes in zip(images, spacings, strict=True)
    ]
    width = 1 / max(extents)
    rings, frequencies, densities = [], [], []
    for image, sizes in zip(images, spacings, strict=True):
        axes = tuple(range(image.ndim - 1))
        power = np.abs(np.fft.fftn(image - mean, axes=axes, norm="ortho")) ** 2
        power = power / (2 if np.iscomplexobj(image) else 1) * np.prod(sizes)
        frequency = radial_frequency(image.shape[:-1], sizes).ravel()
        frequencies.append(frequency)
        rings.append(np.maximum(np.rint(frequency / width).astype(int), 1))
        densities.append(power.reshape(-1, power.shape[-1]))
    ring, frequency, density = (np.concatenate(parts) for parts in (rings, frequencies, densities))
    count = np.bincount(ring)
    full = count > 0
    average = lambda values: np.bincount(ring, values)[full] / count[full]
    return average(frequency), np.stack([average(column) for column in density.T], axis=-1)


def radial_frequency(shape, spacing):
    """Returns |f| of every coefficient of an uncentred FFT.

    Args:
        shape: spatial shape.
        spacing: voxel size of each axis in mm.

    Returns:
        float64 array of the given shape, cycles / mm.
    """
    axes = [np.fft.fftfreq(n, s) for n, s in zip(shape, spacing, strict=True)]
    return np.sqrt(sum(f**2 for f in np.meshgrid(*axes, indexing="ij")))


def per_axis(spacing, dim: int) -> tuple:
    """Returns a voxel size as one number an axis, in mm.

    Args:
        spacing: one number, or one an axis.
        dim: number of axes.

    Returns:
        Tuple of dim floats.

    Raises:
        ValueError: for another number of axes, or sizes that are not positive.
    """
    sizes = np.ravel(np.asarray(spacing, np.float64))
    if sizes.size not in (1, dim) or not np.all(sizes > 0):
        raise ValueError(f"spacing needs one positive voxel size in mm, or {dim} of them; got {spacing}.")
    return tuple(float(s) for s in np.broadcast_to(sizes, (dim,)))


def intensity_range(images) -> tuple:
    """Returns the 0.1 and 99.9 per cent quantiles of the real components of some images.

    Args:
        images: list of numpy arrays.

    Returns:
        `(low, high)` floats.
    """
    real = [
        part.ravel()
        for image in images
        for part in ([image.real, image.imag] if np.iscomplexobj(image) else [image])
    ]
    low, high = np.quantile(np.concatenate(real), [0.001, 0.999])
    return float(low), float(high)

"""Processes that are diagonal in Fourier space: alpha and sigma are one number a frequency.

The state holds orthonormal Hartley coordinates (real, `Re F - Im F` of the unitary transform), where every
even shift-invariant filter is a product and white noise stays white (Tivnan et al. 2023, Fourier diffusion
models; Liu, Gang and Stayman 2024; the review's Sec. 3.1.1):

    x_t = h_t x0 + sqrt(p_t) noise,   h_0 = 1, p_0 = 0,   h_1 the system's MTF and p_1 its NPS.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from pgm_jax.core import namespace
from pgm_jax.processes.affine import Affine
from pgm_jax.processes.schedules import Schedule


class _Spectral(Schedule):
    """Base: MTF and noise standard deviation per frequency at t = 1, arrays that broadcast to the image."""

    transfer: Any
    noise_std: Any

    def time(self, ratio):
        raise ValueError(
            "A Fourier process has one noise level a frequency, so no one sigma / alpha gives its time: "
            "use a grid of times, such as linear(steps)."
        )


class StraightSpectrum(_Spectral):
    """h_t = 1 - t + t h, p_t = t^2 p: a straight line from the image to its measurement."""

    def alpha(self, t):
        return (1 - t) + t * self.transfer

    def sigma(self, t):
        return t * self.noise_std


class SemigroupSpectrum(_Spectral):
    """h_t = h^t, p_t = t^2 p: the filter applied for a time t, heat flow for a Gaussian MTF."""

    def alpha(self, t):
        return namespace(t, self).exp(t * namespace(t, self).log(self.transfer))

    def sigma(self, t):
        return t * self.noise_std


class TabulatedSpectrum(_Spectral):
    """Knots at equal spacing in t, between which h and sqrt(p) are linear.

    `transfer` and `noise_std` carry a leading knot axis; the time must be a scalar.
    """

    def _at(self, table, t):
        xp = namespace(t, table)
        table = xp.asarray(table)
        place = t * (table.shape[0] - 1)
        low = xp.clip(xp.floor(xp.asarray(place)).astype(int), 0, table.shape[0] - 2)
        part = place - low
        return (1 - part) * table[low] + part * table[low + 1]

    def alpha(self, t):
        return self._at(self.transfer, t)

    def sigma(self, t):
        return self._at(self.noise_std, t)


class SpectralProcess(Affine):
    """An affine process with one alpha and sigma a frequency."""

    def log_prior(self, x, t):
        """Returns the log density of `prior` at x, a real scalar; every sigma(t) must be positive."""
        sigma = self.sigma(t)
        log_sigma = jnp.broadcast_to(jnp.log(sigma), x.shape)
        components = 2 if jnp.iscomplexobj(x) else 1
        return self.law.log_prob(x / sigma) - components * jnp.sum(log_sigma)


def FourierDiffusion(transfer, noise_power, path="straight", floor=0.0, axes=None, law=None):
    """Builds a process that ends at a given MTF and NPS, in Hartley coordinates on t in [0, 1].

    Start a sampler at t = 1 from the Hartley transform of the measured image (FBP of a sparse scan, say).

    Args:
        transfer: MTF h at t = 1 on the uncentred FFT grid, of a shape that broadcasts to the image (channel
            last); see `radial_frequency`. With path "table", (knots, ...) from 1 to the MTF.
        noise_power: NPS p at t = 1, variance per Hartley coefficient (that of a white image is its pixel
            variance); the same shape. With "table", (knots, ...) from 0 to the NPS.
        path: "straight" `h_t = 1 - t + t h`; "semigroup" `h_t = h^t`; both with `p_t = t^2 p`; or "table",
            linear in h and sqrt(p) between equally spaced knots.
        floor: smallest NPS at t = 1; lift it above 0 where the filter blurs but the NPS vanishes.
        axes: axes of `transfer` along which the filter must be even, `h(-k) = h(k)`; None is all but the last
            (and but the knots).
        law: noise law, Normal by default.

    Returns:
        `SpectralProcess`.

    Raises:
        ValueError: for non-finite or negative input, a filter that is not even, a table that does not start
            at h = 1 and p = 0, another path, or a path along which p / h^2 falls at some frequency (no
            diffusion has such marginals).
    """
    paths = {"straight": StraightSpectrum, "semigroup": SemigroupSpectrum, "table": TabulatedSpectrum}
    if path not in paths:
        raise ValueError(f"FourierDiffusion: path must be one of {sorted(paths)}, got {path!r}.")
    h, p = np.asarray(transfer, np.float64), np.asarray(noise_power, np.float64)
    table = path == "table"
    if not (np.all(np.isfinite(h)) and np.all(np.isfinite(p)) and np.all(p >= 0) and floor >= 0):
        raise ValueError("FourierDiffusion needs a finite transfer and a finite noise_power >= 0.")
    if table and (len(h) < 2 or len(h) != len(p) or np.any(h[0] != 1) or np.any(p[0] != 0)):
        raise ValueError("A spectrum table needs two knots or more, and starts at transfer 1, noise_power 0.")
    for name, spectrum in (("transfer", h), ("noise_power", p)):
        _check_even(name, spectrum[1] if table else spectrum, axes)
    # A table's floor grows as t^2, like the noise of the other paths.
    growth = np.linspace(0, 1, len(p)).reshape((-1,) + (1,) * (p.ndim - 1)) if table else 1.0
    schedule = paths[path](h, np.sqrt(np.maximum(p, floor * growth**2)))
    _check_monotone(schedule, knots=4 * len(h) if table else 64)
    return SpectralProcess(schedule) if law is None else SpectralProcess(schedule, law)


def Heat(shape, width, noise_std, spacing=1.0, law=None):
    """Builds blurring diffusion: heat flow with white noise (Rissanen et al. 2023; Hoogeboom et al. 2023).

    `h_t = exp(-2 (pi width |f|)^2 t)`, a Gaussian blur of standard deviation `width sqrt(t)`;
    `p_t = t^2 noise_std^2`.

    Args:
        shape: spatial shape of the image; one channel axis is added at the end.
        width: standard deviation of the blur at t = 1, in units of the spacing (mm).
        noise_std: standard deviation of the noise at t = 1, in units of the image.
        spacing: pixel size, one number or one an axis, mm.
        law: noise law, Normal by default.

    Returns:
        `SpectralProcess` in Hartley coordinates.

    Raises:
        ValueError: for a negative width or noise.
    """
    if not (width >= 0 and noise_std >= 0):
        raise ValueError(f"Heat needs width >= 0 and noise_std >= 0, got {width} and {noise_std}.")
    frequency = radial_frequency(shape, spacing)[..., None]
    transfer = np.exp(-2 * (np.pi * width * frequency) ** 2)
    return FourierDiffusion(transfer, np.full_like(transfer, noise_std**2), "semigroup", law=law)


def radial_frequency(shape, spacing=1.0):
    """Returns |f| on the uncentred FFT grid, the zero frequency first; even, `f(-k) = f(k)`.

    Args:
        shape: spatial shape, such as (height, width).
        spacing: pixel size, one number or one an axis, mm.

    Returns:
        float64 array of the given shape, cycles per mm.

    Raises:
        ValueError: for a spacing that is not positive, or not one number an axis.
    """
    spacing = np.broadcast_to(np.asarray(spacing, np.float64), (len(shape),))
    if not np.all(spacing > 0):
        raise ValueError(f"radial_frequency needs positive spacings, got {spacing}.")
    grids = np.meshgrid(*[np.fft.fftfreq(n, d) for n, d in zip(shape, spacing, strict=True)], indexing="ij")
    return np.sqrt(sum(f**2 for f in grids))


def _check_even(name, spectrum, axes):
    axes = tuple(range(spectrum.ndim - 1)) if axes is None else tuple(axes)
    mirrored = spectrum
    for axis in axes:
        mirrored = np.roll(np.flip(mirrored, axis), 1, axis)
    if not np.allclose(mirrored, spectrum, rtol=1e-6, atol=1e-12):
        raise ValueError(
            f"FourierDiffusion: {name} must be even, {name}(-k) = {name}(k), along axes {axes} of "
            "the uncentred FFT grid (zero frequency first); build it from radial_frequency, or give axes=."
        )


def _check_monotone(schedule, knots):
    previous = None
    for t in np.linspace(0.0, 1.0, knots + 1):
        with np.errstate(divide="ignore", invalid="ignore"):
            h, sigma = schedule.alpha(t), schedule.sigma(t)
            # A filter may reach zero at the end only: before it, or below it, there is no level.
            level = np.where(
                h > 0, sigma / np.where(h > 0, h, 1), np.where((h == 0) & (t == 1), np.inf, np.nan)
            )
        falls = np.isnan(level) if previous is None else np.isnan(level) | (level < previous * (1 - 1e-9))
        if np.any(falls):
            where = np.unravel_index(np.argmax(falls), falls.shape)
            raise ValueError(
                f"FourierDiffusion: p / h^2 must not fall along the path, but it does at index {where} "
                f"near t = {t:.3f} (h = {np.broadcast_to(h, falls.shape)[where]:.3g}): no diffusion has "
                'these marginals. Use path="straight" with transfer >= 0, or another table.'
            )
        previous = level

"""Off-resonance (B0) during the readout, by time segmentation."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax.operators.mri.checks import require_finite
from pgm_jax.operators.mri.non_cartesian import each_coil
from pgm_jax.operators.mri.nufft import NUFFT
from pgm_jax.operators.operator import LinearOperator, require_shape

_MOST_SEGMENTS = 64


class OffResonance(LinearOperator):
    """Maps an image to samples that are dephased by a field map while they are read.

    `y_c(m) = N^(-1/2) sum_n S_c(n) x(n) exp(-2 pi i f(n) t_m) exp(-2 pi i k_m . (n - c) / N)`, approximated by
    `exp(-2 pi i f t) ~ sum_l b_l(t) exp(-2 pi i f tau_l)`: one non-uniform transform a segment and coil.

    Source: B. P. Sutton, D. C. Noll, J. A. Fessler, Fast iterative image reconstruction for MRI in the presence
    of field inhomogeneities, IEEE TMI 22 (2003), Eq. 1, 6; b is the least-squares fit over the range of f.

    Attributes:
        maps: sensitivities (coils, *shape), complex, unitless.
        transform: `NUFFT` or `NUDFT` of the trajectory.
        temporal: b, (segments, *points), complex.
        spatial: `exp(-2 pi i f tau_l)`, (segments, *shape), complex.
    """

    maps: Any
    transform: Any
    temporal: Any
    spatial: Any

    @classmethod
    def create(cls, maps, trajectory, times, field, *, tolerance=1e-4, width: int = 6) -> "OffResonance":
        """Fits the segments and builds the NUFFT, on the host.

        Takes the fewest segments whose largest error over all times and all frequencies between the least and
        the greatest of the field map is below `tolerance`; about 4 more than the cycles of that range.

        Args:
            maps: sensitivities (coils, height, width) or (coils, depth, height, width).
            trajectory: (..., d) points in cycles per field of view along the image axes.
            times: time of each sample after the echo, in s, that broadcasts to the samples (...,).
            field: off-resonance in Hz of the shape of the image; set what lies outside the body to 0, since its
                range sets the cost.
            tolerance: largest error of the fitted exponential, which has modulus 1.
            width: window width of the NUFFT.

        Raises:
            ValueError: as for `NUFFT.create`, if times or field do not fit or are not finite, or if 64 segments
                do not reach the tolerance.
        """
        field, times = np.asarray(field, float), np.asarray(times, float)
        require_finite(field, "the field map")
        require_finite(times, "times")
        if field.shape != jnp.shape(maps)[1:]:
            raise ValueError(
                f"the field map is {field.shape} but the maps are of an image {jnp.shape(maps)[1:]}: "
                "give one frequency a voxel, in Hz"
            )
        transform = NUFFT.create(trajectory, field.shape, width=width)
        last = transform.points[len(transform.points) - times.ndim :]
        if times.ndim > len(transform.points) or any(
            t not in (1, m) for t, m in zip(times.shape, last, strict=True)
        ):
            raise ValueError(
                f"times are {times.shape} but there are {transform.points} samples: give one time for each "
                "sample, or for each sample of a readout"
            )
        distinct, which = np.unique(times, return_inverse=True)
        coefficients, tau = fit_segments(distinct, (field.min(), field.max()), tolerance)
        dtype = transform.range.dtype
        which = np.broadcast_to(which.reshape(times.shape), transform.points)
        spatial = np.exp(-2j * np.pi * (tau.reshape(-1, *[1] * field.ndim) * field % 1))
        return cls(
            jnp.asarray(maps),
            transform,
            jnp.asarray(coefficients[:, which], dtype),
            jnp.asarray(spatial, dtype),
        )

    def __call__(self, x):
        require_shape(x, self.domain, self, "image")
        image = x[..., 0]

        def coil(s):
            def add(samples, segment):
                b, turn = segment
                return samples + b * self.transform((turn * s * image)[..., None]), None

            start = jnp.zeros(self.transform.range.shape, self._dtype)
            return jax.lax.scan(add, start, (self.temporal, self.spatial))[0]

        return each_coil(coil, self.maps)

    def adjoint(self, y):
        require_shape(y, self.range, self, "k-space")

        def coil(pair):
            s, samples = pair

            def add(image, segment):
                b, turn = segment
                back = self.transform.adjoint(jnp.conj(b) * samples)[..., 0]
                return image + jnp.conj(turn) * back, None

            start = jnp.zeros(self.transform.shape, self._dtype)
            return jnp.conj(s) * jax.lax.scan(add, start, (self.temporal, self.spatial))[0]

        return jnp.sum(each_coil(coil, (self.maps, y)), axis=0)[..., None]

    @property
    def domain(self):
        return jax.ShapeDtypeStruct((*self.maps.shape[1:], 1), self._dtype)

    @property
    def range(self):
        return jax.ShapeDtypeStruct((self.maps.shape[0], *self.transform.range.shape), self._dtype)

    @property
    def _dtype(self):
        return jnp.result_type(self.maps, self.transform.range.dtype)


def fit_segments(times, band, tolerance):
    """Fits `exp(-2 pi i f t) ~ sum_l b_l(t) exp(-2 pi i f tau_l)` for all f of a band, with evenly spaced tau.

    Args:
        times: (n,) times in s.
        band: (least, greatest) frequency in Hz.
        tolerance: largest error over times and frequencies.

    Returns:
        (b, tau): complex128 (segments, n), and float64 (segments,) in s.

    Raises:
        ValueError: if 64 segments do not reach the tolerance.
    """
    first, last = float(np.min(times)), float(np.max(times))
    middle = (band[0] + band[1]) / 2
    # Many more frequencies than the fit has segments, so that the error between them is seen.
    frequency = np.linspace(band[0], band[1], 8 * _MOST_SEGMENTS)
    exact = np.exp(-2j * np.pi * np.outer(frequency - middle, times))

    def fit(segments):
        tau = np.linspace(first, last, segments) if segments > 1 else np.array([(first + last) / 2])
        basis = np.exp(-2j * np.pi * np.outer(frequency - middle, tau))
        b = np.linalg.lstsq(basis, exact, rcond=1e-12)[0]
        return b, tau, np.max(np.abs(basis @ b - exact)) <= tolerance

    # The error falls with every segment, so the fewest are found by bisection.
    too_few, enough = 0, _MOST_SEGMENTS
    b, tau, reached = fit(enough)
    if not reached:
        raise ValueError(
            f"{_MOST_SEGMENTS} segments do not reach {tolerance} for {band[0]:.4g} to {band[1]:.4g} Hz over "
            f"{last - first:.4g} s: check the units (Hz, s), clip the field map to the body, or raise tolerance"
        )
    while enough - too_few > 1:
        trial = (too_few + enough) // 2
        *found, reached = fit(trial)
        if reached:
            enough, (b, tau) = trial, found
        else:
            too_few = trial
    # The middle frequency is common to every segment: exact.
    return b * np.exp(-2j * np.pi * middle * (times[None] - tau[:, None])), tau

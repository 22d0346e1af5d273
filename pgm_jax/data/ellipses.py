"""Ellipse phantoms with their exact projections and k-space: test data without the inverse crime."""

from dataclasses import dataclass

import numpy as np

from pgm_jax.data.phantoms import ELLIPSOIDS


@dataclass(frozen=True, eq=False)
class Ellipses:
    """A sum of uniform ellipses in the plane; x and y grow with column and row, 0 is the centre of the image.

    Attributes:
        amplitude: (n,) value inside, added where ellipses overlap.
        half_axes: (n, 2) along the ellipse's own first and second axis, mm.
        centre: (n, 2) as (x, y), mm.
        angle: (n,) of the first axis from x towards y, radians.
    """

    amplitude: np.ndarray
    half_axes: np.ndarray
    centre: np.ndarray
    angle: np.ndarray

    def __post_init__(self):
        shapes = {"amplitude": (), "half_axes": (2,), "centre": (2,), "angle": ()}
        n = len(np.atleast_1d(self.amplitude))
        for name, shape in shapes.items():
            value = np.asarray(getattr(self, name), np.float64)
            if value.shape != (n, *shape):
                raise ValueError(f"Ellipses: {name} must have shape {(n, *shape)}, got {value.shape}")
            object.__setattr__(self, name, value)
        if not np.all(self.half_axes > 0):
            raise ValueError("Ellipses: half_axes must be > 0 mm")

    def line_integrals(self, lines) -> np.ndarray:
        """Computes `2 A a b sqrt(s^2 - t'^2) / s^2` along the lines `n . (x, y) = t`, summed over ellipses.

        `s^2 = a^2 (n . e)^2 + b^2 (n . f)^2` for the axes e and f of an ellipse, `t' = t - n . centre`.

        Args:
            lines: object with arrays x, y (components of the unit normal n) and t (mm), such as
                `geometry.lines(bins)`.

        Returns:
            float64 array shaped like the lines, in units of amplitude times mm.
        """
        total = np.zeros(np.shape(lines.t))
        for value, (a, b), (x, y), turn in self._each():
            along = lines.x * np.cos(turn) + lines.y * np.sin(turn)
            across = lines.y * np.cos(turn) - lines.x * np.sin(turn)
            square = (a * along) ** 2 + (b * across) ** 2
            t = lines.t - lines.x * x - lines.y * y
            total += 2 * value * a * b * np.sqrt(np.maximum(square - t**2, 0)) / square
        return total

    def sinogram(self, geometry, samples: int = 1) -> np.ndarray:
        """Computes the projections that a scanner would measure.

        Args:
            geometry: object with `bins` and `lines(positions)`, such as `Parallel` or `Fan`.
            samples: rays averaged over each bin; 1 for the ray through its middle.

        Returns:
            float64 array (views, bins, 1).
        """
        shifts = (np.arange(samples) + 0.5) / samples - 0.5
        parts = [self.line_integrals(geometry.lines(np.arange(geometry.bins) + shift)) for shift in shifts]
        return np.mean(parts, axis=0)[:, :, None]

    def raster(self, grid, samples: int = 8) -> np.ndarray:
        """Computes the mean over every pixel, from samples x samples points in each.

        Args:
            grid: object with `shape` (height, width) and `spacing` (dy, dx) in mm, such as `ImageGrid`.
            samples: points along a side of a pixel; 1 samples the centres.

        Returns:
            float64 array (height, width, 1).
        """
        ny, nx = grid.shape
        y, x = (
            ((np.arange(n * samples) + 0.5) / samples - n / 2) * h
            for n, h in zip(grid.shape, grid.spacing, strict=True)
        )
        image = np.zeros((len(y), len(x)))
        for value, (a, b), (x0, y0), turn in self._each():
            u = np.cos(turn) * (x - x0) + np.sin(turn) * (y - y0)[:, None]
            v = np.cos(turn) * (y - y0)[:, None] - np.sin(turn) * (x - x0)
            image += value * ((u / a) ** 2 + (v / b) ** 2 <= 1)
        return image.reshape(ny, samples, nx, samples).mean((1, 3))[:, :, None]

    def k_space(self, kx, ky) -> np.ndarray:
        """Computes the Fourier transform `integral f(r) exp(-2 pi i k . r) dr` of the phantom.

        `A a b J1(2 pi q) / q exp(-2 pi i k . centre)`, `q^2 = (a k . e)^2 + (b k . f)^2`; `pi A a b` at k = 0.

        Args:
            kx: frequencies along x, cycles per mm, any shape.
            ky: frequencies along y, like kx.

        Returns:
            complex128 array like kx, in units of amplitude times mm^2.
        """
        kx, ky = np.broadcast_arrays(np.asarray(kx, np.float64), np.asarray(ky, np.float64))
        total = np.zeros(kx.shape, np.complex128)
        for value, (a, b), (x, y), turn in self._each():
            along = kx * np.cos(turn) + ky * np.sin(turn)
            across = ky * np.cos(turn) - kx * np.sin(turn)
            q = np.hypot(a * along, b * across)
            jinc = np.where(q > 1e-9, bessel_j1(2 * np.pi * q) / np.where(q > 1e-9, q, 1.0), np.pi)
            total += value * a * b * jinc * np.exp(-2j * np.pi * (kx * x + ky * y))
        return total

    def _each(self):
        return zip(self.amplitude, self.half_axes, self.centre, self.angle, strict=True)


def shepp_logan_ellipses(width: float) -> Ellipses:
    """Returns the ten ellipses of the modified Shepp-Logan phantom, upright in row order like `shepp_logan`.

    Args:
        width: side of the square field of view that the phantom is drawn in, mm.

    Returns:
        `Ellipses` with values in [0, 1] after summation.

    References:
        Shepp and Logan 1974, The Fourier reconstruction of a head section. Contrast: Toft 1996, The Radon
        transform, table B.3.
    """
    table = np.array(ELLIPSOIDS)
    # The table has y upwards; row 0 is anterior.
    half_axes, centre = table[:, [1, 2]], table[:, [4, 5]] * [1, -1]
    return Ellipses(table[:, 0], half_axes * width / 2, centre * width / 2, -np.deg2rad(table[:, 7]))


def bessel_j1(x) -> np.ndarray:
    """Computes the Bessel function J1 of real x to 1e-12, on the host.

    The trapezoidal rule for `1 / (2 pi) integral cos(v - x sin v) dv` converges faster than any power; beyond
    25 Hankel's asymptotic series has converged.

    Args:
        x: real array.

    Returns:
        float64 array like x.
    """
    x = np.asarray(x, np.float64)
    size = np.asarray(np.abs(x))
    result = np.zeros_like(size)
    near = size < 25
    for v in (np.arange(64) + 0.5) * (np.pi / 32):
        result[near] += np.cos(v - size[near] * np.sin(v)) / 64
    far = size[~near]
    phase, term, series = far - 0.75 * np.pi, np.ones_like(far), [np.zeros_like(far), np.zeros_like(far)]
    for k in range(1, 15):
        # Terms a_k / x^k with signs + + - -, alternately for the cosine and the sine.
        series[(k - 1) % 2] += (-1) ** ((k - 1) // 2) * term
        term = term * (4 - (2 * k - 1) ** 2) / (8 * k * far)
    result[~near] = np.sqrt(2 / (np.pi * far)) * (series[0] * np.cos(phase) - series[1] * np.sin(phase))
    return np.asarray(np.sign(x) * result)

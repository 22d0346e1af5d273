"""Image grid and acquisition geometries of CT in two dimensions.

Coordinates are (x, y) in mm about the centre of the image, which is the centre of rotation; x and y grow with the
column and row. Angles are radians, counter-clockwise from x towards y. A ray is the whole line `n . (x, y) = t`
with unit normal n. All of it is float64 on the host; an operator casts its tables once.
"""

from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np


class Lines(NamedTuple):
    """Lines `n . (x, y) = t` in the plane.

    Attributes:
        x: first component of the unit normal n.
        y: second component.
        t: signed distance from the centre of rotation, mm.
    """

    x: np.ndarray
    y: np.ndarray
    t: np.ndarray


class ByValue:
    """Equality and hash by value, arrays included, so that equal geometries share compiled programs."""

    def _key(self):
        values = (getattr(self, field.name) for field in fields(self))
        return tuple((v.shape, v.tobytes()) if isinstance(v, np.ndarray) else v for v in values)

    def __eq__(self, other):
        return type(self) is type(other) and self._key() == other._key()

    def __hash__(self):
        return hash((type(self), self._key()))


@dataclass(frozen=True)
class ImageGrid:
    """Pixels of an image; the centre of pixel (i, j) is `((j - (nx-1)/2) dx, (i - (ny-1)/2) dy)`.

    Attributes:
        shape: (height ny, width nx).
        spacing: (dy, dx), mm; one number for square pixels.

    Raises:
        ValueError: if a size is not a positive integer or a spacing not a positive number.
    """

    shape: tuple[int, int]
    spacing: tuple[float, float] | float = (1.0, 1.0)

    def __post_init__(self):
        shape = tuple(self.shape)
        spacing = (self.spacing,) * 2 if np.ndim(self.spacing) == 0 else tuple(self.spacing)
        if len(shape) != 2 or not all(isinstance(n, int | np.integer) and n > 0 for n in shape):
            raise ValueError(f"ImageGrid needs shape (height, width) of positive integers, got {self.shape}")
        if len(spacing) != 2 or not all(0 < h < np.inf for h in spacing):
            raise ValueError(f"ImageGrid needs spacing (dy, dx) > 0 in mm, got {self.spacing}")
        object.__setattr__(self, "shape", tuple(int(n) for n in shape))
        object.__setattr__(self, "spacing", tuple(float(h) for h in spacing))

    def centres(self) -> tuple[np.ndarray, np.ndarray]:
        """Computes the pixel centres.

        Returns:
            (x (width,), y (height,)), mm, float64.
        """
        (ny, nx), (dy, dx) = self.shape, self.spacing
        return _centred(nx) * dx, _centred(ny) * dy

    def radius(self) -> float:
        """Returns the distance from the centre to the outer corner of a pixel in a corner, mm."""
        return float(np.hypot(*(n * h / 2 for n, h in zip(self.shape, self.spacing, strict=True))))


@dataclass(frozen=True, eq=False)
class Parallel(ByValue):
    """Parallel rays: bin k of a view at angle b sees `x cos b + y sin b = (k - (bins-1)/2) spacing + offset`.

    Angle 0 has rays along y (column sums). Any angles: limited, sparse, uneven.

    Attributes:
        angles: (views,) radians.
        bins: detector bins.
        spacing: distance between bins, mm.
        offset: shift of the detector, mm; a quarter of `spacing` interleaves opposite views (quarter shift).

    Raises:
        ValueError: for a wrong shape, a value that is not finite, spacing <= 0, or angles in degrees.
    """

    angles: np.ndarray
    bins: int
    spacing: float = 1.0
    offset: float = 0.0

    def __post_init__(self):
        _require_detector(self)

    @property
    def views(self) -> int:
        """Number of views."""
        return len(self.angles)

    @property
    def width_at_axis(self) -> float:
        """Width of the detector, mm."""
        return self.bins * self.spacing

    def lines(self, positions) -> Lines:
        """Computes the rays at some positions on the detector.

        Args:
            positions: (m,) in bins, 0 the centre of the first bin; -1/2 its outer edge.

        Returns:
            Lines of shape (views, m).
        """
        t = (np.asarray(positions) - (self.bins - 1) / 2) * self.spacing + self.offset
        angles, t = np.broadcast_arrays(self.angles[:, None], t[None])
        return Lines(np.cos(angles), np.sin(angles), t)


@dataclass(frozen=True, eq=False)
class Fan(ByValue):
    """Rays from a source on a circle to a flat detector, or to one on an arc about the source.

    At angle b the source is `R (cos b, sin b)` and detector position s lies along `u = (-sin b, cos b)`, with
    `s = (k - (bins-1)/2) spacing + offset` for bin k. Its ray leaves the central one by the fan angle
    `g = atan(s / F)` (flat) or `s / F` (arc), F the distance from source to detector, and has the normal
    `cos(g) u + sin(g) (cos b, sin b)` and `t = R sin g`. Rays are whole lines, so F may equal R (a virtual
    detector through the centre).

    Attributes:
        angles: (views,) radians; any set: full circle, short scan, sparse, uneven.
        source_to_axis: R, mm.
        source_to_detector: F, mm; at least R.
        bins: detector bins.
        spacing: distance between bins, mm, on the plane or along the arc.
        offset: shift of the detector along u, mm; large for a half-fan detector.
        detector: "flat" or "arc".

    Raises:
        ValueError: for a wrong shape, a value that is not finite, a distance out of order, angles in degrees, or
            an arc of half a turn or more.
    """

    angles: np.ndarray
    source_to_axis: float
    source_to_detector: float
    bins: int
    spacing: float = 1.0
    offset: float = 0.0
    detector: str = "flat"

    def __post_init__(self):
        _require_detector(self)
        if not 0 < self.source_to_axis <= self.source_to_detector < np.inf:
            raise ValueError(
                f"Fan needs 0 < source_to_axis <= source_to_detector in mm, got {self.source_to_axis} and "
                f"{self.source_to_detector}: are the two exchanged?"
            )
        if self.detector not in ("flat", "arc"):
            raise ValueError(f'Fan detector must be "flat" or "arc", got {self.detector!r}')
        widest = np.abs(self.fan_angles(np.array([-0.5, self.bins - 0.5]))).max()
        if widest >= np.pi / 2:
            raise ValueError(
                f"Fan arc reaches {np.rad2deg(widest):.0f} degrees from the central ray, needs less than 90: "
                "spacing is the arc length in mm from bin to bin, not an angle"
            )

    @property
    def views(self) -> int:
        """Number of views."""
        return len(self.angles)

    @property
    def width_at_axis(self) -> float:
        """Width of the detector seen at the axis of rotation, mm."""
        return self.bins * self.spacing * self.source_to_axis / self.source_to_detector

    def fan_angles(self, positions) -> np.ndarray:
        """Computes the fan angle g of some positions (m,) in bins, radians."""
        s = (np.asarray(positions) - (self.bins - 1) / 2) * self.spacing + self.offset
        s = s / self.source_to_detector
        return np.arctan(s) if self.detector == "flat" else s

    def lines(self, positions) -> Lines:
        """Computes the rays at some positions (m,) in bins; see `Parallel.lines`."""
        b, g = self.angles[:, None], self.fan_angles(positions)[None]
        # cos(g) u + sin(g) e is the unit vector at angle b + pi/2 - g.
        t = np.broadcast_to(self.source_to_axis * np.sin(g), np.broadcast_shapes(b.shape, g.shape))
        return Lines(np.sin(g - b), np.cos(g - b), t)


def _centred(n):
    return np.arange(n) - (n - 1) / 2


def _require_detector(geometry):
    """Checks angles, bins, spacing and offset, and stores the angles in float64."""
    name = type(geometry).__name__
    angles = np.array(geometry.angles, np.float64)
    if angles.ndim != 1 or len(angles) == 0:
        raise ValueError(f"{name} needs angles of shape (views,), got {angles.shape}: give a list in radians")
    if not np.all(np.isfinite(angles)):
        raise ValueError(f"{name} angles must be finite, {np.sum(~np.isfinite(angles))} are not")
    if np.abs(angles).max() > 4 * np.pi:
        raise ValueError(
            f"{name} angles reach {np.abs(angles).max():g}, beyond 4 pi: angles are radians, "
            "use np.deg2rad for degrees"
        )
    if not isinstance(geometry.bins, int | np.integer) or geometry.bins < 1:
        raise ValueError(f"{name} needs a positive integer number of bins, got {geometry.bins}")
    if not 0 < geometry.spacing < np.inf:
        raise ValueError(f"{name} needs spacing > 0 mm, got {geometry.spacing}")
    if not np.isfinite(geometry.offset):
        raise ValueError(f"{name} needs a finite offset in mm, got {geometry.offset}")
    angles.flags.writeable = False
    object.__setattr__(geometry, "angles", angles)

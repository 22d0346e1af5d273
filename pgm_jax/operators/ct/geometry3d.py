"""Acquisition geometries of CT in three dimensions: circular cone, helix, and free vectors.

Coordinates are (x, y, z) in mm about the centre of the volume, which is the centre of rotation; x, y and z grow
with the column, row and slice. Angles are radians, counter-clockwise from x towards y. At angle b

    source = source_to_axis (cos b, sin b, z)             u = (-sin b, cos b, 0), along a detector row
    detector centre = source - source_to_detector (cos b, sin b, 0) + offset      v = (0, 0, 1), down a column

All of it is float64 on the host; an operator casts its tables once.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pgm_jax.operators.ct.geometry import ByValue

_FULL_TURN = 2 * np.pi


@dataclass(frozen=True)
class VolumeGrid:
    """Voxels of a volume.

    The centre of voxel (i, j, k) is x = `(k - (nx-1)/2) dx`, y = `(j - (ny-1)/2) dy`, z = `(i - (nz-1)/2) dz`.

    Attributes:
        shape: (depth nz, height ny, width nx).
        spacing: (dz, dy, dx), mm; one number for cubes.

    Raises:
        ValueError: if a size is not a positive integer or a spacing not a positive number.
    """

    shape: tuple
    spacing: tuple | float = (1.0, 1.0, 1.0)

    def __post_init__(self):
        shape = tuple(self.shape)
        spacing = (self.spacing,) * 3 if np.ndim(self.spacing) == 0 else tuple(self.spacing)
        if len(shape) != 3 or not all(isinstance(n, int | np.integer) and n > 0 for n in shape):
            raise ValueError(
                f"VolumeGrid needs shape (depth, height, width) of positive integers, got {self.shape}"
            )
        if len(spacing) != 3 or not all(0 < h < np.inf for h in spacing):
            raise ValueError(f"VolumeGrid needs spacing (dz, dy, dx) > 0 in mm, got {self.spacing}")
        object.__setattr__(self, "shape", tuple(int(n) for n in shape))
        object.__setattr__(self, "spacing", tuple(float(h) for h in spacing))


@dataclass(frozen=True, eq=False)
class Vector(ByValue):
    """Any flat detector and any source, view by view, like ASTRA's `cone_vec`.

    Pixel (row l, column k) of a view is at `centre + (k - (columns - 1) / 2) u + (l - (rows - 1) / 2) v`. Rays are
    whole lines through source and pixel, so a detector may stand at the centre of rotation.

    Attributes:
        vectors: (views, 4, 3) mm: source, detector centre, step u from column to column, step v from row to row.
        rows: detector rows.
        columns: detector columns.

    Raises:
        ValueError: if a shape is wrong, a value is not finite, or a detector is degenerate or holds its source.
    """

    vectors: Any
    rows: int
    columns: int

    def __post_init__(self):
        vectors = np.asarray(self.vectors, np.float64)
        if vectors.ndim != 3 or vectors.shape[1:] != (4, 3) or len(vectors) == 0:
            raise ValueError(
                f"Vector needs vectors of shape (views, 4, 3), got {vectors.shape}: "
                "stack source, detector centre, u and v in mm for every view"
            )
        _require_detector("Vector", self.rows, self.columns)
        _require_finite("Vector", "vectors", vectors)
        source, centre, u, v = np.moveaxis(vectors, 1, 0)
        normal = np.cross(u, v)
        area, depth = np.linalg.norm(normal, axis=-1), np.abs(np.sum((centre - source) * normal, -1))
        sides = np.linalg.norm(u, axis=-1) * np.linalg.norm(v, axis=-1)
        if not np.all(area > 1e-6 * sides):
            raise ValueError(
                f"Vector: u and v of view {int(np.argmin(area - 1e-6 * sides))} are parallel or zero: "
                "give the steps in mm from column to column and from row to row"
            )
        flat = depth <= 1e-6 * area * np.linalg.norm(centre - source, axis=-1)
        if flat.any():
            raise ValueError(
                f"Vector: the source of view {int(np.argmax(flat))} lies in the plane of its detector: "
                "move one of them"
            )
        object.__setattr__(self, "vectors", _frozen(vectors))

    @property
    def views(self) -> int:
        """Number of views."""
        return len(self.vectors)

    def vector(self) -> "Vector":
        """Returns itself; every geometry has this method."""
        return self

    def rays(self) -> tuple[np.ndarray, np.ndarray]:
        """Computes the two points that fix each ray.

        Returns:
            (sources (views, 1, 1, 3), pixel centres (views, rows, columns, 3)), mm, float64.
        """
        source, centre, u, v = np.moveaxis(self.vectors[:, :, None, None], 1, 0)
        k, l = _centred(self.columns)[:, None], _centred(self.rows)[:, None, None]
        return source, centre + k * u + l * v


@dataclass(frozen=True, eq=False)
class Cone(ByValue):
    """Circular cone beam with a flat detector.

    Attributes:
        angles: (views,) radians; any set of them: full circle, short scan, sparse, uneven.
        source_to_axis: distance from source to axis of rotation, mm.
        source_to_detector: distance from source to detector, mm; at least `source_to_axis`.
        rows: detector rows, along the axis of rotation.
        columns: detector columns.
        spacing: (from row to row, from column to column), mm on the detector.
        offset: shift of the detector centre (along v, along u), mm; a quarter of the column spacing interleaves
            opposite views (quarter shift), a large one is a half-fan detector.
        tilt: turns of the detector about its centre in radians: about its normal (u towards v), about u, about v.

    Raises:
        ValueError: for a wrong shape, a value that is not finite, a distance out of order, or angles in degrees.
    """

    angles: Any
    source_to_axis: float
    source_to_detector: float
    rows: int
    columns: int
    spacing: tuple
    offset: tuple = (0.0, 0.0)
    tilt: tuple = (0.0, 0.0, 0.0)

    def __post_init__(self):
        name = type(self).__name__
        angles = np.asarray(self.angles, np.float64)
        if angles.ndim != 1 or len(angles) == 0:
            raise ValueError(
                f"{name} needs angles of shape (views,), got {angles.shape}: give a flat list in radians"
            )
        _require_detector(name, self.rows, self.columns)
        for field, size in (("angles", None), ("spacing", 2), ("offset", 2), ("tilt", 3)):
            _require_finite(name, field, getattr(self, field), size)
        if not min(self.spacing) > 0:
            raise ValueError(f"{name} needs spacing > 0 mm along (rows, columns), got {self.spacing}")
        if not 0 < self.source_to_axis <= self.source_to_detector < np.inf:
            raise ValueError(
                f"{name} needs 0 < source_to_axis <= source_to_detector in mm, got {self.source_to_axis} and "
                f"{self.source_to_detector}: are the two exchanged?"
            )
        self._require_radians(angles)
        object.__setattr__(self, "angles", _frozen(angles))
        for field in ("spacing", "offset", "tilt"):
            object.__setattr__(self, field, tuple(float(value) for value in getattr(self, field)))

    def _require_radians(self, angles):
        largest = float(np.abs(angles).max())
        if largest > 2 * _FULL_TURN:
            raise ValueError(
                f"Cone angles reach {largest:g}, beyond 4 pi: angles are radians, use np.deg2rad for degrees"
            )

    @property
    def views(self) -> int:
        """Number of views."""
        return len(self.angles)

    def heights(self) -> np.ndarray:
        """Returns z of the source at every view (views,), mm: 0 on a circle."""
        return np.zeros(self.views)

    def vector(self) -> Vector:
        """Returns the same geometry as free vectors."""
        out = np.stack([np.cos(self.angles), np.sin(self.angles), np.zeros(self.views)], -1)
        u = np.stack([-out[:, 1], out[:, 0], out[:, 2]], -1)
        v = np.broadcast_to([0.0, 0.0, 1.0], u.shape)
        source = self.source_to_axis * out + self.heights()[:, None] * v
        centre = source - self.source_to_detector * out + self.offset[1] * u + self.offset[0] * v
        u, v = _tilted(u, v, self.tilt)
        steps = self.spacing[1] * u, self.spacing[0] * v
        return Vector(np.stack([source, centre, *steps], 1), self.rows, self.columns)

    def rays(self) -> tuple[np.ndarray, np.ndarray]:
        """Computes the two points that fix each ray; see `Vector.rays`."""
        return self.vector().rays()


@dataclass(frozen=True, eq=False)
class Helical(Cone):
    """Cone beam on a helix: source and detector rise by `pitch` mm a turn. Angles may pass many turns.

    Attributes:
        pitch: rise in mm from one turn to the next, along z, of either sign.
        start: z of the first view, mm; by default the path is centred on the volume.

    Raises:
        ValueError: as for `Cone`, except that angles are taken for degrees where views are more than pi / 4 apart.
    """

    pitch: float = 0.0
    start: float | None = None

    def __post_init__(self):
        super().__post_init__()
        _require_finite("Helical", "pitch", self.pitch)
        _require_finite("Helical", "start", 0.0 if self.start is None else self.start)

    def _require_radians(self, angles):
        step = float(np.abs(np.diff(angles)).max(initial=0.0))
        if step > np.pi / 4:
            raise ValueError(
                f"Helical views are up to {step:g} apart, more than pi / 4: angles are radians along the whole "
                "path, use np.deg2rad for degrees and np.unwrap for angles that start again each turn"
            )

    def heights(self) -> np.ndarray:
        """Returns z of the source at every view (views,), mm."""
        rise = self.pitch * (self.angles - self.angles[0]) / _FULL_TURN
        return rise + (-(rise.min() + rise.max()) / 2 if self.start is None else self.start)


def _frozen(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def _centred(size):
    return np.arange(size) - (size - 1) / 2


def _tilted(u, v, tilt):
    """Turns the detector's axes about its normal, then about its new u, then about its new v."""
    roll, pitch, yaw = tilt
    u, v = np.cos(roll) * u + np.sin(roll) * v, np.cos(roll) * v - np.sin(roll) * u
    v = np.cos(pitch) * v + np.sin(pitch) * np.cross(u, v)
    return np.cos(yaw) * u - np.sin(yaw) * np.cross(u, v), v


def _require_detector(name, rows, columns):
    if not all(isinstance(n, int | np.integer) and n > 0 for n in (rows, columns)):
        raise ValueError(f"{name} needs at least one detector row and column, got {rows!r} and {columns!r}")


def _require_finite(name, field, values, size=None):
    values = np.asarray(values, np.float64)
    if size is not None and values.shape != (size,):
        raise ValueError(f"{name}: {field} needs {size} numbers, got shape {values.shape}")
    if not np.all(np.isfinite(values)):
        raise ValueError(f"{name}: {field} holds a value that is not finite: mend the geometry")

"""Cone-beam CT: the operator of every geometry in three dimensions."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from pgm_jax.operators.ct import cone_joseph, cone_strip, vector_joseph
from pgm_jax.operators.ct.cone_strip_tables import strip_tables
from pgm_jax.operators.ct.cone_tables import (
    Rays,
    corner_depths,
    corner_pixels,
    is_separable,
    rays,
    separable_tables,
    vector_tables,
)
from pgm_jax.operators.ct.geometry3d import VolumeGrid
from pgm_jax.operators.ct.hat import Sizes
from pgm_jax.operators.operator import LinearOperator, require_shape

_MOST_TAPS = 64
_BUILD = object()


class ConeBeam(LinearOperator):
    """Projections of a volume in a `Cone`, `Helical` or `Vector` geometry.

    `ConeBeam(grid, geometry, subsets=1, footprint="joseph")`: `y[v, l, k] = integral of x along the ray of view v,
    row l, column k`, in units of x times mm. By Joseph's method a ray is sampled once in every plane across the
    axis along which it passes most voxels, and interpolated linearly in the plane. The adjoint gathers with the
    same weights. Where detector columns are parallel to z (no tilt) the interpolation is done in two
    one-dimensional steps, several times sooner; the numbers are those of the general way.

    The strip footprint takes the mean over the pixel instead, with the areas of voxels as `FanBeam` has them across
    z and with rectangles along it; detector columns must be parallel to z.

    Source: P. M. Joseph, An improved algorithm for reprojecting rays through pixel images, IEEE TMI 1 (1982);
    Y. Long, J. A. Fessler, J. M. Balter, 3D forward and back-projection for X-ray CT using separable footprints,
    IEEE TMI 29 (2010).

    Attributes:
        grid: voxels of the volume.
        geometry: `Cone`, `Helical` or `Vector`; None for a subset.
        subsets: number of ordered subsets, interleaved views, for `subset` and `restrict`.
        footprint: "joseph" (linear interpolation) or "strip" (separable footprint, mean over each pixel).
        tables: arrays of the projectors, built from the geometry; each has a leading axis of views.
        sizes: static sizes of the projectors.
        separable: whether the tables are `SeparableTables` or `StripTables`, else `VectorTables`.

    Raises:
        ValueError: for an unknown footprint or strips of a tilted detector, if the volume reaches the source, if no
            ray meets it, or if a length has the wrong unit.
    """

    grid: VolumeGrid = struct.field(pytree_node=False)
    geometry: Any = struct.field(pytree_node=False)
    subsets: int = struct.field(pytree_node=False, default=1)
    footprint: str = struct.field(pytree_node=False, default="joseph")
    tables: Any = _BUILD
    sizes: Any = struct.field(pytree_node=False, default=None)
    separable: bool = struct.field(pytree_node=False, default=False)

    def __post_init__(self):
        if self.tables is not _BUILD:
            return
        geometry = self.geometry.vector()
        if not 1 <= self.subsets <= geometry.views:
            raise ValueError(
                f"ConeBeam needs between 1 and {geometry.views} subsets (its views), got {self.subsets}"
            )
        r = rays(geometry, self.grid)
        _require_sight(r)
        separable = is_separable(r)
        _require_footprint(self.footprint, separable)
        if separable:
            build = strip_tables if self.footprint == "strip" else separable_tables
            tables, taps = build(r, self.grid.spacing)
        else:
            tables, taps = vector_tables(r)
        if max(taps) > _MOST_TAPS:
            raise ValueError(
                f"ConeBeam: one voxel of {self.grid.spacing} mm covers up to {max(taps)} detector pixels: "
                "give the detector's and the voxels' spacing both in mm"
            )
        sizes = Sizes(self.grid.shape, self.grid.spacing, geometry.rows, geometry.columns, taps)
        for name, value in {
            "tables": jax.tree.map(_cast, tables),
            "sizes": sizes,
            "separable": separable,
        }.items():
            object.__setattr__(self, name, value)

    def __call__(self, x):
        """Computes the projections.

        Args:
            x: volume (depth, height, width, 1), for example attenuation in 1/mm.

        Returns:
            Array (views, rows, columns, 1), in units of x times mm.
        """
        require_shape(x, self.domain, self, "volume")
        return self._pair[0](self.tables, x, sizes=self.sizes)

    def adjoint(self, y):
        """Computes the exact adjoint, a volume (depth, height, width, 1); not an inverse, see `fdk`.

        Args:
            y: projections (views, rows, columns, 1).
        """
        require_shape(y, self.range, self, "measurement")
        return self._pair[1](self.tables, y, sizes=self.sizes)

    @property
    def views(self) -> int:
        """Number of views, the empty ones of a subset included."""
        return self.tables.active.shape[0]

    @property
    def domain(self):
        return jax.ShapeDtypeStruct((*self.sizes.shape, 1), self._dtype)

    @property
    def range(self):
        return jax.ShapeDtypeStruct((self.views, self.sizes.rows, self.sizes.columns, 1), self._dtype)

    def subset(self, i) -> "ConeBeam":
        """Returns the operator of views i, i + subsets, i + 2 subsets, ...; i may be traced.

        Every subset has `ceil(views / subsets)` views; where that is not a divisor, the last view of some
        subsets is empty: its projections are 0, and `restrict` gives it zeros.

        Args:
            i: index of the subset, from 0.
        """
        if self.subsets == 1:
            return self
        tables = jax.tree.map(lambda table: _interleaved(table, i, self.subsets), self.tables)
        return self.replace(geometry=None, subsets=1, tables=tables)

    def restrict(self, y, i):
        """Returns the views of y that belong to `subset(i)`; see there for the padding."""
        require_shape(y, self.range, self, "measurement")
        return _interleaved(y, i, self.subsets)

    @property
    def _pair(self):
        if self.footprint == "strip":
            module = cone_strip
        else:
            module = cone_joseph if self.separable else vector_joseph
        return module.project, module.back_project

    @property
    def _dtype(self):
        return self.tables.reach.dtype


def _cast(table):
    return jnp.asarray(table, None if table.dtype.kind in "bi" else jnp.result_type(float))


def _interleaved(array, i, subsets):
    """Takes entries i, i + subsets, ... of axis 0, padded by zeros to the same number for every i."""
    size = -(-array.shape[0] // subsets)
    padded = jnp.pad(array, [(0, size * subsets - array.shape[0])] + [(0, 0)] * (array.ndim - 1))
    return jax.lax.dynamic_index_in_dim(padded.reshape(size, subsets, *array.shape[1:]), i, 1, keepdims=False)


def _require_footprint(footprint, separable):
    if footprint not in ("joseph", "strip"):
        raise ValueError(f'ConeBeam footprint must be "joseph" or "strip", got {footprint!r}')
    if footprint == "strip" and not separable:
        raise ValueError(
            "ConeBeam: the strip footprint needs detector columns parallel to z, rows normal to it and no ray "
            "steeper than 45 degrees: use footprint='joseph'"
        )


def _require_sight(r: Rays):
    depths = corner_depths(r).min(1)
    if not depths.min() > 0:
        raise ValueError(
            f"ConeBeam: the volume reaches the source, or lies behind it, in view {int(np.argmin(depths))}: "
            "give distances and voxel spacing both in mm, and a volume inside the orbit"
        )
    pixels = corner_pixels(r)
    low, high = pixels.min(1), pixels.max(1)
    half = np.array([r.columns, r.rows]) / 2
    if not np.any(np.all((low < half) & (high > -half), -1)):
        raise ValueError(
            f"ConeBeam: no ray meets the volume, whose shadow spans columns and rows {low[0].round(1)} to "
            f"{high[0].round(1)} from the middle of the detector in view 0: check offsets, heights and units (mm)"
        )
    widest = (high - low).max()
    if widest < 1:
        raise ValueError(
            f"ConeBeam: the volume's shadow is {widest:.2g} detector pixels wide: "
            "give the detector's and the voxels' spacing both in mm"
        )

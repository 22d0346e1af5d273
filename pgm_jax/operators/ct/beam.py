"""What the two-dimensional projectors share: building tables, shapes, checks, and ordered subsets."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from pgm_jax.operators.ct.driving import drive, group_sizes
from pgm_jax.operators.ct.geometry import ImageGrid
from pgm_jax.operators.ct.turns import first_quarter, quarter_turn
from pgm_jax.operators.operator import LinearOperator, require_shape

_BUILD = object()
_WIDEST = 200


class PlanarBeam(LinearOperator):
    """Base of `ParallelBeam` and `FanBeam`; a subclass gives `_host_tables` and `_pair`.

    Attributes:
        grid: image grid.
        geometry: acquisition geometry, or None for a subset.
        footprint: "joseph" (linear interpolation, fast) or "strip" (exact pixel areas, mean over each bin).
        subsets: number of ordered subsets, interleaved views, for `subset` and `restrict`.
        channels: slices of an image, which share the geometry.
        tables: arrays of the projectors, built from the geometry.
        parts: the same for every subset, stacked; None for one subset.
        size: (views, bins) of a measurement.
        setting: static numbers of the projectors.
        turns: `quarter_turn` of the scan, and of its subsets.
    """

    grid: ImageGrid = struct.field(pytree_node=False)
    geometry: Any = struct.field(pytree_node=False)
    footprint: str = struct.field(pytree_node=False, default="joseph")
    subsets: int = struct.field(pytree_node=False, default=1)
    channels: int = struct.field(pytree_node=False, default=1)
    tables: Any = _BUILD
    parts: Any = None
    size: tuple = struct.field(pytree_node=False, default=())
    setting: tuple = struct.field(pytree_node=False, default=())
    turns: tuple = struct.field(pytree_node=False, default=(0, 0))

    def __post_init__(self):
        if self.tables is not _BUILD:
            return
        self._require_options()
        angles = self.geometry.angles
        turn = quarter_turn(self.grid, angles)
        quarter = first_quarter(angles, turn)
        part = replace(self.geometry, angles=quarter)
        tables, setting = self._host_tables(part, np.ones(len(quarter)), None)
        self._set(tables=_as_arrays(tables), setting=setting, size=(len(angles), self.geometry.bins))
        self._set(turns=(turn, 0))
        if self.subsets > 1:
            turn, parts = self._subset_tables()
            self._set(parts=parts, turns=(self.turns[0], turn))

    def __call__(self, x):
        """Computes the projections.

        Args:
            x: image (height, width, channels), for example attenuation in 1/mm.

        Returns:
            Array (views, bins, channels), in units of x times mm.
        """
        require_shape(x, self.domain, self, "image")
        return self._pair[0](self.tables, x, turn=self.turns[0], **dict(self.setting))

    def adjoint(self, y):
        """Computes the exact adjoint, an image (height, width, channels); not an inverse, see `fbp`.

        Args:
            y: projections (views, bins, channels).
        """
        require_shape(y, self.range, self, "sinogram")
        return self._pair[1](self.tables, y, turn=self.turns[0], **dict(self.setting))

    def subset(self, i):
        """Returns the operator of views i, i + subsets, i + 2 subsets, ...; i may be traced.

        Every subset has `ceil(views / subsets)` views; where that is not a divisor, the last view of some
        subsets is empty: its projections are 0, and `restrict` gives it zeros.

        Args:
            i: index of the subset, from 0.
        """
        if self.subsets == 1:
            return self
        size = -(-self.size[0] // self.subsets), self.size[1]
        tables = jax.tree.map(lambda table: table[i], self.parts)
        turns = self.turns[1], 0
        return self.replace(geometry=None, subsets=1, tables=tables, parts=None, size=size, turns=turns)

    def restrict(self, y, i):
        """Returns the rows of a sinogram that belong to `subset(i)`; see there for the padding."""
        views = -(-self.size[0] // self.subsets)
        padding = [(0, views * self.subsets - self.size[0])] + [(0, 0)] * (jnp.ndim(y) - 1)
        return jnp.pad(y, padding).reshape(views, self.subsets, *jnp.shape(y)[1:])[:, i]

    @property
    def domain(self):
        return jax.ShapeDtypeStruct((*self.grid.shape, self.channels), jnp.result_type(float))

    @property
    def range(self):
        return jax.ShapeDtypeStruct((*self.size, self.channels), jnp.result_type(float))

    @property
    def _pair(self):
        raise NotImplementedError

    def _host_tables(self, geometry, used, sizes):
        raise NotImplementedError

    def _subset_tables(self):
        """Returns the quarter turn that all subsets share, and the tables of each, padded to one shape."""
        views = -(-self.geometry.views // self.subsets)
        index = np.arange(views * self.subsets).reshape(views, self.subsets).T
        used = index < self.geometry.views
        angles = self.geometry.angles[np.where(used, index, 0)]
        turn = quarter_turn(self.grid, angles) if used.all() else 0
        angles, used = first_quarter(angles, turn), first_quarter(used, turn)
        parts = [replace(self.geometry, angles=a) for a in angles]
        bins = np.arange(self.geometry.bins)
        sizes = np.max([group_sizes(drive(self.grid, part.lines(bins)).by_rows) for part in parts], axis=0)
        tables = [self._host_tables(p, u, tuple(sizes))[0] for p, u in zip(parts, used, strict=True)]
        return turn, _as_arrays([np.stack(same) for same in zip(*tables, strict=True)])

    def _require_options(self):
        name = type(self).__name__
        if not isinstance(self.grid, ImageGrid) or not hasattr(self.geometry, "lines"):
            given = type(self.grid).__name__, type(self.geometry).__name__
            raise ValueError(f"{name} needs an ImageGrid and a geometry in two dimensions, got {given}")
        if self.footprint not in ("joseph", "strip"):
            raise ValueError(f'{name} footprint must be "joseph" or "strip", got {self.footprint!r}')
        if not 1 <= self.subsets <= self.geometry.views:
            raise ValueError(
                f"{name} needs between 1 and {self.geometry.views} subsets (its views), got {self.subsets}"
            )
        if self.channels < 1:
            raise ValueError(f"{name} needs at least one channel (slice), got {self.channels}")
        seen, wide = self.geometry.width_at_axis, 2 * self.grid.radius()
        # A factor of 1000 lies between m and mm; no detector is so much smaller or larger than what it sees.
        if not 1 / _WIDEST < seen / wide < _WIDEST:
            raise ValueError(
                f"{name}: the detector sees {seen:.3g} mm of an image that is {wide:.3g} mm across: give the "
                "spacing of the grid and all lengths of the geometry in mm"
            )

    def _set(self, **values):
        for name, value in values.items():
            object.__setattr__(self, name, value)


def _as_arrays(tables):
    """Casts host tables once: indices to int32, the rest to the default floating type."""
    real = jnp.result_type(float)
    return tuple(jnp.asarray(t, jnp.int32 if np.issubdtype(t.dtype, np.integer) else real) for t in tables)

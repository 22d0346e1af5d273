"""Time of flight for parallel sinograms: each ray is split into bins along itself."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from pgm_jax.operators.ct.parallel import ParallelBeam
from pgm_jax.operators.emission.subsets import interleaved, require_subsets
from pgm_jax.operators.linear_pair import linear_pair
from pgm_jax.operators.operator import LinearOperator, require_shape


def _shares(cosine, sine, x, y, edges, std):
    """Computes the share of each pixel in each bin of a view, (height, width, bins)."""
    along = cosine * y[:, None] - sine * x[None, :]
    scale = 1 / (np.sqrt(2).astype(along.dtype) * std)
    # Neighbours share an edge, so each normal integral serves two bins.
    below = 0.5 * jax.lax.erf((along[..., None] - edges[None, None]) * scale)
    return below[..., :-1] - below[..., 1:]


def _view(structure, leaves, number, slices):
    """Returns the projector of one view, for `slices` slices."""
    return jax.tree.unflatten(structure, leaves).replace(channels=slices).subset(number)


def _forward(tables, x, *, structure):
    (numbers, cosines, sines), grid, leaves = tables[:3], tables[3:7], tables[7:]
    bins, slices = grid[2].shape[0] - 1, x.shape[-1]

    def one(view):
        number, cosine, sine = view
        share = _shares(cosine, sine, *grid)
        weighted = (x[..., None] * share[:, :, None]).reshape(*x.shape[:2], -1)
        projected = _view(structure, leaves, number, slices * bins)(weighted)[0]
        return jnp.moveaxis(projected.reshape(-1, slices, bins), -1, 1)

    return jax.lax.map(one, (numbers, cosines, sines))


def _adjoint(tables, y, *, structure):
    (numbers, cosines, sines), grid, leaves = tables[:3], tables[3:7], tables[7:]
    bins, slices = y.shape[-2:]

    def one(image, view):
        (number, cosine, sine), counts = view
        flat = jnp.moveaxis(counts, 1, -1).reshape(1, counts.shape[0], -1)
        spread = _view(structure, leaves, number, slices * bins).adjoint(flat)
        spread = spread.reshape(*spread.shape[:2], slices, bins)
        share = _shares(cosine, sine, *grid)
        return image + jnp.sum(spread * share[:, :, None], axis=-1), None

    start = jnp.zeros((grid[1].shape[0], grid[0].shape[0], slices), y.dtype)
    return jax.lax.scan(one, start, ((numbers, cosines, sines), y))[0]


_apply, _apply_adjoint = linear_pair("time_of_flight", _forward, _adjoint)


class TimeOfFlight(LinearOperator):
    """Projects along parallel rays into time-of-flight bins, `y(view, k, b) = int x(l) share_b(l) dl`.

    The share of bin b is that of a normal law around the point of emission, at `l` along the ray, that falls
    in the bin, `Phi((l - l_b + w/2) / std) - Phi((l - l_b - w/2) / std)`. Bins side by side add up to the
    projection without time of flight, but for what lies beyond the outer bins. It is evaluated at the middle
    of each pixel. `l` grows along (-sin th, cos th) of (x, y), with 0 at the foot of the centre of rotation.

    Build it with `create`.

    Attributes:
        projector: parallel projector of as many subsets as views, one view each.
        views: which of its views are measured, int32 (views,).
        angles: their cosines and sines, (views,) each.
        grid: x (width,), y (height,), edges of the bins (bins + 1,) and standard deviation, in mm.
        subsets: number of interleaved subsets of views.
    """

    projector: Any
    views: Any
    angles: Any
    grid: tuple
    subsets: int = struct.field(pytree_node=False, default=1)

    @classmethod
    def create(cls, projector, bins: int, bin_width, fwhm, subsets: int = 1) -> "TimeOfFlight":
        """Splits a projector into its views.

        Args:
            projector: `ParallelBeam` without time of flight.
            bins: number of time-of-flight bins, the middle of them at the foot of the centre of rotation.
            bin_width: width of a bin in mm of position along the ray, c / 2 times its time.
            fwhm: resolution in mm of position, c / 2 times the coincidence time resolution; 500 ps are 75 mm.
            subsets: number of interleaved subsets; it must divide the number of views.

        Returns:
            The operator.

        Raises:
            ValueError: for another projector, or bins that are not positive.
        """
        if not isinstance(projector, ParallelBeam):
            raise ValueError(f"TimeOfFlight needs a ParallelBeam, got {type(projector).__name__}")
        if bins < 1 or not (bin_width > 0 and fwhm > 0):
            raise ValueError(
                f"TimeOfFlight needs bins, bin_width and fwhm above 0, got {bins}, {bin_width} and {fwhm}"
            )
        geometry = projector.geometry
        require_subsets("views", geometry.views, subsets)
        single = ParallelBeam(
            projector.grid, geometry, projector.footprint, subsets=geometry.views, channels=projector.channels
        )
        edges = (np.arange(bins + 1) - bins / 2) * bin_width
        grid = (*projector.grid.centres(), edges, fwhm / np.sqrt(8 * np.log(2)))
        angles = (np.cos(geometry.angles), np.sin(geometry.angles))
        cast = lambda values: jax.tree.map(lambda v: jnp.asarray(v, jnp.result_type(float)), values)
        return cls(single, jnp.arange(geometry.views, dtype=jnp.int32), cast(angles), cast(grid), subsets)

    def __call__(self, x):
        """Computes the projections (views, detector bins, time-of-flight bins, channels)."""
        require_shape(x, self.domain, self, "image")
        tables, structure = self._tables()
        return _apply(tables, x, structure=structure)

    def adjoint(self, y):
        """Computes the exact adjoint, an image (height, width, channels)."""
        require_shape(y, self.range, self, "sinogram")
        tables, structure = self._tables()
        return _apply_adjoint(tables, y, structure=structure)

    @property
    def domain(self):
        return self.projector.domain

    @property
    def range(self):
        _, detector, channels = self.projector.range.shape
        shape = (self.views.shape[0], detector, self.grid[2].shape[0] - 1, channels)
        return jax.ShapeDtypeStruct(shape, self.projector.range.dtype)

    def subset(self, i):
        """Returns the operator of views i, i + subsets, i + 2 subsets, ...; i may be traced."""
        views, angles = interleaved((self.views, self.angles), i, self.subsets)
        return self.replace(views=views, angles=angles, subsets=1)

    def restrict(self, y, i):
        """Returns the views of y that belong to `subset(i)`."""
        return interleaved(y, i, self.subsets)

    def _tables(self):
        leaves, structure = jax.tree.flatten(self.projector)
        return (self.views, *self.angles, *self.grid, *leaves), structure

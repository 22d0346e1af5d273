"""SPECT: the attenuated Radon transform with a blur that grows with the distance from the collimator."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from pgm_jax.operators.emission.attenuation import require_attenuation
from pgm_jax.operators.emission.collimator import band, collapse, collapse_adjoint, collimator_kernels
from pgm_jax.operators.emission.rotation import rotate, rotate_adjoint
from pgm_jax.operators.emission.subsets import interleaved, require_subsets
from pgm_jax.operators.linear_pair import linear_pair
from pgm_jax.operators.operator import LinearOperator, require_shape


def _surviving(attenuation, cosine, sine, grid, spacing):
    """Computes the shares of photons that reach the camera from each depth, (rows, columns, slices)."""

    def pixel(behind, mu):
        # Half of its own pixel and all of those between it and the camera, which lies beyond the last row.
        return behind + mu, jnp.exp(-spacing * (behind + 0.5 * mu))

    turned = rotate(attenuation, cosine, sine, grid)
    # Row by row: several times faster on a CPU than a cumulative sum.
    return jax.lax.scan(pixel, jnp.zeros_like(turned[0]), turned, reverse=True)[1]


def _along_axis(image, kernels, transpose):
    """Blurs each depth (depths, bins, slices, batch) along the axis of the camera, if there are kernels for it."""
    if not kernels.shape[1]:
        return image
    matrices = band(kernels, image.shape[2])
    rule = "dji,dtjb->dtib" if transpose else "dij,dtjb->dtib"
    return jnp.einsum(rule, matrices, image, precision=jax.lax.Precision.HIGHEST)


def _forward(tables, x, *, grid, spacing, attenuated):
    flat = x.reshape(*x.shape[:2], -1)

    def view(rows):
        cosine, sine, across, axial = rows
        turned = rotate(flat, cosine, sine, grid).reshape(*grid, *x.shape[2:])
        if attenuated:
            turned = turned * _surviving(tables[0], cosine, sine, grid, spacing)[..., None]
        turned = _along_axis(turned, axial, transpose=False)
        return spacing * collapse(turned.reshape(*grid, -1), across).reshape(-1, *x.shape[2:])

    return jax.lax.map(view, tables[1:])


def _adjoint(tables, y, *, grid, spacing, attenuated):
    shape = tables[0].shape

    def view(image, given):
        (cosine, sine, across, axial), counts = given
        turned = collapse_adjoint(spacing * counts.reshape(counts.shape[0], -1), across)
        turned = _along_axis(turned.reshape(*grid, *counts.shape[1:]), axial, transpose=True)
        if attenuated:
            turned = turned * _surviving(tables[0], cosine, sine, grid, spacing)[..., None]
        back = rotate_adjoint(turned.reshape(*grid, -1), cosine, sine, shape[:2])
        return image + back.reshape(image.shape), None

    return jax.lax.scan(view, jnp.zeros((*shape, y.shape[-1]), y.dtype), (tables[1:], y))[0]


_apply, _apply_adjoint = linear_pair("spect", _forward, _adjoint)


class SPECT(LinearOperator):
    """Projects activity to a turning camera: rotate, attenuate, blur each depth, and add up along the rays.

        y(view, k) = dx sum_d G_d [ x(t_k, s_d) exp(-dx (mu_d / 2 + sum_{e > d} mu_e)) ](k)

    At angle th the image is sampled at t (cos th, sin th) + s (-sin th, cos th) of (x, y); the camera lies
    beyond the largest s, so at th = 0 below the last row. Depths cover the diagonal of the image. The adjoint
    runs the transposed steps in reverse, with the same weights.

    Slices: an image (height, width, channels) is a batch of slices, blurred within each; a volume
    (depth, height, width, 1) is blurred along its axis too. Pixels are square and camera bins as wide.

    Build it with `create`. Units: mm for 1 / mm of attenuation, so a projection is activity times mm.

    Attributes:
        tables: attenuation (height, width, slices) in 1/mm; cosines and sines (views,); kernels across the
            camera and along its axis, (views, depths, taps).
        shape: shape of the image.
        bins: bins of the camera across.
        spacing: pixel size in mm.
        attenuated: whether there is any attenuation.
        subsets: number of interleaved subsets of views.
    """

    tables: tuple
    shape: tuple = struct.field(pytree_node=False)
    bins: int = struct.field(pytree_node=False)
    spacing: float = struct.field(pytree_node=False)
    attenuated: bool = struct.field(pytree_node=False)
    subsets: int = struct.field(pytree_node=False, default=1)

    @classmethod
    def create(
        cls,
        angles,
        shape,
        spacing,
        *,
        attenuation=None,
        radius=None,
        fwhm=0.0,
        growth=0.0,
        bins=None,
        slice_spacing=None,
        subsets=1,
    ) -> "SPECT":
        """Builds the tables on the host in float64.

        Args:
            angles: angle of each view in radians, (views,).
            shape: (height, width, channels), or (depth, height, width, 1) for a volume.
            spacing: size of the square pixels in mm.
            attenuation: attenuation map of the shape of the image in 1/mm, or None for none.
            radius: distance of the collimator's face from the axis in mm, one number or (views,); needed with
                growth above 0.
            fwhm: full width at half maximum of the blur at the collimator's face in mm, 0 for none.
            growth: its growth per mm of distance from the face.
            bins: bins of the camera across; the width of the image by default.
            slice_spacing: distance between slices of a volume in mm; needed to blur a volume.
            subsets: number of interleaved subsets; it must divide the number of views.

        Returns:
            The operator.

        Raises:
            ValueError: for shapes that do not fit, angles in degrees, a blur without radius or slice spacing,
                or a negative attenuation.
        """
        angles = _checked_angles(angles)
        require_subsets("views", len(angles), subsets)
        if len(shape) not in (3, 4) or (len(shape) == 4 and shape[-1] != 1):
            raise ValueError(
                f"SPECT needs a shape (height, width, channels) or (depth, height, width, 1), got {tuple(shape)}"
            )
        height, width, slices = shape if len(shape) == 3 else (*shape[1:3], shape[0])
        kernels = _kernels(len(angles), _depths(height, width), spacing, radius, fwhm, growth)
        axial = np.zeros((*kernels.shape[:2], 0))
        if len(shape) == 4 and kernels.shape[-1] > 1:
            if slice_spacing is None:
                raise ValueError("the blur of a volume needs slice_spacing in mm")
            axial = _kernels(
                len(angles), _depths(height, width), spacing, radius, fwhm, growth, slice_spacing
            )
        mu = np.zeros(shape) if attenuation is None else require_attenuation(attenuation, shape)
        mu = mu if len(shape) == 3 else np.moveaxis(mu[..., 0], 0, -1)
        tables = (mu, np.cos(angles), np.sin(angles), kernels, axial)
        tables = tuple(jnp.asarray(table, jnp.result_type(float)) for table in tables)
        bins = width if bins is None else bins
        return cls(tables, tuple(shape), bins, float(spacing), attenuation is not None, subsets)

    def __call__(self, x):
        require_shape(x, self.domain, self, "image")
        volume = len(self.shape) == 4
        x = jnp.moveaxis(x, 0, 2) if volume else x[..., None]
        y = _apply(self.tables, x, **self._setting)
        return jnp.moveaxis(y, 2, 1) if volume else y[..., 0]

    def adjoint(self, y):
        require_shape(y, self.range, self, "projections")
        volume = len(self.shape) == 4
        y = jnp.moveaxis(y, 1, 2) if volume else y[..., None]
        x = _apply_adjoint(self.tables, y, **self._setting)
        return jnp.moveaxis(x, 2, 0) if volume else x[..., 0]

    @property
    def domain(self):
        return jax.ShapeDtypeStruct(self.shape, self.tables[0].dtype)

    @property
    def range(self):
        """(views, bins, channels), or (views, depth, bins, 1) of a volume."""
        views = self.tables[1].shape[0]
        middle = (self.bins, self.shape[2]) if len(self.shape) == 3 else (self.shape[0], self.bins, 1)
        return jax.ShapeDtypeStruct((views, *middle), self.tables[0].dtype)

    @property
    def _setting(self):
        height, width, _ = self.tables[0].shape
        grid = _depths(height, width), self.bins
        return {"grid": grid, "spacing": self.spacing, "attenuated": self.attenuated}

    def subset(self, i):
        """Returns the operator of views i, i + subsets, i + 2 subsets, ...; i may be traced."""
        attenuation, *views = self.tables
        return self.replace(tables=(attenuation, *interleaved(tuple(views), i, self.subsets)), subsets=1)

    def restrict(self, y, i):
        """Returns the views of y that belong to `subset(i)`."""
        return interleaved(y, i, self.subsets)


def _depths(height, width):
    return int(np.ceil(np.hypot(height, width)))


def _checked_angles(angles):
    angles = np.asarray(angles, np.float64)
    if angles.ndim != 1 or angles.size == 0 or not np.isfinite(angles).all():
        raise ValueError(f"SPECT needs finite angles of shape (views,), got {angles.shape}")
    if np.max(np.abs(angles)) > 4 * np.pi:
        raise ValueError(
            f"SPECT needs angles in radians, got up to {np.max(np.abs(angles)):g}: use numpy.deg2rad"
        )
    return angles


def _kernels(views, depths, spacing, radius, fwhm, growth, across=None):
    """Returns the kernels (views, depths, taps) of the collimator for pixels of size `across`."""
    if growth and radius is None:
        raise ValueError("a blur that grows with distance needs the radius of the collimator's face in mm")
    if fwhm == 0 and growth == 0:
        return np.ones((views, depths, 1))
    s = spacing * (np.arange(depths) - (depths - 1) / 2)
    radii = np.broadcast_to(0.0 if radius is None else np.asarray(radius, np.float64), views)
    distinct, place = np.unique(radii, return_inverse=True)
    pixel = spacing if across is None else across
    return collimator_kernels(distinct[:, None] - s, fwhm, growth, pixel)[place]

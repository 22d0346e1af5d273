"""Roughness penalties between neighbouring voxels: the relative difference prior and the quadratic one."""

from itertools import product
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct

from pgm_jax.core import safe_divide


class _Pairs(struct.PyTreeNode):
    """A sum over pairs of neighbours, `R(x) = sum_{j<k} w_jk phi(x_j, x_k)`; borders have fewer pairs.

    Neighbours are the 3^d - 1 voxels around one; the weight is one over the distance, in units of the shortest.

    Attributes:
        axes: axes along which voxels are neighbours; all but the last (channel) axis by default.
        spacing: voxel size along each of these axes, or None for equal ones.
    """

    axes: tuple | None = struct.field(pytree_node=False, default=None, kw_only=True)
    spacing: tuple | None = struct.field(pytree_node=False, default=None, kw_only=True)

    def value(self, x):
        """Computes R(x).

        Args:
            x: image (..., channel), >= 0.

        Returns:
            Real scalar.
        """
        return sum(weight * jnp.sum(self._pair(x[low], x[high])) for weight, low, high in self._pairs(x))

    def grad(self, x):
        """Computes the gradient of R, an image like x."""
        return self._gather(x, self._slope)

    def curvature(self, x):
        """Computes a diagonal d that majorises the Hessian of R at x, an image like x.

        Twice its own diagonal: the Hessian of a pair is a positive semidefinite 2 x 2 matrix.
        """
        return 2 * self._gather(x, self._bend)

    def _gather(self, x, function):
        """Adds `function(x_j, x_k)` over the neighbours k of every voxel j."""
        total = jnp.zeros_like(x)
        for weight, low, high in self._pairs(x):
            a, b = x[low], x[high]
            total = total + _placed(weight * function(a, b), low, x.shape)
            total = total + _placed(weight * function(b, a), high, x.shape)
        return total

    def _pairs(self, x):
        """Yields the weight and the two index tuples of every pair of directions, each pair once."""
        axes = tuple(range(x.ndim - 1)) if self.axes is None else tuple(self.axes)
        spacing = np.ones(len(axes)) if self.spacing is None else np.asarray(self.spacing, np.float64)
        if len(spacing) != len(axes):
            raise ValueError(
                f"{type(self).__name__} got {len(spacing)} spacings for axes {axes}: one for each"
            )
        for offset in product((-1, 0, 1), repeat=len(axes)):
            if offset > (0,) * len(axes):
                low, high = [slice(None)] * x.ndim, [slice(None)] * x.ndim
                for axis, step in zip(axes, offset, strict=True):
                    n = x.shape[axis]
                    low[axis] = slice(max(-step, 0), n - max(step, 0))
                    high[axis] = slice(max(step, 0), n - max(-step, 0))
                yield float(spacing.min() / np.linalg.norm(offset * spacing)), tuple(low), tuple(high)


def _placed(part, index, shape):
    """Embeds a part of an image at its slices, zero elsewhere."""
    starts = [s.start or 0 for s in index]
    return jnp.pad(part, [(a, n - a - m) for a, m, n in zip(starts, part.shape, shape, strict=True)])


class RelativeDifference(_Pairs):
    """The relative difference prior, `phi(a, b) = (a - b)^2 / (a + b + gamma |a - b|)`, 0 at a = b = 0.

    It grows in proportion to the activity, so one weight suits hot and cold regions, and like |a - b| for
    large differences, so edges survive. Convex for a, b >= 0; it needs an image >= 0.

    Source: J. Nuyts, D. Beque, P. Dupont and L. Mortelmans, A concave prior penalizing relative differences
    for maximum-a-posteriori reconstruction in emission tomography, IEEE TNS 49 (2002), Eq. 10.

    Attributes:
        gamma: how soon differences count as edges, >= 0; the field uses 2.
    """

    gamma: Any = 2.0

    def _pair(self, a, b):
        return safe_divide((a - b) ** 2, self._scale(a, b))

    def _slope(self, a, b):
        d, scale = a - b, self._scale(a, b)
        return safe_divide(d, scale) * safe_divide(a + 3 * b + self.gamma * jnp.abs(d), scale)

    def _bend(self, a, b):
        # Factor by factor: the cube of an activity underflows.
        scale = self._scale(a, b)
        return safe_divide(8 * safe_divide(b, scale) ** 2, scale)

    def _scale(self, a, b):
        return a + b + self.gamma * jnp.abs(a - b)


class Quadratic(_Pairs):
    """The quadratic penalty, `phi(a, b) = (a - b)^2 / 2`."""

    def _pair(self, a, b):
        return (a - b) ** 2 / 2

    def _slope(self, a, b):
        return a - b

    def _bend(self, a, b):
        return jnp.ones_like(a)

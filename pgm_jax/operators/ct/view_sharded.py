"""A projector whose views are divided among devices."""

from typing import Any

import jax
from flax import struct
from jax.sharding import NamedSharding, PartitionSpec

from pgm_jax.operators.operator import LinearOperator, require_shape


class ViewSharded(LinearOperator):
    """An operator with its views spread over a mesh axis: each device projects its own, of the same volume.

    The projection moves nothing between devices; the adjoint, and so every gradient in x, ends in one sum of
    volumes over the mesh axis. The numbers are those of the operator alone, up to the order of that sum. Made by
    `shard_views`.

    Attributes:
        operator: operator whose leaves all have a leading axis of views, such as `ConeBeam`.
        mesh: device mesh.
        axis: name of the mesh axis.
    """

    operator: Any
    mesh: Any = struct.field(pytree_node=False)
    axis: str = struct.field(pytree_node=False)

    def __call__(self, x):
        require_shape(x, self.domain, self, "volume")
        views, whole = PartitionSpec(self.axis), PartitionSpec()
        run = jax.shard_map(
            lambda operator, x: operator(x), mesh=self.mesh, in_specs=(views, whole), out_specs=views
        )
        return run(self.operator, x)

    def adjoint(self, y):
        require_shape(y, self.range, self, "measurement")
        views, whole = PartitionSpec(self.axis), PartitionSpec()
        run = jax.shard_map(
            lambda operator, y: jax.lax.psum(operator.adjoint(y), self.axis),
            mesh=self.mesh,
            in_specs=(views, views),
            out_specs=whole,
        )
        return run(self.operator, y)

    @property
    def domain(self):
        return self.operator.domain

    @property
    def range(self):
        return self.operator.range

    def subset(self, i):
        return _require_even(ViewSharded(self.operator.subset(i), self.mesh, self.axis))

    def restrict(self, y, i):
        return self.operator.restrict(y, i)


def shard_views(operator, mesh, axis: str = "data") -> ViewSharded:
    """Spreads the views of an operator, and its geometry tables, over the devices of a mesh axis.

    Args:
        operator: operator whose leaves all have a leading axis of views, such as `ConeBeam`.
        mesh: mesh with `AxisType.Auto` axes.
        axis: name of the axis.

    Returns:
        The `ViewSharded` operator.

    Raises:
        ValueError: if the mesh has no such axis, the views do not divide evenly, or a leaf has no axis of views.
    """
    if axis not in mesh.shape:
        raise ValueError(
            f"shard_views: the mesh has axes {tuple(mesh.shape)}, not {axis!r}: name one of them"
        )
    sharded = _require_even(ViewSharded(operator, mesh, axis))
    views = operator.range.shape[0]
    if any(leaf.shape[:1] != (views,) for leaf in jax.tree.leaves(operator)):
        raise ValueError(
            f"shard_views: {type(operator).__name__} has tables that its views share: shard its slices instead"
        )
    return sharded.replace(operator=jax.device_put(operator, NamedSharding(mesh, PartitionSpec(axis))))


def _require_even(sharded):
    views, devices = sharded.range.shape[0], sharded.mesh.shape[sharded.axis]
    if views % devices:
        raise ValueError(
            f"{views} views do not divide over {devices} devices of axis {sharded.axis!r}: "
            "take views (and subsets) in multiples of the devices, or fewer devices"
        )
    return sharded

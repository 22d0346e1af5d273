"""Sharding rules: regular expressions on parameter paths, kept outside the networks.

    rules = [("embed/.*", replicate), (".*kernel$", fsdp()), (".*", replicate)]
    params = jax.jit(init, out_shardings=shardings(jax.eval_shape(init, key), rules, mesh))(key)

The path of a leaf is its keys joined by "/", such as `blocks/0/conv/kernel`. Optimiser states and averages
contain the parameters' own paths, so the same rules give them the same sharding.
"""

import math
import re
from collections.abc import Callable, Sequence

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Spec = PartitionSpec | Callable
Rule = tuple[str, Spec]
"""`(pattern, spec)`; the spec is a `PartitionSpec`, or a function `(shape, mesh) -> PartitionSpec`."""


def replicate(shape, mesh: Mesh) -> PartitionSpec:
    """Keeps a whole copy on every device: the spec `P()`.

    Args:
        shape: shape of the array; not used.
        mesh: the mesh; not used.

    Returns:
        An empty `PartitionSpec`.
    """
    return PartitionSpec()


def fsdp(axis: str = "fsdp", min_size: int = 2**16) -> Callable:
    """Makes a spec that splits the largest axis that the mesh axis divides, the last among equals.

    Args:
        axis: name of the mesh axis.
        min_size: arrays with fewer elements are replicated: gathering them would cost more than they take.

    Returns:
        A function `(shape, mesh) -> PartitionSpec` for a rule. An array with no divisible axis is replicated.
    """

    def spec(shape, mesh):
        parts = mesh.shape[axis]
        divisible = [i for i, size in enumerate(shape) if size and size % parts == 0]
        if parts == 1 or math.prod(shape) < min_size or not divisible:
            return PartitionSpec()
        largest = max(divisible, key=lambda i: (shape[i], i))
        return PartitionSpec(*(axis if i == largest else None for i in range(len(shape))))

    return spec


def shardings(tree_of_shapes, rules: Sequence[Rule], mesh: Mesh):
    """Chooses a sharding for every leaf by the first rule whose pattern is found in its path.

    Args:
        tree_of_shapes: pytree whose leaves have a `shape`, such as the result of `jax.eval_shape`.
        rules: `(pattern, spec)` pairs in order of priority; patterns are searched for (`re.search`), so
            anchor them with `^` and `$` where it matters.
        mesh: the mesh whose axes the specs name.

    Returns:
        Pytree of `NamedSharding` with the structure of `tree_of_shapes`.

    Raises:
        ValueError: if no rule matches a path, or a spec does not fit the shape; the message names the path.
    """

    def choose(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        for pattern, spec in rules:
            if re.search(pattern, name):
                spec = spec if isinstance(spec, PartitionSpec) else spec(leaf.shape, mesh)
                _check(name, pattern, spec, leaf.shape, mesh)
                return NamedSharding(mesh, spec)
        patterns = ", ".join(repr(pattern) for pattern, _ in rules)
        raise ValueError(f"no sharding rule matches {name!r}, only {patterns}; end with ('.*', replicate)")

    return jax.tree_util.tree_map_with_path(choose, tree_of_shapes)


def _check(name, pattern, spec, shape, mesh):
    where = f"{name!r} of shape {tuple(shape)} under rule {pattern!r}"
    if len(spec) > len(shape):
        raise ValueError(f"{where}: the spec {spec} has {len(spec)} axes, the array {len(shape)}")
    for size, entry in zip(shape, spec, strict=False):
        axes = (entry,) if isinstance(entry, str) else entry or ()
        unknown = [axis for axis in axes if axis not in mesh.shape]
        if unknown:
            raise ValueError(f"{where}: no mesh axis {unknown[0]!r}, only {', '.join(mesh.axis_names)}")
        parts = math.prod(mesh.shape[axis] for axis in axes)
        if size % parts:
            raise ValueError(f"{where}: the spec {spec} splits an axis of {size} into {parts} parts")

"""JAX primitives of two arrays, linear in each, of which both transposes are chosen by hand.

All derivatives of any order are such primitives again, and what the backward pass needs is their arguments alone:
nothing that a transpose prepares is computed in the forward pass and kept. (`linear_call` has no batching rule.)
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import PartitionSpec


def bilinear(name: str, function: Callable, transposes: tuple[Callable, Callable], batch=None) -> Primitive:
    """Makes a primitive of a bilinear function, for programs of one device.

    Args:
        name: name in a jaxpr.
        function: `(x, y, **params) -> z`, params static and hashable.
        transposes: maps of the cotangent to those of x and of y, `(z, x, y, **params)`; the one that is looked
            for is not known, and has its shape and dtype in `.aval`.
        batch: batching rule `(primitive, arguments, dims, params) -> (result, dim)`; by default `one_by_one`.

    Returns:
        The primitive.
    """
    primitive = Primitive(name)
    primitive.def_impl(lambda *args, **params: jax.jit(partial(function, **params))(*args))
    primitive.def_abstract_eval(partial(_result_type, function))
    mlir.register_lowering(primitive, mlir.lower_fun(function, multiple_results=False))
    ad.defbilinear(primitive, *transposes)
    rule = batch or one_by_one
    batching.primitive_batchers[primitive] = lambda arguments, dims, **params: rule(
        primitive, arguments, dims, params
    )
    return primitive


def one_by_one(primitive, arguments, dims, params):
    """Batches by a loop over the members.

    Args:
        primitive: the primitive.
        arguments: its arguments.
        dims: their batch axes, None where there is none.
        params: its parameters.

    Returns:
        The results along axis 0, and 0.
    """
    mapped = [jnp.moveaxis(a, d, 0) for a, d in zip(arguments, dims, strict=True) if d is not None]

    def one(parts):
        parts = iter(parts)
        whole = (a if d is None else next(parts) for a, d in zip(arguments, dims, strict=True))
        return primitive.bind(*whole, **params)

    return jax.lax.map(one, mapped), 0


def images_together(primitive, arguments, dims, params):
    """Batches images under one kernel as more images, and else by `one_by_one`; arguments and result as there."""
    (x, kernel), (dim, of_kernel) = arguments, dims
    if of_kernel is not None:
        return one_by_one(primitive, arguments, dims, params)
    x = jnp.moveaxis(x, dim, 0)
    y = primitive.bind(x.reshape(-1, *x.shape[2:]), kernel, **params)
    return y.reshape(*x.shape[:2], *y.shape[1:]), 0


def turned(kernel):
    """Returns the kernel of the transpose along the image, `kernel[-q]` with its last two axes exchanged.

    Args:
        kernel: (*size, inputs, outputs).

    Returns:
        (*size, outputs, inputs).
    """
    return jnp.flip(kernel, range(kernel.ndim - 2)).swapaxes(-1, -2)


def varying(*arrays) -> bool:
    """Returns whether an array varies over the axes of a `shard_map`, which these primitives do not follow."""

    def of(aval):
        kind = getattr(aval, "manual_axis_type", None)
        return kind.varying if kind is not None else getattr(aval, "vma", frozenset())

    return any(of(jax.typeof(array)) for array in arrays)


def _result_type(function, *avals, **params):
    shapes = (jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in avals)
    out = jax.eval_shape(partial(function, **params), *shapes)
    sharding = avals[0].sharding.update(spec=PartitionSpec(*[None] * out.ndim))
    return avals[0].update(shape=out.shape, dtype=out.dtype, weak_type=False, sharding=sharding)

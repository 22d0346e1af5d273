"""A linear map and its adjoint as two JAX primitives that are each other's transpose.

`linear_call` has no batching rule, `custom_vjp` no forward mode and no transpose; a primitive pair has all of
them, and its own batching rule: a vmapped axis joins the trailing slices, which share every weight.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import PartitionSpec


def linear_pair(name: str, forward, adjoint):
    """Makes the pair `(apply, apply_adjoint)` of a real linear map with a hand-written exact adjoint.

    `forward(tables, x, **static)` and `adjoint(tables, y, **static)` are pure functions of plain arrays. x and
    y end in ONE axis of slices, which do not mix; the result has the dtype of x or y. Both are traced once a
    shape, lowered inline, and never differentiated: `apply_adjoint` is the transpose of `apply` and the other
    way round, so jvp, vjp, Hessian, `linear_transpose`, scan and checkpoint follow. The geometry in `tables`
    is held fixed, as under `stop_gradient`.

    `vmap` over x folds the axis into the slices, batch-major; over tables it runs a `lax.map`. Under
    `shard_map` every argument may be sharded: the gradient of a replicated x is summed over devices that
    hold different tables. A complex x is mapped as two real slices.

    Args:
        name: name of the map, unique, as it stands in a jaxpr.
        forward: function of (tables, x); tables is a tuple of arrays, floating ones in the dtype of x.
        adjoint: function of (tables, y), the exact transpose of `forward` in x.

    Returns:
        (apply, apply_adjoint): functions of (tables, x, **static) and (tables, y, **static) with hashable
        keywords. float32 at least: narrower and integer arrays are widened.
    """
    pair = Primitive(name), Primitive(f"{name}_adjoint")
    for primitive, transpose, function in zip(pair, pair[::-1], (forward, adjoint), strict=True):
        _define(primitive, transpose, function)
    return partial(_apply, pair[0]), partial(_apply, pair[1])


def _apply(primitive, tables, x, **static):
    x = jnp.asarray(x)
    if jnp.iscomplexobj(x):
        n = x.shape[-1]
        parts = _apply(primitive, tables, jnp.concatenate([x.real, x.imag], axis=-1), **static)
        return jax.lax.complex(parts[..., :n], parts[..., n:])
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    tables = [jnp.asarray(table) for table in tables]
    tables = [t.astype(x.dtype) if jnp.issubdtype(t.dtype, jnp.floating) else t for t in tables]
    return primitive.bind(*_equally_varying(tables + [x]), **static)


def _varying(aval):
    """Returns the mesh axes of an enclosing `shard_map` over which a value varies."""
    kind = getattr(aval, "manual_axis_type", None)
    return kind.varying if kind is not None else getattr(aval, "vma", frozenset())


def _equally_varying(arrays):
    axes = [_varying(jax.typeof(array)) for array in arrays]
    every = frozenset().union(*axes)
    missing = [tuple(sorted(every - own, key=str)) for own in axes]
    return [
        jax.lax.pcast(array, absent, to="varying") if absent else array
        for array, absent in zip(arrays, missing, strict=True)
    ]


def _define(primitive, transpose, function):
    def run(*arguments, **static):
        *tables, x = arguments
        out = function(tuple(tables), x, **static)
        if out.dtype != x.dtype:
            raise TypeError(
                f"{primitive.name} must keep the dtype of its argument {x.dtype}, got {out.dtype}"
            )
        return out

    compiled = jax.jit(lambda arguments, static: run(*arguments, **dict(static)), static_argnums=1)
    primitive.def_impl(lambda *arguments, **static: compiled(arguments, tuple(sorted(static.items()))))
    primitive.def_abstract_eval(partial(_result_type, run))
    mlir.register_lowering(primitive, partial(_lower, mlir.lower_fun(run, multiple_results=False)))
    ad.primitive_jvps[primitive] = partial(_jvp, primitive)
    ad.primitive_transposes[primitive] = partial(_transpose, transpose)
    batching.primitive_batchers[primitive] = partial(_batch, primitive)


def _plain(aval):
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype)


def _result_type(run, *avals, **static):
    out = jax.eval_shape(partial(run, **static), *map(_plain, avals))
    x = avals[-1]
    sharding = x.sharding.update(spec=PartitionSpec(*[None] * len(out.shape)))
    return x.update(shape=out.shape, dtype=out.dtype, weak_type=False, sharding=sharding)


def _lower(lower, context, *arguments, **static):
    # Plain types: the loops inside need no bookkeeping of what varies over the devices of a `shard_map`.
    avals = [jax.core.ShapedArray(aval.shape, aval.dtype) for aval in context.avals_in]
    return lower(context.replace(avals_in=avals), *arguments, **static)


def _jvp(primitive, primals, tangents, **static):
    *tables, _ = primals
    out, tangent = primitive.bind(*primals, **static), tangents[-1]
    if isinstance(tangent, ad.Zero):
        return out, ad.Zero.from_primal_value(out)
    return out, primitive.bind(*tables, tangent, **static)


def _transpose(transpose, cotangent, *arguments, **static):
    *tables, x = arguments
    if isinstance(cotangent, ad.Zero):
        return [None] * len(tables) + [ad.Zero(x.aval)]
    return [None] * len(tables) + [transpose.bind(*tables, cotangent, **static)]


def _batch(primitive, arguments, dims, **static):
    if any(dim is not None for dim in dims[:-1]):
        return _map_tables(primitive, arguments, dims, **static)
    *tables, x = arguments
    x = jnp.moveaxis(x, dims[-1], -2)
    folded = x.reshape(*x.shape[:-2], -1)
    out = primitive.bind(*tables, folded, **static)
    return out.reshape(*out.shape[:-1], *x.shape[-2:]), out.ndim - 1


def _map_tables(primitive, arguments, dims, **static):
    mapped = [jnp.moveaxis(a, d, 0) for a, d in zip(arguments, dims, strict=True) if d is not None]

    def one(parts):
        parts = iter(parts)
        merged = [a if d is None else next(parts) for a, d in zip(arguments, dims, strict=True)]
        return primitive.bind(*merged, **static)

    return jax.lax.map(one, mapped), 0

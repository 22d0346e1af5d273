"""From an NNX module to two pure functions over a nested dict of arrays.

Modules are written in NNX because it reads well; nothing outside this room sees it. The conversion is done
once, so a call costs what a call on plain arrays costs, and `params` passes every JAX transform and every
checkpoint as it is.
"""

import functools
import inspect
from collections.abc import Callable

from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict

from pgm_jax.core import Network


def from_nnx(make: Callable) -> Network:
    """Converts an NNX module into a `Network`.

    The module is called as `module(x, t, cond)`, with `key=` and `train=` added where its `__call__` has
    parameters of these names. It may hold `nnx.Param`s only: random state is passed in as `key`, running
    statistics would make `apply` impure, and constant arrays belong inside `__call__` or are NumPy.

    Args:
        make: `(rngs) -> nnx.Module`, called with `nnx.Rngs`; its sizes are Python numbers.

    Returns:
        `Network(init, apply)`. `init(key, x, t, cond) -> params` is a nested dict with string keys, such as
        `params["blocks"]["0"]["conv"]["kernel"]`; x, t and cond are not needed and may be left out.
        `apply(params, x, t, cond, *, key=None, train=False) -> output` takes x (b, ...) and t (b,).

    Raises:
        TypeError: on first use, if the module holds state other than parameters; the message names it.
        ValueError: by `apply`, if the paths of `params` are not those of the module; the message names one.
    """

    @functools.cache
    def blueprint():
        module = nnx.eval_shape(lambda: make(nnx.Rngs(0)))
        accepted = frozenset({"key", "train"} & set(inspect.signature(module).parameters))
        graph, state = nnx.split(module)
        return graph, _parameters(state), accepted

    def init(key, x=None, t=None, cond=None):
        state = nnx.state(make(nnx.Rngs(key)))
        return unflatten_dict({path: leaf.get_value() for path, (_, leaf) in _parameters(state).items()})

    def apply(params, x, t, cond=None, *, key=None, train=False):
        graph, leaves, accepted = blueprint()
        values = flatten_dict(params)
        _same_paths(values, leaves)
        filled = ((place, leaf.replace(values[path])) for path, (place, leaf) in leaves.items())
        state = nnx.from_flat_state(filled)
        extra = {"key": key, "train": train}
        return nnx.merge(graph, state)(x, t, cond, **{name: extra[name] for name in accepted})

    return Network(init, apply)


def _parameters(state):
    # List entries have integer keys in NNX; strings survive every file format.
    leaves = {tuple(map(str, place)): (place, leaf) for place, leaf in nnx.to_flat_state(state)}
    for path, (_, leaf) in leaves.items():
        if not isinstance(leaf, nnx.Param):
            raise TypeError(
                f"{'/'.join(path)} is {type(leaf).__name__}, not nnx.Param: pass random keys to "
                "apply(key=...), keep no running statistics, compute constants in __call__ or with NumPy"
            )
    return leaves


def _same_paths(values, leaves):
    missing, unknown = sorted(leaves.keys() - values.keys()), sorted(values.keys() - leaves.keys())
    if missing or unknown:
        kind, path = ("lack", missing[0]) if missing else ("have an unknown", unknown[0])
        raise ValueError(
            f"params {kind} {'/'.join(map(str, path))!r} ({len(missing)} missing, {len(unknown)} unknown): "
            "they belong to a network of other sizes or options"
        )

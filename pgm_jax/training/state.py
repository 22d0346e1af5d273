"""What a run carries from step to step, made where it will live."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pgm_jax import parallel

REPLICATED = ((".*", parallel.replicate),)
"""Rules that keep a whole copy of the state on every device: plain data parallelism."""

# Steps fold numbers from 0 into the run's key; this is the largest uint32, which no run reaches.
_INIT = 0xFFFFFFFF


class TrainState(struct.PyTreeNode):
    """Everything that a checkpoint holds and a step changes.

    The paths of the optimiser's state and of the averages contain the parameters' own paths
    (`params/conv/kernel`, `opt_state/0/mu/conv/kernel`, `ema/half/conv/kernel`), so one list of sharding rules
    serves all of them.

    Attributes:
        step: number of steps taken, int32 ().
        params: the network's parameters, a nested dict of arrays.
        opt_state: the optax state.
        ema: averages of the parameters by rule name.
        carry: the objective's own state: a teacher, a curriculum, a target.
        key: typed PRNG key of the run (); step n draws from `fold_in(key, n)`.
    """

    step: Any
    params: Any
    opt_state: Any
    ema: dict[str, Any]
    carry: Any
    key: Any


def create_state(
    key,
    params,
    optimiser,
    *,
    ema: Sequence = (),
    carry=(),
    mesh: Mesh | None = None,
    rules: Sequence[parallel.Rule] = REPLICATED,
) -> TrainState:
    """Builds the state of step 0 in one compiled program that writes each part onto its device.

    Args:
        key: typed PRNG key of the run.
        params: pytree of arrays, which is copied; or `init(key) -> params`, which is compiled, so that a large
            network never exists whole on one device.
        optimiser: optax `GradientTransformation`.
        ema: rules `(name, init, update)` with `init(params) -> average`.
        carry: the objective's initial carry; its leaves become arrays.
        mesh: mesh of `parallel.make_mesh`; by default the state lives on the first device.
        rules: sharding rules on the paths of the state, see `TrainState`.

    Returns:
        `TrainState` of global arrays, the step and the key included.

    Raises:
        ValueError: if two rules of `ema` have one name, or a sharding rule does not fit.
    """
    mesh = parallel.make_mesh(devices=jax.local_devices()[:1]) if mesh is None else mesh
    abstract = abstract_state(key, params, optimiser, ema=ema, carry=carry, mesh=mesh, rules=rules)
    places = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    init = params if callable(params) else None
    given = None if init else jax.tree.map(_place, params, places.params)
    carry, key = jax.tree.map(_place, carry, places.carry), _place(key, places.key)
    build = _builder(init, optimiser, ema)
    return jax.jit(build, out_shardings=places)(key, given, carry)


def abstract_state(
    key,
    params,
    optimiser,
    *,
    ema: Sequence = (),
    carry=(),
    mesh: Mesh | None = None,
    rules: Sequence[parallel.Rule] = REPLICATED,
) -> TrainState:
    """Describes the state that `create_state` would build: what `checkpoint.restore` needs to read one.

    Args:
        key: as in `create_state`.
        params: as in `create_state`; arrays may be `jax.ShapeDtypeStruct`.
        optimiser: as in `create_state`.
        ema: as in `create_state`.
        carry: as in `create_state`.
        mesh: as in `create_state`.
        rules: as in `create_state`.

    Returns:
        `TrainState` of `jax.ShapeDtypeStruct` with shardings.

    Raises:
        ValueError: as `create_state`.
    """
    names = [rule.name for rule in ema]
    if len(set(names)) < len(names):
        raise ValueError(f"two averages have one name: {names}; give each rule of ema its own")
    mesh = parallel.make_mesh(devices=jax.local_devices()[:1]) if mesh is None else mesh
    init = params if callable(params) else None
    shapes = jax.eval_shape(_builder(init, optimiser, ema), key, None if init else params, carry)
    places = parallel.shardings(shapes, rules, mesh)
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), shapes, places
    )


def _builder(init: Callable | None, optimiser, ema) -> Callable:
    def build(key, params, carry):
        params = init(jax.random.fold_in(key, _INIT)) if init else params
        state = TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            opt_state=optimiser.init(params),
            ema={rule.name: rule.init(params) for rule in ema},
            carry=carry,
            key=key,
        )
        return jax.tree.map(_strong, state)

    return build


def _place(leaf, sharding):
    leaf = jnp.asarray(leaf)
    if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.device_put(leaf, sharding)
    # A key cannot be put on devices of other processes; the words that it is made of can.
    words = jax.device_put(jax.random.key_data(leaf), NamedSharding(sharding.mesh, PartitionSpec()))
    return jax.random.wrap_key_data(words, impl=jax.random.key_impl(leaf))


def _strong(leaf):
    # A weakly typed leaf would become strongly typed in the first step, which would compile twice.
    leaf = jnp.asarray(leaf)
    return leaf if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf.astype(leaf.dtype)

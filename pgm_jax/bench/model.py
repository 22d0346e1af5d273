"""The network of a case: built by name, its weights filled, its forward pass counted."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax import networks, parallel
from pgm_jax.bench.flops import count_flops
from pgm_jax.core import Network, Precision
from pgm_jax.networks import UNetOptions, presets

_UNETS = {"unet": {}, "ddpmpp": presets.DDPMPP, "ncsnpp": presets.NCSNPP, "adm": presets.ADM}
NETWORKS = (*_UNETS, "dit", "drunet")
_DTYPES = ("float32", "bfloat16")
# The side at and below which the presets' own data sets have attention.
_ATTENDED = 32


class Case(NamedTuple):
    """What is run.

    Attributes:
        network: one of `NETWORKS`.
        size: side of the square images.
        batch: images of a batch, over all devices.
        width: channels of the first level (tokens of a DiT), or None for the preset's own.
        channels: channels of the images.
        dtype: dtype of the network's body; parameters, losses and sampler states stay in float32.
        devices: number of devices.
        options: other options of the network.
    """

    network: str = "ddpmpp"
    size: int = 64
    batch: int = 4
    width: int | None = None
    channels: int = 1
    dtype: str = "float32"
    devices: int = 1
    options: dict[str, Any] = {}


class Model(NamedTuple):
    """A network with its weights.

    Attributes:
        network: `Network(init, apply)`.
        params: its parameters; none is zero, so that no branch of the network is.
        options: `UNetOptions`, or None for another network, which has no twin in PyTorch.
        full: the same network in float32, for comparison with the twin.
        parameters: number of parameters.
        flops: operations of a forward pass of the batch.
    """

    network: Network
    params: Any
    options: UNetOptions | None
    full: Network
    parameters: int
    flops: float


def build(case: Case) -> Model:
    """Builds the network of a case.

    A preset keeps its attention on levels of 32 pixels and below, as its references have it, unless
    `options["attention"]` is given; dropout is 0.

    Args:
        case: `Case`.

    Returns:
        `Model`.

    Raises:
        ValueError: for an unknown network or dtype, or an impossible size, batch or number of devices.
        TypeError: for an option that the network does not have.
    """
    _check(case)
    compute = Precision(compute=jnp.dtype(case.dtype))
    options = _options(case)
    make = networks.unet if case.network in _UNETS else getattr(networks, case.network)
    network, full = (make(case.channels, **options, precision=kind) for kind in (compute, Precision()))
    params = _filled(full.init(jax.random.key(0)))
    x = jax.ShapeDtypeStruct((case.batch, case.size, case.size, case.channels), jnp.float32)
    flops = count_flops(network.apply, params, x, jax.ShapeDtypeStruct((case.batch,), jnp.float32))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    twin = UNetOptions(case.channels, **options) if case.network in _UNETS else None
    return Model(network, params, twin, full, parameters, flops)


def mesh_of(case: Case):
    """Returns the mesh over the first `case.devices` devices.

    Args:
        case: `Case`.

    Returns:
        Mesh of `parallel.make_mesh`.
    """
    return parallel.make_mesh(devices=jax.devices()[: case.devices])


def noise(case: Case, scale: float = 1.0) -> np.ndarray:
    """Draws a batch of normal images: what a run starts from, the same for both parties.

    Args:
        case: `Case`.
        scale: standard deviation.

    Returns:
        (batch, size, size, channels) float32.
    """
    draw = np.random.default_rng(0).standard_normal((case.batch, case.size, case.size, case.channels))
    return (scale * draw).astype(np.float32)


def _options(case):
    options = dict(_UNETS.get(case.network, {})) | ({} if case.width is None else {"width": case.width})
    if case.network in _UNETS:
        options["dropout"] = 0.0
        attention = options.get("attention", ())
        options["attention"] = tuple(level for level in attention if case.size >> level <= _ATTENDED)
    options |= case.options
    return options


def _check(case):
    if case.network not in NETWORKS:
        raise ValueError(f"network is {case.network!r}: choose one of {', '.join(NETWORKS)}")
    if case.dtype not in _DTYPES:
        raise ValueError(f"dtype is {case.dtype!r}: choose one of {', '.join(_DTYPES)}")
    if min(case.size, case.batch, case.channels, case.devices) < 1:
        raise ValueError(f"size, batch, channels and devices are at least 1, got {case}")
    if case.devices > len(jax.devices()):
        raise ValueError(f"{case.devices} devices are asked for, and there are {len(jax.devices())}")
    if case.batch % case.devices:
        raise ValueError(
            f"a batch of {case.batch} does not divide over {case.devices} devices: use a multiple"
        )


def _filled(params):
    """Moves every leaf off zero: a zero output would agree with anything."""
    draw = np.random.default_rng(0).standard_normal
    return jax.tree.map(lambda leaf: leaf + (0.02 * draw(leaf.shape)).astype(leaf.dtype), params)

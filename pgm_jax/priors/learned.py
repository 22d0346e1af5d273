"""Trained priors: a network's weights with everything needed to use them, in one file without pickles.

The file is an `.npz` of bfloat16 weights (their bits as uint16, one entry a path) and of `card`, a JSON text:
network and process with their options, sigma_data, the units and voxel size of the images, and what a reader
must know of people, licence, training and limits.
"""

import importlib.resources
import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from flax.traverse_util import flatten_dict, unflatten_dict

from pgm_jax import networks, processes
from pgm_jax.core import Network
from pgm_jax.networks import as_denoiser
from pgm_jax.processes import precondition

_WEIGHTS = "weights"
_NEEDED = ("network", "process", "sigma_data", "unit")


class PriorError(ValueError):
    """A trained prior cannot be found or read."""


class LearnedPrior(struct.PyTreeNode):
    """A trained denoiser: the network is static, parameters and process are data.

    It may cross a `jit` border as an argument; build the denoiser inside.

    Attributes:
        params: the network's parameters, float32.
        process: the process it was trained for.
        network: `Network(init, apply)`.
        text: the card as JSON.
    """

    params: Any
    process: Any
    network: Network = struct.field(pytree_node=False)
    text: str = struct.field(pytree_node=False)

    @property
    def card(self) -> dict:
        """What is known of the prior: network, process, units, people, licence, training, limits."""
        return json.loads(self.text)

    @property
    def unit(self) -> str:
        """Unit of the images, such as "attenuation of water"."""
        return self.card["unit"]

    def denoiser(self):
        """Builds the denoiser under EDM's preconditioning, in the card's units.

        Images of any size: each is padded with its border to the network's next multiple, and cropped again.

        Returns:
            `denoise(x_t, t, cond=None) -> x0` for one image.
        """
        card = self.card
        scaling = precondition.edm(card["sigma_data"])
        inner = as_denoiser(self.network, self.params, self.process, scaling)
        multiple = card.get("multiple", 1)

        def denoise(x_t, t, cond=None):
            missing = [-n % multiple for n in x_t.shape[:-1]]
            padding = [(m // 2, m - m // 2) for m in missing]
            x0 = inner(jnp.pad(x_t, [*padding, (0, 0)], mode="edge"), t, cond)
            return x0[tuple(slice(a, a + n) for (a, _), n in zip(padding, x_t.shape[:-1], strict=True))]

        return denoise


def prior_names() -> list[str]:
    """Lists the priors that the library ships.

    Returns:
        Their names, sorted.
    """
    folder = importlib.resources.files(__package__).joinpath(_WEIGHTS)
    return sorted(file.name.removesuffix(".npz") for file in folder.iterdir() if file.name.endswith(".npz"))


def load_prior(name) -> LearnedPrior:
    """Loads a shipped prior by its name, or one of your own by its path.

    Args:
        name: a name of `prior_names()`, or the path of a file that `save_prior` wrote.

    Returns:
        `LearnedPrior`, its parameters widened to float32.

    Raises:
        PriorError: if there is no such prior, or the file is damaged or is not a prior.
    """
    path = Path(str(name)).expanduser()
    if path.suffix != ".npz":
        if str(name) not in prior_names():
            raise PriorError(
                f"no prior {str(name)!r}: shipped are {', '.join(prior_names())}; or give a .npz file"
            )
        path = importlib.resources.files(__package__).joinpath(_WEIGHTS, f"{name}.npz")
    card, values = _read(path)
    missing = [key for key in _NEEDED if key not in card]
    if missing:
        raise PriorError(f"{path} is not a prior of this library: its card lacks {missing[0]!r}")
    (kind, options), (law, arguments) = card["network"], card["process"]
    network = _made(networks, kind, options, path)
    process = _made(processes, law, {k: float(v) for k, v in arguments.items()}, path)
    expected = flatten_dict(jax.eval_shape(network.init, jax.random.key(0)), sep="/")
    if {k: v.shape for k, v in values.items()} != {k: v.shape for k, v in expected.items()}:
        raise PriorError(f"{path}: the weights do not fit the network of its card, {kind} with {options}")
    params = unflatten_dict({k: jnp.asarray(v, jnp.float32) for k, v in values.items()}, sep="/")
    return LearnedPrior(params=params, process=process, network=network, text=json.dumps(card))


def save_prior(path, params, card) -> None:
    """Writes parameters as bfloat16 with their card.

    Args:
        path: the `.npz` file to write; replaced in one go.
        params: nested dict of arrays.
        card: JSON-able dict with at least `network: [name in pgm_jax.networks, options]`,
            `process: [name in pgm_jax.processes, arguments]` (infinite ones as "inf"), `sigma_data`, `unit`.

    Raises:
        PriorError: if the card lacks an entry, or a parameter is not finite.
    """
    missing = [key for key in _NEEDED if key not in card]
    if missing:
        raise PriorError(f"the card lacks {missing[0]!r}; it needs {', '.join(_NEEDED)}")
    entries = {}
    for name, leaf in flatten_dict(params, sep="/").items():
        if not bool(jnp.isfinite(leaf).all()):
            raise PriorError(f"{name} holds values that are not finite: nothing was written")
        entries[f"params/{name}"] = np.asarray(jnp.asarray(leaf).astype(jnp.bfloat16)).view(np.uint16)
    path = Path(path).expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as stream:
            np.savez(stream, card=np.array(json.dumps(card)), **entries)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _read(path):
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            card = json.loads(str(archive["card"]))
            names = [name for name in archive.files if name.startswith("params/")]
            bits = {name.removeprefix("params/"): archive[name] for name in names}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise PriorError(f"{path} cannot be read as a prior: {error}") from error
    return card, {name: np.asarray(value).view(jnp.bfloat16) for name, value in bits.items()}


def _made(room, name, options, path):
    try:
        return getattr(room, name)(**options)
    except (AttributeError, TypeError) as error:
        raise PriorError(
            f"{path}: this version of the library cannot build {name} with {options}: {error}"
        ) from error

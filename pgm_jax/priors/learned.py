"""Trained priors: a network's weights with everything needed to use them, in one file without pickles.

The file holds the weights (`prior_file`) and the card, a JSON text: network and process with their options,
sigma_data, the units and voxel size of the images, and what a reader must know of people, licence, training and
limits. A few-step prior's card says its "objective": "ect", "ict" or "cd" for consistency functions, the latter two
with "boundary", the level at which they are the identity; "ctm" or "meanflow" for jumps.
"""

import importlib.resources
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from flax.traverse_util import flatten_dict, unflatten_dict

from pgm_jax import networks, processes
from pgm_jax.core import Network
from pgm_jax.networks import as_denoiser, as_jump_denoiser
from pgm_jax.priors import prior_file
from pgm_jax.priors.prior_file import PriorError as PriorError
from pgm_jax.processes import precondition

_WEIGHTS = "weights"
_NEEDED = ("network", "process", "sigma_data", "unit")
JUMPS = ("ctm", "meanflow")
"""Objectives whose network is told where it jumps to."""

_BOUNDED = ("ict", "cd")


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

    @property
    def objective(self) -> str:
        """What the network was trained for: "denoising", or a few-step objective such as "ect" or "ctm"."""
        return self.card.get("objective", "denoising")

    @property
    def reads_image(self) -> bool:
        """Whether the network was trained with an image as condition, without which it was never asked."""
        return bool(self.card["network"][1].get("conditions", {}).get("image"))

    def denoiser(self):
        """Builds the denoiser, in the card's units; of a few-step prior, its consistency function.

        Images of any size: each is padded with its border to the network's next multiple, and cropped again, and so
        is a conditioning image.

        Returns:
            `denoise(x_t, t, cond=None) -> x0` for one image; it raises a ValueError without `cond["image"]` if the
            prior reads one.
        """
        make = as_jump_denoiser if self.objective in JUMPS else as_denoiser
        return _padded(self._made(make), self.card.get("multiple", 1), self.reads_image)

    def jump_denoiser(self):
        """Builds the jump denoiser of a prior that was trained for jumps, for `samplers.ctm`.

        Returns:
            `denoise(x_t, t, cond=None, s=None) -> x0` for one image of any size.

        Raises:
            PriorError: for a prior of another objective.
        """
        if self.objective not in JUMPS:
            raise PriorError(
                f"this prior was trained for {self.objective}, which is not told where it jumps to: use denoiser() "
                f"or a prior of {' or '.join(JUMPS)}"
            )
        return _padded(self._made(as_jump_denoiser), self.card.get("multiple", 1), self.reads_image)

    def _made(self, make):
        card = self.card
        scaling = precondition.edm(card["sigma_data"])
        if self.objective in _BOUNDED:
            scaling = precondition.consistency(card["sigma_data"], card["boundary"])
        return make(self.network, self.params, self.process, scaling)


def _padded(inner, multiple, reads_image):
    """The denoiser of images whose sides are no multiples of what the network takes."""

    def denoise(x_t, t, cond=None, *target, **targets):
        if reads_image and "image" not in (cond or {}):
            raise ValueError("this prior reads an image, such as the low-dose one: give cond={'image': ...}")
        missing = [-n % multiple for n in x_t.shape[:-1]]
        padding = [*((m // 2, m - m // 2) for m in missing), (0, 0)]
        if cond and "image" in cond:
            cond = cond | {"image": jnp.pad(cond["image"], padding, mode="edge")}
        x0 = inner(jnp.pad(x_t, padding, mode="edge"), t, cond, *target, **targets)
        return x0[tuple(slice(a, a + n) for (a, _), n in zip(padding[:-1], x_t.shape[:-1], strict=True))]

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
    card, values = prior_file.read(path)
    missing = [key for key in _NEEDED if key not in card]
    if missing:
        raise PriorError(f"{path} is not a prior of this library: its card lacks {missing[0]!r}")
    (kind, options), (law, arguments) = card["network"], card["process"]
    network = _made(networks, kind, options, path)
    process = _made(processes, law, {k: float(v) for k, v in arguments.items()}, path)
    expected = flatten_dict(jax.eval_shape(network.init, jax.random.key(0)), sep="/")
    if {k: v.shape for k, v in values.items()} != {k: v.shape for k, v in expected.items()}:
        raise PriorError(f"{path}: the weights do not fit the network of its card, {kind} with {options}")
    params = unflatten_dict({k: jnp.asarray(v) for k, v in values.items()}, sep="/")
    return LearnedPrior(params=params, process=process, network=network, text=json.dumps(card))


def save_prior(path, params, card, bits: int = 16) -> None:
    """Writes parameters with their card.

    Args:
        path: the `.npz` file to write; replaced in one go.
        params: nested dict of arrays.
        card: JSON-able dict with at least `network: [name in pgm_jax.networks, options]`,
            `process: [name in pgm_jax.processes, arguments]` (infinite ones as "inf"), `sigma_data`, `unit`.
        bits: 16 (bfloat16) or 8 (integers with one scale an output channel) for each weight.

    Raises:
        PriorError: if the card lacks an entry, or a parameter is not finite.
    """
    missing = [key for key in _NEEDED if key not in card]
    if missing:
        raise PriorError(f"the card lacks {missing[0]!r}; it needs {', '.join(_NEEDED)}")
    prior_file.write(Path(path).expanduser(), flatten_dict(params, sep="/"), card, bits)


def _made(room, name, options, path):
    if "conditions" in options:
        options = options | {"conditions": networks.Conditions(**options["conditions"])}
    try:
        return getattr(room, name)(**options)
    except (AttributeError, TypeError) as error:
        raise PriorError(
            f"{path}: this version of the library cannot build {name} with {options}: {error}"
        ) from error

"""What is reconstructed, and with which network: a computed volume, its measurement, and a denoiser's parts."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax.bench.flops import count_flops
from pgm_jax.bench.model import Case, Model, build
from pgm_jax.bench.operators import ProjectorCase, projector
from pgm_jax.data import shepp_logan
from pgm_jax.networks import UNetOptions
from pgm_jax.operators import Sense, equispaced_mask
from pgm_jax.priors import load_prior
from pgm_jax.processes import EDM, precondition

MODALITIES = ("ct", "mri")
_SIGMA_DATA = 0.5
# Of the largest datum (CT), and of the largest pixel (MRI, whose transform is orthonormal).
_NOISE = 0.01


class PosteriorCase(NamedTuple):
    """A volume to reconstruct.

    Attributes:
        method: dds, diffpir or dps.
        modality: ct (parallel beam over half a turn, Joseph's model, divided by its norm) or mri (one coil,
            complex images).
        size: side of the square slices.
        slices: slices of the volume, all drawn at once.
        views: views of CT.
        acceleration: acceleration of MRI.
        steps: evaluations of the network for one slice.
        cg: conjugate gradient steps at each evaluation of dds and diffpir.
        network: unet, ddpmpp, ncsnpp, adm, dit or drunet; read where there is no prior.
        width: its channels of the first level, or None for its own.
        prior: shipped prior or `.npz` file whose weights are used, or None for weights that are not trained.
        options: other options of the network.
    """

    method: str = "dds"
    modality: str = "ct"
    size: int = 256
    slices: int = 32
    views: int = 180
    acceleration: int = 4
    steps: int = 50
    cg: int = 5
    network: str = "unet"
    width: int | None = 16
    prior: str | None = None
    options: dict[str, Any] = {}


class Scene(NamedTuple):
    """A volume and its measurement.

    Attributes:
        truth: (slices, size, size, 1), values in [0, 1]; complex of phase 0 for MRI.
        operator: operator of one slice, of norm 1.
        y: measurements (slices, *range) with noise.
        noise_std: their noise per real component.
    """

    truth: Any
    operator: Any
    y: Any
    noise_std: Any


class DenoiserParts(NamedTuple):
    """What a denoiser is built of.

    Attributes:
        case: `Case` of the network.
        model: `Model`.
        process: process it is run on.
        parameterisation: `(process, t) -> Coefficients`.
        sigma_data: deviation of the data in EDM's preconditioning.
    """

    case: Case
    model: Model
    process: Any
    parameterisation: Callable
    sigma_data: float


def scene_of(case: PosteriorCase) -> Scene:
    """Measures a Shepp-Logan volume.

    Args:
        case: `PosteriorCase`.

    Returns:
        `Scene`, the same for the same case.

    Raises:
        ValueError: for an unknown modality, or numbers that leave nothing to measure.
    """
    if case.modality not in MODALITIES:
        raise ValueError(f"modality is {case.modality!r}: choose one of {', '.join(MODALITIES)}")
    if min(case.size, case.slices, case.views, case.acceleration, case.steps, case.cg) < 1:
        raise ValueError(f"size, slices, views, acceleration, steps and cg are at least 1, got {case}")
    ct = case.modality == "ct"
    # The middle half of the head: its ends are empty slices.
    head = shepp_logan((2 * case.slices, case.size, case.size)).array
    volume = head[case.slices // 2 :][: case.slices]
    truth = jnp.asarray(volume, jnp.float32 if ct else jnp.complex64)
    if ct:
        operator = projector(ProjectorCase("parallel", "joseph", case.size, case.views))[0]
        # Of norm 1, as the guidance weights of all parties are meant.
        operator = operator / float(operator.norm())
    else:
        mask = equispaced_mask(0, case.size, case.acceleration)
        operator = Sense.single(case.size, case.size, jnp.asarray(mask, jnp.float32))
    clean = np.asarray(jax.jit(lambda a, x: jax.vmap(a)(x))(operator, truth))
    noise_std = _NOISE * (np.abs(clean).max() if ct else 1.0)
    draw = np.random.default_rng(0).standard_normal
    noise = draw(clean.shape) if ct else draw(clean.shape) + 1j * draw(clean.shape)
    # A line that was not measured stays 0.
    y = (clean + noise_std * (noise if ct else mask * noise)).astype(clean.dtype)
    return Scene(truth, operator, jnp.asarray(y), jnp.float32(noise_std))


def denoiser_parts(case: PosteriorCase) -> DenoiserParts:
    """Builds the network of a case, or loads that of its prior.

    Args:
        case: `PosteriorCase`.

    Returns:
        `DenoiserParts`.

    Raises:
        ValueError: for an unknown network or prior, or a prior of the other kind of image.
    """
    channels = 1 if case.modality == "ct" else 2
    network = Case(case.network, case.size, case.slices, case.width, channels, options=case.options)
    if case.prior is None:
        scaling = precondition.edm(_SIGMA_DATA)
        return DenoiserParts(network, build(network), EDM(), scaling, _SIGMA_DATA)
    prior = load_prior(case.prior)
    kind, options = prior.card["network"]
    if options.get("channels", 1) != channels:
        raise ValueError(
            f"{case.prior} knows images of {options.get('channels', 1)} real channels and {case.modality} has "
            f"{channels}: use another prior or modality"
        )
    shapes = [(case.slices, case.size, case.size, channels), (case.slices,)]
    seen = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    parameters = sum(leaf.size for leaf in jax.tree.leaves(prior.params))
    twin = UNetOptions(**options) if kind == "unet" else None
    flops = count_flops(prior.network.apply, prior.params, *seen)
    model = Model(prior.network, prior.params, twin, prior.network, parameters, flops)
    sigma_data = prior.card["sigma_data"]
    network = network._replace(network=kind, width=options.get("width"), options=options)
    return DenoiserParts(network, model, prior.process, precondition.edm(sigma_data), sigma_data)

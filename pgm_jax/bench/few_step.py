"""Quality of few-step priors beside their teachers: denoising PSNR and KID against evaluations and seconds."""

import functools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax import samplers
from pgm_jax.bench.few_step_images import Patches, patches_for
from pgm_jax.bench.few_step_priors import METHODS, SAMPLERS_OF, Contender, budgets, contenders
from pgm_jax.bench.few_step_programs import denoising, generation
from pgm_jax.bench.flops import count_flops, mfu
from pgm_jax.bench.row import Row
from pgm_jax.bench.timing import compile_apart, interleaved
from pgm_jax.core import program_bytes
from pgm_jax.metrics import kernel_distance, standardised, texture_features
from pgm_jax.recipes.prior_config import plain

FEATURES = (
    "texture_features (fixed log-Gabor amplitudes, their modulation, grey values; no download), standardised"
)


class FewStepCase(NamedTuple):
    """What is compared.

    Attributes:
        teachers: names or files of priors trained for denoising.
        students: names or files of few-step priors of the same images.
        samplers: names in `METHODS`; each prior gets those of its objective.
        teacher_nfe: evaluations of the network for one image.
        student_nfe: likewise.
        gamma: noise of CTM's sampler; above 0 only for Normal noise.
        sigmas: levels of the denoising; the first is what the figure shows.
        samples: images that are generated for the KID.
        references: real patches that they are compared with.
        denoised: real patches that are denoised.
        batch: images that are generated at a time.
        images: file of images in the priors' unit; None takes validation people of the priors' task.
    """

    teachers: tuple[str, ...] = ()
    students: tuple[str, ...] = ()
    samplers: tuple[str, ...] = tuple(METHODS)
    teacher_nfe: tuple[int, ...] = (1, 2, 4, 8, 16, 35)
    student_nfe: tuple[int, ...] = (1, 2, 4, 8)
    gamma: float = 0.0
    sigmas: tuple[float, ...] = (0.3,)
    samples: int = 64
    references: int = 256
    denoised: int = 32
    batch: int = 16
    images: str | None = None


class Reference(NamedTuple):
    """The real patches, ready to be compared with.

    Attributes:
        task: name of the task.
        patches: `Patches`.
        features: (references, features) of `texture_features`.
    """

    task: str
    patches: Patches
    features: np.ndarray


def few_step_rows(case: FewStepCase) -> Iterator[Row]:
    """Measures every prior with every sampler and budget.

    Two tasks that the priors were trained for, on people that they were not: from a real patch with noise of level
    sigma to the clean one, and from noise to new patches. All start from the same draws. Of denoising, the highest
    PSNR is that of the posterior mean, a denoiser's one evaluation; a draw, or a consistency function, which is to
    return one, cannot reach it, so students are read beside their teacher's largest budget.

    Args:
        case: `FewStepCase`.

    Yields:
        `Row`, one a prior, sampler and number of evaluations. Its run is the generation of one batch, the median
        over the batches after one to warm up. Its case also holds `task`, `source`, `model`, `objective`,
        `sampler`, `steps`, `nfe` (evaluations of the network for one image), `D` ("inf" for Normal noise),
        `images_per_s`, `s_per_image`, `parameters`, `sigma`, `psnr` (dB, mean over the patches, peak 1 and error
        per real component, at the first sigma), `psnr_at` (by sigma), `kid`, `kid_low`, `kid_high` (its 95 %
        interval over patches and slices, not over people) and `features`. What is not finite is None.

    Raises:
        ValueError: for priors, samplers, budgets, levels or images that do not fit, with the reason.
        DataError: if the images cannot be read or fetched.
    """
    if min(case.samples, case.references, case.denoised) < 3 or case.batch < 1:
        raise ValueError("samples, references and denoised are at least 3, and batch at least 1")
    found = contenders(case.teachers, case.students)
    runs = [(one, budget) for one in found for budget in budgets(one, case.samplers, _asked(case, one))]
    for one in found:
        _check_levels(one, case.sigmas)
        _check_gamma(one, case.gamma)
    reference = reference_of(case, found[0])
    for contender, budget in runs:
        yield _row(case, contender, budget, reference)


def reference_of(case: FewStepCase, contender: Contender) -> Reference:
    """Cuts the real patches and computes their features.

    Args:
        case: `FewStepCase`.
        contender: one of the priors.

    Returns:
        `Reference`.

    Raises:
        ValueError: if the images are not of the prior's kind.
        DataError: as `patches_for`.
    """
    config = contender.config
    count = max(case.references, case.denoised)
    task, patches = patches_for(contender.prior, config.size, count, case.images)
    images = patches.images
    if images.shape[-1] != config.channels or np.iscomplexobj(images) != config.complex:
        kind = lambda channels, complex: f"{channels} {'complex' if complex else 'real'} channels"
        raise ValueError(
            f"{patches.source} has {kind(images.shape[-1], np.iscomplexobj(images))} and {contender.name} knows "
            f"{kind(config.channels, config.complex)}: give images of its kind"
        )
    return Reference(task, patches, np.asarray(_features(images[: case.references], case.batch)))


def _asked(case, contender):
    return case.teacher_nfe if contender.prior.objective == "denoising" else case.student_nfe


def _check_levels(contender, sigmas):
    low, high = contender.config.sigma_min, contender.config.sigma_max
    if not sigmas or not all(low < sigma <= high for sigma in sigmas):
        raise ValueError(
            f"sigmas {tuple(sigmas)} leave the levels of {contender.name}, which was trained from {low:g} to "
            f"{high:g}: give levels between them"
        )


def _check_gamma(contender, gamma):
    """Asks the law, whose D is a number here and not yet an argument of a program."""
    samplers.ctm(gamma)
    if gamma > 0 and "ctm" in SAMPLERS_OF[contender.prior.objective]:
        contender.prior.process.renoise(jax.random.key(0), jnp.zeros(1), jnp.float32(0.1), jnp.float32(1.0))


class _Generated(NamedTuple):
    images: np.ndarray
    compiled: Any
    compile_s: float
    run_s: float


def _generated(case, contender, budget):
    draw = generation(contender, budget, case.gamma, case.batch)
    compiled, compile_s = compile_apart(jax.jit(draw), contender.prior, jnp.int32(0))
    parts = []

    def batch():
        parts.append(jax.block_until_ready(compiled(contender.prior, jnp.int32(case.batch * len(parts)))))

    # The first batch warms up, and one at least is timed.
    count = max(2, math.ceil(case.samples / case.batch))
    run_s = interleaved({"ours": batch}, count - 1)["ours"]
    return _Generated(np.concatenate(parts)[: case.samples], compiled, compile_s, run_s)


@functools.partial(jax.jit, static_argnames="batch")
def _features(images, batch):
    return jax.lax.map(texture_features, images, batch_size=batch)


def _quality(case, contender, budget, reference, images):
    truths = jnp.asarray(reference.patches.images[: case.denoised])
    found = {
        f"{sigma:g}": float(
            jnp.mean(jax.jit(denoising(contender, budget, case.gamma, sigma))(contender.prior, truths))
        )
        for sigma in case.sigmas
    }
    made, real = (
        standardised(features, reference.features)
        for features in (_features(images, case.batch), reference.features)
    )
    kid = kernel_distance(made, real, groups_b=reference.patches.slices[: case.references])
    values = {
        "psnr": found[f"{case.sigmas[0]:g}"],
        "kid": kid.value,
        "kid_low": kid.low,
        "kid_high": kid.high,
    }
    finite = lambda value: value if math.isfinite(value) else None
    return {name: finite(value) for name, value in values.items()} | {
        "psnr_at": {sigma: finite(value) for sigma, value in found.items()}
    }


def _row(case, contender, budget, reference):
    config, prior = contender.config, contender.prior
    made = _generated(case, contender, budget)
    quality = _quality(case, contender, budget, reference, made.images)
    shape = (case.batch, *config.size, config.channels)
    state = jax.ShapeDtypeStruct(shape, jnp.complex64 if config.complex else jnp.float32)
    forward = lambda prior, x: jax.vmap(lambda x: prior.denoiser()(x, jnp.float32(1.0)))(x)
    flops = budget.nfe * count_flops(forward, prior, state)
    kind = jax.devices()[0].device_kind
    described = {
        "task": reference.task,
        "source": reference.patches.source,
        "model": contender.name,
        "objective": prior.objective,
        "sampler": budget.sampler,
        "steps": budget.steps,
        "nfe": budget.nfe,
        "D": plain(contender.D),
        "gamma": case.gamma if budget.sampler == "ctm" else None,
        "size": list(config.size),
        "batch": case.batch,
        "samples": case.samples,
        "references": case.references,
        "denoised": case.denoised,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(prior.params)),
        "images_per_s": case.batch / made.run_s,
        "s_per_image": made.run_s / case.batch,
        "sigma": case.sigmas[0],
        "features": FEATURES,
    }
    return Row(
        name="fewstep",
        case=described | quality,
        dtype=config.precision,
        device=kind,
        peer=None,
        compile_s=made.compile_s,
        run_s=made.run_s,
        peer_run_s=None,
        ratio=None,
        flops=flops,
        mfu=mfu(flops, made.run_s, kind, config.precision),
        peak_bytes=program_bytes(made.compiled),
    )

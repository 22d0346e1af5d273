"""What trains a learned prior from its configuration: the optimiser, the mesh and the sharding rules."""

import jax
import optax

from pgm_jax import parallel
from pgm_jax.recipes.prior_config import PriorConfig


def optimiser(config: PriorConfig):
    """Builds Adam with clipped gradients and a rate that rises linearly, then stays or falls as a cosine.

    Args:
        config: the configuration.

    Returns:
        optax `GradientTransformation`.
    """
    if config.decay == "cosine":
        ends = (config.warmup, config.steps, 0.01 * config.rate)
        rate = optax.warmup_cosine_decay_schedule(0.0, config.rate, *ends)
    else:
        rate = optax.linear_schedule(0.0, config.rate, config.warmup) if config.warmup else config.rate
    return optax.chain(optax.clip_by_global_norm(config.clip), optax.adam(rate))


def devices(config: PriorConfig):
    """Builds the mesh of a run and the rules by which its state is split.

    Args:
        config: the configuration; without `mesh_data` the mesh has every device.

    Returns:
        `(mesh, rules)`.

    Raises:
        ValueError: if there are too few devices, or the batch does not divide over them.
    """
    available, fsdp = jax.devices(), config.mesh_fsdp
    if config.mesh_data is not None:
        if config.mesh_data * fsdp > len(available):
            raise ValueError(
                f"a mesh of {config.mesh_data} x {fsdp} devices, and there are {len(available)}: "
                "lower mesh_data or mesh_fsdp"
            )
        available = available[: config.mesh_data * fsdp]
    mesh = parallel.make_mesh(fsdp=fsdp, devices=available)
    unit = len(available) * config.accumulate
    if config.batch % unit:
        raise ValueError(
            f"batch {config.batch} does not divide over {len(available)} devices times accumulate "
            f"{config.accumulate}: use a multiple of {unit}, or fewer devices with mesh_data"
        )
    return mesh, ((".*", parallel.fsdp() if fsdp > 1 else parallel.replicate),)

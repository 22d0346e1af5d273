"""Generation recipes (review 3.2): priors learned from images alone."""

from pgm_jax.recipes.generation.drawing import (
    SAMPLER as SAMPLER,
    SAMPLERS as SAMPLERS,
    STEPS as STEPS,
)
from pgm_jax.recipes.generation.exported import export as export, load_exported as load_exported
from pgm_jax.recipes.generation.fast_ddpm import (
    TimeGrid as TimeGrid,
    fast_ddpm as fast_ddpm,
    full_ddpm as full_ddpm,
    objective_of as objective_of,
    told_level as told_level,
    translate as translate,
)
from pgm_jax.recipes.generation.few_steps import (
    FEW_STEPS as FEW_STEPS,
    start_config as start_config,
    started as started,
)
from pgm_jax.recipes.generation.images import (
    Slices as Slices,
    image_batches as image_batches,
    measured as measured,
    read_images as read_images,
)
from pgm_jax.recipes.generation.learned_prior import (
    build as build,
    draw_batch as draw_batch,
    network_of as network_of,
)
from pgm_jax.recipes.generation.optimisation import devices as devices, optimiser as optimiser
from pgm_jax.recipes.generation.training_run import (
    CHECKPOINTS as CHECKPOINTS,
    Trained as Trained,
    averages as averages,
    load_run as load_run,
    train as train,
)
from pgm_jax.recipes.prior_config import PriorConfig as PriorConfig

"""Training objectives: `(params, carry, batch, key) -> (loss, (carry, metrics))`."""

from pgm_jax.training.objectives import (
    curricula as curricula,
    distances as distances,
    gaps as gaps,
    levels as levels,
    weighting as weighting,
)
from pgm_jax.training.objectives.adversarial import (
    Adaptive as Adaptive,
    adversarial as adversarial,
    adversarial_carry as adversarial_carry,
    consistency_images as consistency_images,
    jump_images as jump_images,
)
from pgm_jax.training.objectives.augmentation import augmented as augmented
from pgm_jax.training.objectives.categorical import (
    categorical as categorical,
    class_probabilities as class_probabilities,
)
from pgm_jax.training.objectives.consistency import (
    Teacher as Teacher,
    carry_of as carry_of,
    consistency_distillation as consistency_distillation,
    consistency_training as consistency_training,
    ect as ect,
)
from pgm_jax.training.objectives.continuous import scm as scm
from pgm_jax.training.objectives.denoising import denoising as denoising, sample_losses as sample_losses
from pgm_jax.training.objectives.field import (
    field_denoiser as field_denoiser,
    pfgm_field as pfgm_field,
    stable_target as stable_target,
)
from pgm_jax.training.objectives.meanflow import meanflow as meanflow
from pgm_jax.training.objectives.trajectory import Trajectory as Trajectory, ctm as ctm
from pgm_jax.training.objectives.uncertainty import (
    init_uncertainty as init_uncertainty,
    learned_uncertainty as learned_uncertainty,
    uncertainty as uncertainty,
)

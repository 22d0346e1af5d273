"""CT recipes (review 3.1.1)."""

from pgm_jax.recipes.consistency_posterior import (
    FewDraws as FewDraws,
    FewSteps as FewSteps,
    annealed as annealed,
)
from pgm_jax.recipes.ct.chest import (
    BASELINES as BASELINES,
    Settings as Settings,
    baseline as baseline,
    draws as draws,
    scores as scores,
    settings as settings,
)
from pgm_jax.recipes.ct.few_steps import (
    few_step_draws as few_step_draws,
    few_step_image as few_step_image,
    few_step_settings as few_step_settings,
    first_image as first_image,
)
from pgm_jax.recipes.ct.low_dose import (
    Hijack as Hijack,
    condition as condition,
    hijack_settings as hijack_settings,
    hijacked as hijacked,
    low_dose_image as low_dose_image,
    low_dose_pair as low_dose_pair,
    posterior_images as posterior_images,
)
from pgm_jax.recipes.ct.scan import (
    TASKS as TASKS,
    WATER as WATER,
    ChestScan as ChestScan,
    ChestSlices as ChestSlices,
    Task as Task,
    chest_scan as chest_scan,
    chest_slices as chest_slices,
)

"""PET recipes (review 3.1.3)."""

from pgm_jax.recipes.pet.brain import (
    BASELINES as BASELINES,
    VARIANTS as VARIANTS,
    Settings as Settings,
    baseline as baseline,
    bias as bias,
    draws as draws,
    emission_dds as emission_dds,
    scores as scores,
    settings as settings,
    typical_activity as typical_activity,
)
from pgm_jax.recipes.pet.matched import at_matched_bias as at_matched_bias
from pgm_jax.recipes.pet.scan import (
    TASKS as TASKS,
    BrainSlices as BrainSlices,
    PETScan as PETScan,
    Task as Task,
    brain_scan as brain_scan,
    brain_slices as brain_slices,
    tissues as tissues,
)

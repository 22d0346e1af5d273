"""MRI recipes (review 3.1.2)."""

from pgm_jax.recipes.mri.brain_prior import brain_prior as brain_prior
from pgm_jax.recipes.mri.scan import (
    Scan as Scan,
    brain_slices as brain_slices,
    smooth_phase as smooth_phase,
    undersampled_scan as undersampled_scan,
)
from pgm_jax.recipes.mri.undersampled_brain import (
    METHODS as METHODS,
    Settings as Settings,
    reconstruct as reconstruct,
    scores as scores,
)

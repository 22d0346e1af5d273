"""MRI recipes (review 3.1.2)."""

from pgm_jax.recipes.consistency_posterior import FewDraws as FewDraws, FewSteps as FewSteps
from pgm_jax.recipes.mri.brain_prior import brain_prior as brain_prior, brain_spectrum as brain_spectrum
from pgm_jax.recipes.mri.few_steps import (
    few_step_draws as few_step_draws,
    few_step_image as few_step_image,
    few_step_settings as few_step_settings,
    first_image as first_image,
)
from pgm_jax.recipes.mri.scan import (
    TASKS as TASKS,
    BrainSlices as BrainSlices,
    Scan as Scan,
    brain_slices as brain_slices,
    radial_scan as radial_scan,
    simulated_scan as simulated_scan,
    smooth_phase as smooth_phase,
    undersampled_scan as undersampled_scan,
    unpad as unpad,
)
from pgm_jax.recipes.mri.undersampled_brain import (
    METHODS as METHODS,
    Priors as Priors,
    Settings as Settings,
    brain_priors as brain_priors,
    evaluations as evaluations,
    posterior_draws as posterior_draws,
    reconstruct as reconstruct,
    scores as scores,
    settings as settings,
)

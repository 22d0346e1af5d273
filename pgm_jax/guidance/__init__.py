"""Guidance: transforms of estimators, from classifier-free guidance to exact posteriors."""

from pgm_jax.core import chain as chain, lift as lift
from pgm_jax.guidance.conditions import (
    blend as blend,
    cfg as cfg,
    clip as clip,
    known_region as known_region,
)
from pgm_jax.guidance.likelihoods import (
    dds as dds,
    dps as dps,
    exact as exact,
    moment_matching as moment_matching,
)
from pgm_jax.guidance.makers import (
    Evaluation as Evaluation,
    Tangents as Tangents,
    correct as correct,
    likelihood_gradient as likelihood_gradient,
    move as move,
)

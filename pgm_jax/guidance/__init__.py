"""Guidance: transforms of estimators, from classifier-free guidance to exact posteriors."""

from pgm_jax.core import chain as chain, lift as lift
from pgm_jax.guidance.conditions import (
    blend as blend,
    cfg as cfg,
    clip as clip,
    known_region as known_region,
)
from pgm_jax.guidance.diffpir import diffpir as diffpir
from pgm_jax.guidance.editing import (
    channel_fill as channel_fill,
    inpainting as inpainting,
    replace_known as replace_known,
    super_resolution as super_resolution,
)
from pgm_jax.guidance.emission import pet_dds as pet_dds, pet_dps as pet_dps, pet_naive as pet_naive
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
from pgm_jax.guidance.mbir import mbir as mbir
from pgm_jax.guidance.mlem_matching import mlem_matching as mlem_matching
from pgm_jax.guidance.projection import mcg as mcg, score_mri as score_mri, song as song
from pgm_jax.guidance.pseudoinverse import pigdm as pigdm
from pgm_jax.guidance.spectral import ddrm as ddrm
from pgm_jax.guidance.tiles import tile as tile, tiles as tiles, untile as untile
from pgm_jax.guidance.transmission import transmission_dps as transmission_dps
from pgm_jax.guidance.views import alternate as alternate, slabs as slabs, views as views

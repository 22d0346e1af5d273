"""Networks: NNX modules converted once to pure functions over nested dicts of arrays."""

from pgm_jax.networks.condition import Conditions as Conditions
from pgm_jax.networks.denoiser import as_denoiser as as_denoiser
from pgm_jax.networks.discriminator import patch_discriminator as patch_discriminator
from pgm_jax.networks.dit import DiTOptions as DiTOptions, dit as dit
from pgm_jax.networks.drunet import drunet as drunet
from pgm_jax.networks.functional import from_nnx as from_nnx
from pgm_jax.networks.fused import fused as fused, fused_drunet as fused_drunet
from pgm_jax.networks.growing import grow as grow
from pgm_jax.networks.jump import (
    TARGET_FEATURES as TARGET_FEATURES,
    as_jump_denoiser as as_jump_denoiser,
    told as told,
)
from pgm_jax.networks.presets import adm as adm, ddpmpp as ddpmpp, ncsnpp as ncsnpp
from pgm_jax.networks.unet import unet as unet
from pgm_jax.networks.unet_options import UNetOptions as UNetOptions

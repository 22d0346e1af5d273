"""Networks: NNX modules converted once to pure functions over nested dicts of arrays."""

from pgm_jax.networks.denoiser import as_denoiser as as_denoiser
from pgm_jax.networks.functional import from_nnx as from_nnx

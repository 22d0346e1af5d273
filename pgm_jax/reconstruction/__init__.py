"""Analytic and iterative reconstruction without a learned prior."""

from pgm_jax.reconstruction.cg_sense import cg_sense as cg_sense, zero_filled as zero_filled
from pgm_jax.reconstruction.tv import TVTrace as TVTrace, tv as tv

"""Samplers: how a state moves along a grid of times, and the one driver `sample`."""

from pgm_jax.samplers.adaptive import adaptive as adaptive, velocity as velocity
from pgm_jax.samplers.ancestral import (
    ancestral as ancestral,
    consistency as consistency,
    ctm as ctm,
    ddim as ddim,
    euler as euler,
)
from pgm_jax.samplers.driver import sample as sample, sample_one as sample_one
from pgm_jax.samplers.langevin import (
    euler_maruyama as euler_maruyama,
    langevin as langevin,
    predictor_corrector as predictor_corrector,
    reverse_diffusion as reverse_diffusion,
)
from pgm_jax.samplers.likelihood import log_likelihood as log_likelihood
from pgm_jax.samplers.ode import (
    dpmpp_1s as dpmpp_1s,
    dpmpp_2m as dpmpp_2m,
    dpmpp_2s as dpmpp_2s,
    heun as heun,
)
from pgm_jax.samplers.parts import sample_in_parts as sample_in_parts
from pgm_jax.samplers.pfgm import pfgm_ode as pfgm_ode

"""Training: the state, the step, the loop and its checkpoints."""

from pgm_jax.training import ema as ema, objectives as objectives
from pgm_jax.training.calls import (
    PER_CALL as PER_CALL,
    program_of as program_of,
    several_steps as several_steps,
)
from pgm_jax.training.hooks import jsonl as jsonl
from pgm_jax.training.loop import Diverged as Diverged, fit as fit
from pgm_jax.training.preemption import Interrupted as Interrupted
from pgm_jax.training.state import (
    REPLICATED as REPLICATED,
    TrainState as TrainState,
    abstract_state as abstract_state,
    create_state as create_state,
)
from pgm_jax.training.step import train_step as train_step

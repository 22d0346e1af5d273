"""The named categorical processes: Bernoulli masks, K-class masks, absorbing tokens."""

from typing import Any

import numpy as np
from flax import struct

from pgm_jax.processes.discrete import Discrete
from pgm_jax.processes.schedules import Tabulated


class LinearKeep(struct.PyTreeNode):
    """Continuous time on [0, 1]: abar = 1 - t."""

    def __call__(self, t):
        return 1 - t


class TabulatedKeep(struct.PyTreeNode):
    """A chain of T steps at times 0, 1, ..., T: abar is the running product of 1 - beta_i.

    Attributes:
        table: the `Tabulated` schedule whose alpha^2 is abar.
    """

    table: Any

    def __call__(self, t):
        return self.table.alpha(t) ** 2


def Bernoulli(betas=None):
    """Builds BerDiff's process on binary masks: with probability 1 - abar a pixel becomes a fair coin.

    `q(y_t | y_0) = Bern(abar y_0 + (1 - abar) / 2)` (Chen et al. 2023, Eq. 3). States are one-hot pairs
    (background, foreground): `jax.nn.one_hot(mask, 2)`.

    Args:
        betas: (T,) flip rates of a chain with integer times, such as `linear_betas()`; None is continuous
            time on [0, 1] with abar = 1 - t.

    Returns:
        `Discrete` process with 2 states.

    Raises:
        ValueError: for betas outside [0, 1].
    """
    return Categorical(2, betas)


def Categorical(classes, betas=None, base=None):
    """Builds the K-class process: a pixel that is not kept is drawn from `base`, uniform by default.

    Args:
        classes: number K >= 2 of classes.
        betas: (T,) rates of a chain with integer times; None is abar = 1 - t on [0, 1].
        base: (K,) probabilities, such as the frequency of each class; None is 1 / K each.

    Returns:
        `Discrete` process with K states.

    Raises:
        ValueError: for fewer than 2 classes, a base that is not K probabilities, or betas outside [0, 1].
    """
    if classes < 2:
        raise ValueError(f"Categorical needs at least 2 classes, got {classes}.")
    base = np.full(classes, 1 / classes) if base is None else np.asarray(base, np.float64)
    if base.shape != (classes,) or np.any(base < 0) or abs(base.sum() - 1) > 1e-6:
        raise ValueError(f"Categorical: base must be {classes} probabilities that sum to 1, got {base}.")
    return Discrete(base, _keep(betas), classes)


def Absorbing(classes, betas=None):
    """Builds the absorbing process: a token that is not kept becomes the mask, state number K.

    States are one-hot over K + 1; clean images may have K or K + 1 channels. A denoiser returns K + 1, whose
    last is ignored: no estimate puts probability on the mask, so the step that ends clean leaves none (Austin
    et al. 2021, App. A.2).

    Args:
        classes: number K >= 1 of classes.
        betas: (T,) masking rates of a chain with integer times; None is abar = 1 - t on [0, 1].

    Returns:
        `Discrete` process with K + 1 states.

    Raises:
        ValueError: for fewer than 1 class, or betas outside [0, 1].
    """
    if classes < 1:
        raise ValueError(f"Absorbing needs at least 1 class, got {classes}.")
    return Discrete(np.eye(classes + 1)[-1], _keep(betas), classes)


def _keep(betas):
    if betas is None:
        return LinearKeep()
    betas = np.asarray(betas, np.float64)
    if betas.ndim != 1 or not np.all((betas >= 0) & (betas <= 1)) or np.any(betas[:-1] == 1):
        raise ValueError("betas must be a (T,) array in [0, 1), the last one at most 1.")
    with np.errstate(divide="ignore"):
        table = np.concatenate([[0.0], np.cumsum(np.log1p(-betas))])
    return TabulatedKeep(Tabulated(table))

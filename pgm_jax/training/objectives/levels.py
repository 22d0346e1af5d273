"""Distributions of the training time, as quantile functions `(process, u) -> t` of a uniform u in (0, 1).

Written so, the same distribution serves independent draws and draws that are spread evenly over a batch.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri

Levels = Callable[..., jax.Array]
"""`(process, u) -> t`: the time at the quantile u."""

# 2^32 over the golden ratio: multiples of it, modulo 2^32, fill the circle evenly from any start.
_GOLDEN = np.uint32(2654435769)


def lognormal(mean=-1.2, std=1.2) -> Levels:
    """Makes EDM's distribution, `ln(sigma / alpha) ~ N(mean, std^2)` (Karras et al. 2022, Table 1).

    The time is `process.time(sigma / alpha)`. On flow matching, t = r / (1 + r), this is the logit-normal law.

    Args:
        mean: P_mean; -1.2 is for images of 3 x 32 x 32 in [-1, 1], see `processes.suggest`.
        std: P_std.

    Returns:
        `(process, u) -> t`.

    Raises:
        ValueError: if std is not positive.
    """
    if not std > 0:
        raise ValueError(f"lognormal needs std > 0, got {std}: for one level use discrete([t]).")

    def levels(process, u):
        return jnp.asarray(process.time(jnp.exp(mean + std * ndtri(u))))

    return levels


def uniform(low=0.0, high=1.0) -> Levels:
    """Makes the uniform distribution of t (score SDEs: low = 1e-5, high = 1; Song et al. 2021).

    Args:
        low: smallest time.
        high: largest time.

    Returns:
        `(process, u) -> t`.

    Raises:
        ValueError: unless 0 <= low < high.
    """
    if not 0 <= low < high:
        raise ValueError(f"uniform needs 0 <= low < high, got {low} and {high}.")

    def levels(process, u):
        return low + (high - low) * u

    return levels


def discrete(times) -> Levels:
    """Makes the uniform distribution over given times: `np.arange(1, T + 1)` for DDPM, NCSN's, Fast-DDPM's.

    Args:
        times: (L,) times of the process; 0 is allowed and holds no noise.

    Returns:
        `(process, u) -> t`.

    Raises:
        ValueError: if times is not a non-empty list of finite numbers, none below 0.
    """
    times = np.asarray(times, np.float64)
    if times.ndim != 1 or times.size == 0 or not np.all(np.isfinite(times) & (times >= 0)):
        raise ValueError(f"discrete needs a list of finite times >= 0, got shape {times.shape}.")

    def levels(process, u):
        place = jnp.minimum((u * times.size).astype(jnp.int32), times.size - 1)
        return jnp.asarray(times, u.dtype)[place]

    return levels


def independent(key) -> jax.Array:
    """Draws one u in (0, 1), both ends excluded.

    Args:
        key: PRNG key of the sample.

    Returns:
        Real scalar.
    """
    return _open_unit(jax.random.bits(key, dtype=jnp.uint32))


def stratified(key, index) -> jax.Array:
    """Draws u of sample `index` so that any run of indices covers (0, 1) evenly: `frac(u0 + index phi)`.

    Each u is uniform, since u0 is; the loss of a batch varies less than with independent draws (the purpose
    of Kingma et al. 2021, whose spacing needs the batch size; phi, the golden ratio, does not).

    Args:
        key: PRNG key of the whole step, from which u0 is drawn.
        index: number of the sample in the global batch, int32.

    Returns:
        Real scalar in (0, 1).
    """
    start = jax.random.bits(key, dtype=jnp.uint32)
    return _open_unit(start + index.astype(jnp.uint32) * _GOLDEN)


def _open_unit(bits):
    # 23 bits and a half: exact in float32 and never 0 or 1, whose normal quantiles are infinite.
    real = jnp.result_type(float)
    return ((bits >> 9).astype(real) + 0.5) * 2.0**-23

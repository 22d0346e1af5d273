"""Independent Poisson counts: their log density, draws of them, and the checks of measured ones.

Every likelihood of counts shares these: they stay exact in float32 from zero counts to many millions.
"""

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax.core import safe_divide

# Above it `jax.random.poisson` loses its variance to rounding in float32 (2 % at 1e6), while the normal law
# that replaces it differs in skewness only, 1 / sqrt(mean).
_NORMAL_ABOVE = 1e5


def log_prob_of_counts(y, mean, log_mean=None):
    """Computes `sum_i y_i ln m_i - m_i - ln y_i!`, the log density of Poisson counts y of mean m.

    Written as a divergence, `-(m - y - y ln(m / y))`, less Stirling's remainder of y alone, so that no terms
    of size y ln y cancel: in float32 its error is that of the divergence. 0 ln 0 is 0. A count where
    m <= 0 is impossible, -inf; where y is 0 the density is continued as -m to negative m.

    Args:
        y: counts >= 0, a real array.
        mean: expected counts m, like y.
        log_mean: ln m, where the caller has it without underflow; from `mean` by default.

    Returns:
        Real scalar, in nats.
    """
    if log_mean is None:
        possible = mean > 0
        log_mean = jnp.where(possible, jnp.log(jnp.where(possible, mean, 1.0)), -jnp.inf)
    counted = y > 0
    count = jnp.where(counted, y, 1.0)
    excess = (mean - y) / count
    near = jnp.abs(excess) < 0.5
    log_ratio = jnp.where(near, jnp.log1p(jnp.where(near, excess, 0.0)), log_mean - jnp.log(count))
    # The mean of a bin without counts keeps its derivative, that of an impossible count is cut off.
    terms = jnp.where(counted, count * (log_ratio - excess), -mean)
    return jnp.sum(terms - _stirling_remainder(y))


def _stirling_remainder(y):
    """Computes `ln y! - y ln y + y`, 0 at 0, by its series where y is large."""
    large = jnp.maximum(y, 16.0)
    inverse = 1 / large
    series = inverse * (1 / 12 - inverse**2 * (1 / 360 - inverse**2 * (1 / 1260 - inverse**2 / 1680)))
    small = jnp.minimum(y, 16.0)
    exact = jax.scipy.special.gammaln(small + 1) - jax.scipy.special.xlogy(small, small) + small
    return jnp.where(y < 16, exact, 0.5 * jnp.log(2 * np.pi * large) + series)


def sample_counts(key, mean):
    """Draws Poisson counts of a given mean.

    Above a mean of 1e5 the normal law of the same mean and variance, rounded.

    Args:
        key: random key.
        mean: expected counts, real; taken as 0 where negative.

    Returns:
        Whole numbers in the dtype of `mean`.
    """
    mean = jnp.maximum(mean, 0.0)
    key_few, key_many = jax.random.split(key)
    few = jax.random.poisson(key_few, jnp.where(mean < _NORMAL_ABOVE, mean, 0.0)).astype(mean.dtype)
    many = jnp.round(mean + jnp.sqrt(mean) * jax.random.normal(key_many, mean.shape, mean.dtype))
    return jnp.where(mean < _NORMAL_ABOVE, few, many)


def ratio_to_mean(y, mean):
    """Computes `y / m`, 0 where nothing is expected (m <= 0).

    Args:
        y: counts >= 0.
        mean: expected counts m, like y.

    Returns:
        Array like y.
    """
    return jnp.where(mean > 0, safe_divide(y, mean), 0.0)


def require_counts(y, space, likelihood: str, **means) -> None:
    """Checks counts and what is expected of them; values are checked on the host only, outside of `jit`.

    Args:
        y: measured counts.
        space: `jax.ShapeDtypeStruct` of the measurement.
        likelihood: name of the likelihood, for the message.
        **means: arrays that broadcast to y and are >= 0, such as the background.

    Raises:
        ValueError: for a wrong shape, a negative number, or one that is not finite.
    """
    if isinstance(space, tuple):
        raise ValueError(f"{likelihood} needs one array of counts: add one likelihood a part, l1 + l2")
    require_table("y", y, space.shape, "build the operator for this scan, or vmap over a batch of y")
    for name, values in means.items():
        shape = np.shape(values)
        padded = (1,) * (len(space.shape) - len(shape)) + shape
        if len(padded) > len(space.shape) or any(
            n not in (1, m) for n, m in zip(padded, space.shape, strict=True)
        ):
            raise ValueError(
                f"{name} has shape {shape}, which does not broadcast to y, {space.shape}: give one number, "
                "or an array with as many axes as y"
            )
        _require_non_negative(name, values)


def require_table(name: str, values, shape, mend: str) -> None:
    """Checks that an array has one shape and, outside of `jit`, that its numbers are finite and >= 0.

    Args:
        name: name of the array, for the message.
        values: the array.
        shape: the shape that it needs.
        mend: how to mend another shape, for the message.

    Raises:
        ValueError: for a wrong shape, a negative number, or one that is not finite.
    """
    if np.shape(values) != tuple(shape):
        raise ValueError(f"{name} has shape {np.shape(values)} but {tuple(shape)} is needed: {mend}")
    _require_non_negative(name, values)


def _require_non_negative(name, values):
    if isinstance(values, jax.core.Tracer):
        return
    values = np.asarray(values)
    wrong = int(np.sum(~np.isfinite(values)))
    if wrong:
        raise ValueError(
            f"{name} has {wrong} entries that are not finite: set them to 0, and leave bins that were not "
            "measured out of the model with an efficiency or a blank scan of 0"
        )
    if np.any(values < 0):
        raise ValueError(
            f"{name} has {int(np.sum(values < 0))} negative entries, the least {values.min():g}: counts and "
            "their means are >= 0; give raw counts, with randoms and scatter as background, not subtracted"
        )

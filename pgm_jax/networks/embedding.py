"""What a network is told of time: sinusoidal and Fourier features, and the two layers behind them.

Features are computed in float32 whatever the compute dtype: bfloat16 holds a time to two digits only.
"""

import statistics

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from pgm_jax.core.precision import FULL
from pgm_jax.networks.layers import Linear


def sinusoidal(t, features, period=10000.0):
    """Returns the features of DDPM and ADM: `[cos(w_i t), sin(w_i t)]`, `w_i = period^(-i / (features / 2))`.

    Vaswani et al. 2017, section 3.5, in the order of ADM (Dhariwal and Nichol 2021).

    Args:
        t: (...), in the unit of the parameterisation's c_noise.
        features: even number.
        period: largest period over 2 pi.

    Returns:
        (..., features), float32.

    Raises:
        ValueError: if features is odd.
    """
    half = _half(features)
    return _waves(t, period ** (-np.arange(half) / half))


def fourier(t, features, scale=16.0):
    """Returns NCSN++'s features `[cos(2 pi f_i t), sin(2 pi f_i t)]`, f of a normal law of deviation `scale`.

    Song et al. 2021, section C.2 draw the frequencies; here f_i are the half-normal law's quantiles
    `scale Phi^-1((i + 1/2) / features + 1/2)`, so that they need no draw and no place among the parameters (the
    sign of a frequency adds nothing).

    Args:
        t: (...), in the unit of the parameterisation's c_noise.
        features: even number.
        scale: standard deviation of the frequencies.

    Returns:
        (..., features), float32.

    Raises:
        ValueError: if features is odd.
    """
    quantile = statistics.NormalDist(0, scale).inv_cdf
    half = _half(features)
    return _waves(t, 2 * np.pi * np.array([quantile((i + 0.5) / features + 0.5) for i in range(half)]))


FEATURES = {"sinusoidal": sinusoidal, "fourier": fourier}


class TimeEmbedding(nnx.Module):
    """Embeds times in a vector: features of t, then `linear2(silu(linear1(features)))`.

    Args:
        inputs: number of features, even.
        outputs: size of the embedding.
        rngs: `nnx.Rngs`.
        kind: "sinusoidal" or "fourier".
        precision: dtypes of the layers.
    """

    def __init__(self, inputs, outputs, rngs, *, kind="sinusoidal", precision=FULL):
        if kind not in FEATURES:
            raise ValueError(f"embedding is {kind!r}; choose one of {sorted(FEATURES)}")
        self.kind, self.inputs = kind, inputs
        self.linear1 = Linear(inputs, outputs, rngs, precision=precision)
        self.linear2 = Linear(outputs, outputs, rngs, precision=precision)

    def __call__(self, t):
        """Embeds t (b,) as (b, outputs)."""
        return self.linear2(jax.nn.silu(self.linear1(FEATURES[self.kind](t, self.inputs))))


def _waves(t, rates):
    angle = jnp.asarray(t, jnp.float32)[..., None] * jnp.asarray(rates, jnp.float32).reshape(
        (1,) * jnp.ndim(t) + (-1,)
    )
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


def _half(features):
    if features % 2:
        raise ValueError(f"features must be even (cosines and sines), got {features}")
    return features // 2

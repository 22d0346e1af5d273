"""The error of a prediction, weighted and measured where it is bounded: at the network's output.

With `x0_hat = c_skip x_t + c_out F` and `x_t = alpha x0 + beta x1 + sigma noise`, the weighted error is

    x0_hat - x0 = c_out F - (1 - c_skip alpha) x0 + c_skip (sigma noise + beta x1),   times sqrt(w).

As sigma -> 0 the left side is a difference of nearly equal images times a huge weight; on the right side each
coefficient is bounded for the weights that go with the parameterisation, and nothing cancels.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pgm_jax.core import join_complex, real_size, safe_divide, split_complex


class _Coefficients(NamedTuple):
    c_in: Any
    c_noise: Any
    output: Any
    x0: Any
    noise: Any
    x1: Any
    level: Any


def weighted_error(process, network, parameterisation, weighting, params, pairs, cond=None, *, key=None):
    """Computes `sqrt(w) (x0_hat - x0)` with one batched call of the network.

    Args:
        process: affine process.
        network: `Network`; its output may be of any floating dtype.
        parameterisation: `(process, t) -> Coefficients`.
        weighting: `(process, t) -> w`, or None for unit weight on the network's output, `w = 1 / c_out^2`.
        params: parameters of the network.
        pairs: `Pairs`.
        cond: conditions with a leading batch axis, or None.
        key: (b,) PRNG keys of the network's dropout, or None.

    Returns:
        `(error, level)`: an array of the shape of the images, and (b,) the noise level sigma / alpha (the
        time itself where the process has one level a voxel or a frequency).
    """
    c = jax.vmap(lambda t: _coefficients(process, parameterisation, weighting, t))(pairs.t)
    output = call(network, params, _each(c.c_in, pairs.x_t), c.c_noise, cond, key)
    error = _each(c.output, output) - _each(c.x0, pairs.x0) + _each(c.noise, pairs.noise)
    if pairs.x1 is not None:
        error += _each(c.x1, pairs.x1)
    return error, c.level


def call(network, params, x, c_noise, cond, key):
    """Calls a network on a batch, complex images as pairs of real channels, and joins its output again.

    Args:
        network: `Network`.
        params: its parameters.
        x: (b, ..., c) scaled states.
        c_noise: what it is told of the time, with a leading batch axis.
        cond: conditions, or None.
        key: (b,) PRNG keys of its dropout, or None.

    Returns:
        Array of the shape and dtype of x.

    Raises:
        ValueError: if the network changes the shape.
    """
    seen = split_complex(x)
    output = network.apply(params, seen, c_noise, split_conditions(cond), key=key, train=True)
    if output.shape != seen.shape:
        raise ValueError(
            f"the network returned {output.shape} for an input of {seen.shape}; they must be equal."
        )
    # The loss is computed in the images' precision, whatever the network's.
    output = output.astype(jnp.finfo(x.dtype).dtype)
    return join_complex(output) if jnp.iscomplexobj(x) else output


def mean_square(error):
    """Computes the mean of |error|^2 over the real components of each sample.

    Args:
        error: (b, ...), real or complex.

    Returns:
        (b,) real.
    """
    axes = tuple(range(1, error.ndim))
    total = jnp.sum(jnp.real(error) ** 2 + jnp.imag(error) ** 2, axis=axes)
    return total / (real_size(error) // error.shape[0])


def split_conditions(cond):
    """Returns the conditions with complex leaves as pairs of real channels.

    Args:
        cond: pytree, or None.

    Returns:
        Pytree of the same structure.
    """
    return jax.tree.map(lambda leaf: split_complex(jnp.asarray(leaf)), cond)


def noise_level(process, t):
    """Returns sigma / alpha at t, at most 1e9 (pure noise); t itself where a time has many levels.

    Args:
        process: affine process.
        t: time, a scalar.

    Returns:
        Real scalar.
    """
    alpha, sigma = jnp.asarray(process.alpha(t)), jnp.asarray(process.sigma(t))
    return t if sigma.ndim else safe_divide(sigma, jnp.maximum(alpha, 1e-9 * sigma))


def _coefficients(process, parameterisation, weighting, t):
    c = parameterisation(process, t)
    alpha, beta, sigma = (jnp.asarray(f(t)) for f in (process.alpha, process.beta, process.sigma))
    root = safe_divide(1.0, jnp.abs(c.c_out)) if weighting is None else jnp.sqrt(weighting(process, t))
    # What is left of 1 - c_skip alpha by rounding alone, divided by c_out -> 0, would be an error of order 1.
    rest = 1 - c.c_skip * alpha
    rest = jnp.where(jnp.abs(rest) <= 2 * jnp.finfo(rest.dtype).eps, 0.0, rest)
    return _Coefficients(
        c.c_in,
        c.c_noise,
        root * c.c_out,
        root * rest,
        root * (c.c_skip * sigma),
        root * (c.c_skip * beta),
        noise_level(process, t),
    )


def _each(coefficient, x):
    return jax.vmap(jnp.multiply)(coefficient, x)

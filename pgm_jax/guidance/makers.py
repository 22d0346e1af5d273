"""The three makers with which nearly all guidance is written: correct, likelihood_gradient, move.

A guidance transforms an estimator into an estimator. It calls the one it was given once, hands that one's
state on, and splits its key: one part its own, one inward.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pgm_jax.core import Estimator, real_size, safe_divide

# Up to this many real components the trace of a denoiser's Jacobian is summed exactly, not probed.
_EXACT_TRACE = 64


def empty(x_t):
    """Returns the state of a guidance that carries none."""
    return ()


def correct(update, init=empty, *, keep_noise, codec=None):
    """Makes a guidance that changes the clean image: DDS, DiffusionMBIR, DiffPIR, PET's EM step, clipping.

    Args:
        update: `(key, process, x0, t, state) -> (x0, state)`.
        init: `(x_t) -> state` of the update.
        keep_noise: True keeps the noise, so that the state moves towards the data (DDS); False recomputes it
            from x_t, so that the state stays.
        codec: an exact `Representation`: x0 is decoded, updated and encoded again.

    Returns:
        A guidance.

    Raises:
        ValueError: for a codec whose round trip is not exact; its error would enter at every step.
    """
    if codec is not None and not codec.exact:
        raise ValueError(
            "correct(codec=...) re-encodes the image at every step, which an inexact codec turns into a bias: "
            "guide with the gradient of likelihood.through(codec.decode) instead."
        )

    def guidance(inner):
        def init_state(x_t):
            return inner.init(x_t), init(x_t)

        def apply(key, x_t, t, state, *, cond=None, s=None):
            key_inner, key_own = jax.random.split(key)
            estimate, inner_state = inner.apply(key_inner, x_t, t, state[0], cond=cond, s=s)
            image = estimate.x0 if codec is None else codec.decode(estimate.x0)
            image, own = update(key_own, inner.process, image, t, state[1])
            x0 = (image if codec is None else codec.encode(image)).astype(estimate.x0.dtype)
            if keep_noise:
                return estimate._replace(x0=x0), (inner_state, own)
            return inner.process.estimate(x_t, t, x0, estimate.x1), (inner_state, own)

        return Estimator(inner.process, init_state, apply)

    return guidance


class Tangents(NamedTuple):
    """Derivatives of a denoiser `x0(x, sigma)` at one state, in the frame where alpha is 1.

    Attributes:
        pullback: `v -> J^T v`, J = dx0/dx (conjugated for complex images).
        pushforward: `u -> J u`.
        dsigma: `() -> dx0/dsigma`.
        trace: `(key) -> tr J`, exact up to 64 components, else by Rademacher probes.
    """

    pullback: Callable
    pushforward: Callable
    dsigma: Callable
    trace: Callable


def likelihood_gradient(gradient, init=empty, probes=4):
    """Makes a guidance from a gradient of ln p(y | x_t): DPS, PiGDM, moment matching, exact guidance.

    The gradient is handed to `process.tilt`, which turns it into the posterior's estimate for any noise law.

    Args:
        gradient: `(key, process, x0, t, state, pullback, covariance) -> ((grad, dsigma, gain), state)`, where
            `pullback(v) = (dx0 / dx_t)^T v` and `covariance() -> (v -> Cov[x0 | x_t] v)`; x0 is the whole
            `Evaluation` of the inner estimator. `dsigma` 0 and `gain` None are the defaults of `tilt`.
        init: `(x_t) -> state` of the gradient.
        probes: number of probes for the trace of the Jacobian, where a law needs it (Student-t).

    Returns:
        A guidance.
    """

    def guidance(inner):
        process = inner.process

        def init_state(x_t):
            return inner.init(x_t), init(x_t)

        def apply(key, x_t, t, state, *, cond=None, s=None):
            key_inner, key_own, key_trace = jax.random.split(key, 3)

            def clean(x, time):
                estimate, new = inner.apply(key_inner, x, time, state[0], cond=cond, s=s)
                return estimate.x0, (estimate, new)

            _, vjp, (estimate, inner_state) = jax.vjp(lambda x: clean(x, t), x_t, has_aux=True)
            # JAX pairs complex vectors without a conjugate; the adjoint of a real-linear map needs one.
            pullback = lambda v: jnp.conj(vjp(jnp.conj(v.astype(estimate.x0.dtype)))[0])

            def covariance():
                tangents = _tangents(process, lambda x, u: clean(x, u)[0], pullback, x_t, t, probes)
                ratio = safe_divide(process.sigma(t), process.alpha(t))
                return process.law.covariance(ratio, ratio * estimate.noise, tangents, key_trace)

            (grad, dsigma, gain), own = gradient(
                key_own, process, Evaluation(x_t, estimate), t, state[1], pullback, covariance
            )
            return process.tilt(estimate, x_t, t, grad, dsigma, gain), (inner_state, own)

        return Estimator(process, init_state, apply)

    return guidance


class Evaluation(NamedTuple):
    """What a likelihood gradient sees of one evaluation: the state and the inner estimate."""

    x_t: jax.Array
    estimate: NamedTuple


def _tangents(process, denoise, pullback, x_t, t, probes):
    t = jnp.asarray(t, jnp.finfo(x_t.dtype).dtype)
    alpha, d_alpha = jax.jvp(process.alpha, (t,), (jnp.ones_like(t),))
    ratio_of = lambda u: safe_divide(process.sigma(u), process.alpha(u))
    _, d_ratio = jax.jvp(ratio_of, (t,), (jnp.ones_like(t),))

    def pushforward(u):
        return jax.jvp(lambda x: denoise(x, t), (x_t,), ((alpha * u).astype(x_t.dtype),))[1]

    def dsigma():
        # d/dsigma at fixed x = x_t / alpha moves t and, with it, x_t = alpha(t) x.
        drift = (safe_divide(d_alpha, alpha) * x_t).astype(x_t.dtype)
        return safe_divide(jax.jvp(denoise, (x_t, t), (drift, jnp.ones_like(t)))[1], d_ratio)

    def trace(key):
        exact = real_size(x_t) <= _EXACT_TRACE
        vectors = _basis(x_t) if exact else _rademacher(key, probes, x_t)
        products = jax.vmap(lambda v: jnp.sum(jnp.real(jnp.conj(v) * pushforward(v))))(vectors)
        return jnp.sum(products) if exact else jnp.mean(products)

    return Tangents(lambda v: alpha * pullback(v), pushforward, dsigma, trace)


def _basis(x):
    real = jnp.eye(x.size, dtype=x.dtype).reshape(-1, *x.shape)
    return jnp.concatenate([real, 1j * real]) if jnp.iscomplexobj(x) else real


def _rademacher(key, probes, x):
    real = jnp.finfo(x.dtype).dtype
    if not jnp.iscomplexobj(x):
        return jax.random.rademacher(key, (probes, *x.shape), real)
    parts = jax.random.rademacher(key, (2, probes, *x.shape), real)
    return jax.lax.complex(parts[0], parts[1])


def move(target):
    """Makes a guidance that moves the state itself: Song's projection, known region, blending.

    Because it acts on x0 and on the noise, it equals the paper's projection of the next state at whatever
    level the sampler goes to.

    Args:
        target: `(key, process, estimate, t) -> estimate`.

    Returns:
        A guidance.
    """

    def guidance(inner):
        def apply(key, x_t, t, state, *, cond=None, s=None):
            key_inner, key_own = jax.random.split(key)
            estimate, state = inner.apply(key_inner, x_t, t, state, cond=cond, s=s)
            return target(key_own, inner.process, estimate, t), state

        return Estimator(inner.process, inner.init, apply)

    return guidance

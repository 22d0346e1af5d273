"""Objectives for categorical processes: the KL divergence of exact posteriors, and the cross-entropy of x0."""

import jax
import jax.numpy as jnp

from pgm_jax.core import Network, Objective, sample_key
from pgm_jax.training.objectives.levels import independent
from pgm_jax.training.objectives.pairs import indices, network_keys, summary

# The log of a probability of 0: finite, so that its products with 0 and its gradients are 0.
_NEVER = -1e30


def categorical(process, network: Network, levels, *, kl=1.0, cross_entropy=1.0, step=1.0) -> Objective:
    """Makes the objective of a network that returns class logits (Austin et al. 2021; Chen et al. 2023):

        L = kl KL(q(x_s | x_t, x0) || p(x_s | x_t)) + cross_entropy (-ln p(x0 | x_t)),   s = max(t - step, 0),

    a mean over pixels and batch, in nats. `p(x_s | x_t) = sum_k p(k | x_t) q(x_s | x_t, x0 = k)` is the exact
    mixture that `process.transition` samples by default, so both terms have the calibrated probabilities as
    their optimum (with BerDiff's plug-in rule they do not). Classes that x_t rules out get probability 0, as in
    `process.estimate`; everything is computed from logits.

    Args:
        process: `Bernoulli`, `Categorical` or `Absorbing`.
        network: `Network` that takes one-hot states (b, ..., states) and t (b,), and returns logits (b, ...,
            classes) or (b, ..., states).
        levels: distribution of t: `levels.discrete(np.arange(1, T + 1))` for a chain of T steps.
        kl: weight of the KL term; T times its mean over steps is the chain's part of the variational bound.
        cross_entropy: weight of the cross-entropy; D3PM's hybrid has .001 to .01, BerDiff 1.
        step: time from t to s: 1 for a chain, 1 / T for continuous time.

    Returns:
        Objective; see `denoising`. "x0" is one-hot over the classes (or states). The metrics are "loss", "kl",
        "cross_entropy" and "worst_level", a time.

    Raises:
        ValueError: for a step that is not positive, or weights that are negative or both 0.
    """
    if not step > 0 or min(kl, cross_entropy) < 0 or kl + cross_entropy == 0:
        raise ValueError(
            f"categorical needs step > 0 and weights >= 0, not both 0: got step {step}, kl {kl}, "
            f"cross_entropy {cross_entropy}."
        )

    def objective(params, carry, batch, key):
        index = indices(batch)
        x0 = jnp.asarray(batch["x0"], jnp.float32)

        def draw(index, x0):
            key_level, key_state = jax.random.split(sample_key(key, index))
            t = jnp.asarray(levels(process, independent(key_level)))
            return process.perturb(key_state, x0, t), t

        x_t, t = jax.vmap(draw)(index, x0)
        logits = network.apply(
            params, x_t, t, batch.get("cond"), key=network_keys(key, index), train=True
        ).astype(jnp.float32)
        one = lambda *args: pixel_losses(process, *args)
        terms = jax.vmap(one)(logits, x0, x_t, t, jnp.maximum(t - step, 0.0))
        divergence, entropy = (jnp.mean(term.reshape(term.shape[0], -1), axis=1) for term in terms)
        loss, metrics = summary(kl * divergence + cross_entropy * entropy, t)
        return loss, (carry, metrics | {"kl": jnp.mean(divergence), "cross_entropy": jnp.mean(entropy)})

    return objective


def pixel_losses(process, logits, x0, x_t, t, s):
    """Computes both terms of `categorical` for every pixel of one image.

    Args:
        process: categorical process.
        logits: (..., classes) or (..., states).
        x0: one-hot clean classes, likewise.
        x_t: (..., states) one-hot.
        t: time of x_t, a scalar.
        s: earlier time.

    Returns:
        `(kl, cross_entropy)`, each (...), in nats.

    Raises:
        ValueError: if the last axes do not hold the classes or the states.
    """
    logits, x0 = _classes(process, logits, "logits"), _classes(process, x0, "x0")
    log_evidence = _log_evidence(process, x_t, t)
    possible = log_evidence[..., : process.classes] > _NEVER
    log_p = jax.nn.log_softmax(jnp.where(possible, logits, _NEVER), axis=-1)
    cross_entropy = -jnp.sum(jnp.where(x0 > 0, x0 * log_p, 0.0), axis=-1)
    # q(x_s = i | x_t, k) = q(x_t | x_s = i) [abar_s (i = k) + (1 - abar_s) base_i] / q(x_t | x0 = k); the first
    # factor is common to both sides of the divergence.
    log_q, log_model = (
        _log_mixture(process, log_weight, log_evidence, s) for log_weight in (_log(x0), log_p)
    )
    log_step = _log_step(process, x_t, t, s)
    q = jnp.exp(jnp.maximum(log_q + log_step, _NEVER))
    kl = jnp.sum(jnp.where(q > 0, q * (log_q - log_model), 0.0), axis=-1)
    return kl, cross_entropy


def class_probabilities(network: Network, process) -> Network:
    """Makes the network that returns the probability of each state from one that returns logits.

    `as_denoiser(class_probabilities(network, process), params, process, predict_x0)` samples what `categorical`
    trained.

    Args:
        network: `Network` of logits over classes or states.
        process: categorical process.

    Returns:
        `Network` with output (b, ..., states); a state that is never clean has probability 0.
    """

    def apply(params, x, t, cond=None, *, key=None, train=False):
        logits = _classes(process, network.apply(params, x, t, cond, key=key, train=train), "logits")
        p = jax.nn.softmax(logits.astype(jnp.float32), axis=-1)
        return jnp.pad(p, [(0, 0)] * (p.ndim - 1) + [(0, len(process.base) - process.classes)])

    return Network(network.init, apply)


def _log_mixture(process, log_weight, log_evidence, s):
    # log of abar_s w_i / e_i + (1 - abar_s) base_i sum_k w_k / e_k, over states i and classes k
    classes, keep = process.classes, process.keep(s)
    states = len(process.base)
    ratio = jnp.where(log_weight > _NEVER, log_weight - log_evidence[..., :classes], _NEVER)
    total = jax.nn.logsumexp(ratio, axis=-1, keepdims=True)
    kept = jnp.pad(ratio, [(0, 0)] * (ratio.ndim - 1) + [(0, states - classes)], constant_values=_NEVER)
    return jnp.logaddexp(_log(keep) + kept, _log(1 - keep) + _log(_base(process, ratio)) + total)


def _log_evidence(process, x_t, t):
    # log q(x_t | x0 = k) for every state k
    return _log_step(process, x_t, t, 0.0)


def _log_step(process, x_t, t, s):
    # log q(x_t | x_s = i) for every state i
    keep = jnp.minimum(process.keep(t) / process.keep(s), 1.0)
    hit = jnp.sum(_base(process, x_t) * x_t, axis=-1, keepdims=True)
    return _log(keep * x_t + (1 - keep) * hit)


def _base(process, like):
    return jnp.asarray(process.base, like.dtype).reshape((1,) * (like.ndim - 1) + (-1,))


def _log(p):
    return jnp.where(p > 0, jnp.log(jnp.where(p > 0, p, 1.0)), _NEVER)


def _classes(process, x, name):
    if x.shape[-1] not in (process.classes, len(process.base)):
        raise ValueError(
            f"{name} must hold {process.classes} classes or {len(process.base)} states in its last axis, got "
            f"shape {x.shape}."
        )
    return x[..., : process.classes]

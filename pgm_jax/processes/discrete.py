"""Discrete processes: each pixel keeps its class with probability abar(t), else it is drawn from a base law.

    q(x_t | x_0) = abar(t) x_0 + (1 - abar(t)) base        x one-hot over its last axis

One class covers BerDiff (base a fair coin), uniform K-class masks (base 1 / K) and absorbing tokens (base a
one-hot mask state), after Austin et al. 2021 (D3PM) and Chen et al. 2023 (BerDiff).
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from pgm_jax.core import Estimate, safe_divide


class Discrete(struct.PyTreeNode):
    """A process on one-hot states; build it with `Bernoulli`, `Categorical` or `Absorbing`.

    An estimate's `x0` holds the probability of each class; its `noise` is zero.

    Attributes:
        base: (states,) probabilities drawn from when a pixel is not kept.
        keep: `t -> abar(t)`, which falls from 1.
        classes: number of classes of clean data; the states beyond them (a mask) are never clean.
    """

    base: Any
    keep: Any
    classes: Any = struct.field(pytree_node=False)

    def marginal(self, x0, t):
        """Returns the probabilities of x_t: `abar x0 + (1 - abar) base`.

        Args:
            x0: one-hot classes or class probabilities, (..., classes) or (..., states).
            t: time.

        Returns:
            (..., states) probabilities.
        """
        keep = self.keep(t)
        x0 = self._states(x0)
        return keep * x0 + (1 - keep) * self._base(x0)

    def perturb(self, key, x0, t, x1=None):
        """Draws a one-hot `x_t` given the clean classes; see `marginal`.

        Args:
            key: PRNG key.
            x0: one-hot classes, (..., classes) or (..., states).
            t: time.
            x1: must be None; a categorical process has no end point.

        Returns:
            (..., states) one-hot, of the dtype of x0.

        Raises:
            ValueError: if x1 is given.
        """
        _no_end_point(x1)
        return _draw(key, self.marginal(x0, t), x0.dtype)

    def prior(self, key, shape, t, x1=None, dtype=jnp.float32):
        """Draws the starting point, every pixel from the base: exact where abar(t) = 0.

        Args:
            key: PRNG key.
            shape: shape of the state, (..., states).
            t: first time of the grid.
            x1: must be None.
            dtype: floating dtype of the state.

        Returns:
            (..., states) one-hot.

        Raises:
            ValueError: if x1 is given, or the last axis does not hold the states.
        """
        _no_end_point(x1)
        if shape[-1] != len(self.base):
            raise ValueError(
                f"A state needs {len(self.base)} channels, one a state; got shape {tuple(shape)}."
            )
        return _draw(key, jnp.broadcast_to(self._base(jnp.zeros(shape, dtype)), shape), dtype)

    def log_prior(self, x, t):
        """Returns the log probability of the one-hot state x under `prior`, a real scalar."""
        base = self._base(x)
        log_base = jnp.where(base > 0, jnp.log(jnp.where(base > 0, base, 1.0)), -jnp.inf)
        return jnp.sum(jnp.where(x > 0, log_base, 0.0))

    def estimate(self, x_t, t, x0, x1=None):
        """Turns a denoiser's class probabilities into an estimate that agrees with the state.

        Classes that x_t rules out (the mask itself; every other class of an unmasked token; every change of a
        clean pixel) get probability zero and the rest is normalised.

        Args:
            x_t: one-hot state, (..., states).
            t: its time.
            x0: probability of each class, (..., classes) or (..., states).
            x1: must be None.

        Returns:
            `Estimate` with `x0` (..., states) and zero noise.

        Raises:
            ValueError: if x1 is given.
        """
        _no_end_point(x1)
        x0 = self._possible(self._states(x0), x_t, t)
        return Estimate(x0.astype(x_t.dtype), jnp.zeros_like(x_t))

    def reverse(self, key, x_t, estimate, t, s, eta, of="posterior"):
        """Draws the one-hot state at s < t from `transition`.

        Args:
            key: PRNG key.
            x_t: one-hot state at t.
            estimate: `Estimate` whose `x0` holds class probabilities.
            t: time of the state.
            s: next time.
            eta: share of the noisier kernel, in [0, 1].
            of: "posterior", "plugin" or "marginal"; see `transition`.

        Returns:
            (..., states) one-hot.

        Raises:
            ValueError: for another `of`, such as "forward".
        """
        return _draw(key, self.transition(x_t, estimate, t, s, eta, of), x_t.dtype)

    def transition(self, x_t, estimate, t, s, eta, of="posterior"):
        """Returns the probabilities of x_s given x_t, averaged over the clean image.

        `eta * kernel + (1 - eta) * least`: every kernel keeps the marginals, so every mixture does. `least`
        has the least noise, `x_s ~ r x_t + (abar_s - r abar_t) x0`, `r = (1 - abar_s) / (1 - abar_t)`: DDIM's
        form (Song et al. 2021, App. A; BerDiff Eq. 9). The kernel at eta 1 is, with `of`

            posterior   sum_k p(x0 = k) q(x_s | x_t, x0 = k): exact for a calibrated x0
            plugin      q(x_s | x_t, x0 = p), BerDiff's and D3PM's rule: BIASED wherever p is not one-hot
                        (a pixel of rate .1 comes out at .233 in 20 steps); to reproduce papers only
            marginal    q(x_s | x0): a draw that forgets x_t, as in multistep consistency

        Args:
            x_t: one-hot state at t, (..., states).
            estimate: `Estimate` whose `x0` holds class probabilities.
            t: time of the state.
            s: next time, less noisy.
            eta: share of the kernel, in [0, 1].
            of: "posterior", "plugin" or "marginal".

        Returns:
            (..., states) probabilities.

        Raises:
            ValueError: for another `of`.
        """
        if of not in ("posterior", "plugin", "marginal"):
            raise ValueError(
                f'A categorical process reverses of="posterior", "plugin" or "marginal", got {of!r}; '
                '"forward" needs Gaussian noise.'
            )
        p = self._possible(self._states(estimate.x0), x_t, t)
        kept = safe_divide(1 - self.keep(s), 1 - self.keep(t))
        least = kept * x_t + (self.keep(s) - kept * self.keep(t)) * p
        if of == "marginal":
            kernel = self.marginal(p, s)
        else:
            kernel = self._posterior(x_t, p, t, s, plugin=of == "plugin")
        return eta * kernel + (1 - eta) * least

    def renoise(self, key, x_t, t, s):
        """Draws the exact forward move from t to a noisier s: keeps with probability abar_s / abar_t.

        Args:
            key: PRNG key.
            x_t: one-hot state at t.
            t: its time.
            s: later, noisier time.

        Returns:
            (..., states) one-hot.
        """
        keep = safe_divide(self.keep(s), self.keep(t))
        return _draw(key, keep * x_t + (1 - keep) * self._base(x_t), x_t.dtype)

    def mix(self, *args, **kwargs):
        """Raises ValueError: an affine state is needed. `tilt` and `sde` refuse alike."""
        raise ValueError(
            "A categorical state is not alpha x0 + sigma noise, so it has no mix, tilt, drift or ODE: use a "
            "sampler that calls process.reverse, such as ancestral() or ddim(eta), and guide the class "
            "probabilities (Estimate.x0)."
        )

    tilt = mix
    sde = mix

    def _posterior(self, x_t, p, t, s, plugin):
        # q(x_t | x_s = i) q(x_s = i | x0 = k) / q(x_t | x0 = k), summed over k with weight p_k
        step = safe_divide(self.keep(t), self.keep(s))
        base, hit = self._base(x_t), self._hit(x_t)
        likelihood = step * x_t + (1 - step) * hit
        weights = p if plugin else safe_divide(p, self._evidence(x_t, t))
        total = jnp.sum(weights, axis=-1, keepdims=True)
        joint = likelihood * (self.keep(s) * weights + (1 - self.keep(s)) * base * total)
        norm = jnp.sum(joint, axis=-1, keepdims=True)
        return jnp.where(norm > 0, safe_divide(joint, norm), x_t)

    def _evidence(self, x_t, t):
        # q(x_t | x0 = k) for every k
        keep = self.keep(t)
        return keep * x_t + (1 - keep) * self._hit(x_t)

    def _possible(self, p, x_t, t):
        clean = jnp.arange(p.shape[-1]).reshape((1,) * (p.ndim - 1) + (-1,)) < self.classes
        p = jnp.where(clean & (self._evidence(x_t, t) > 0), p, 0.0)
        total = jnp.sum(p, axis=-1, keepdims=True)
        return jnp.where(total > 0, safe_divide(p, total), x_t)

    def _hit(self, x_t):
        return jnp.sum(self._base(x_t) * x_t, axis=-1, keepdims=True)

    def _base(self, x):
        return jnp.asarray(self.base, x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))

    def _states(self, x):
        states = len(self.base)
        if x.shape[-1] == states:
            return x
        if x.shape[-1] != self.classes:
            raise ValueError(
                f"The last axis must hold {self.classes} classes or {states} states, got shape {x.shape}."
            )
        return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, states - self.classes)])


def _draw(key, probabilities, dtype):
    drawn = jax.random.categorical(key, jnp.log(probabilities))
    return jax.nn.one_hot(drawn, probabilities.shape[-1], dtype=dtype)


def _no_end_point(x1):
    if x1 is not None:
        raise ValueError("A categorical process has no end point: x1 is for Bridge(), leave it out.")

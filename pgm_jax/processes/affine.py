"""Affine processes: a schedule times a noise law.

    x_t = alpha(t) x0 + beta(t) x1 + sigma(t) noise

Diffusion, PFGM++, flow matching and bridges are choices of the schedule and of the law; every sampler,
objective and guidance calls the methods below and nothing else.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from pgm_jax.core import Estimate, namespace, safe_divide
from pgm_jax.processes.normal import Normal


class Affine(struct.PyTreeNode):
    """An affine process.

    Times may be scalars, or arrays that broadcast against the image (one a slice, one a voxel).

    Attributes:
        schedule: object with `alpha(t)`, `beta(t)`, `sigma(t)`, `time(ratio)` and `paired`.
        law: unit noise law.
    """

    schedule: Any
    law: Any = Normal()

    def alpha(self, t):
        """Returns the scale of the clean image at time t, of the shape of t (or of the image)."""
        return self.schedule.alpha(t)

    def beta(self, t):
        """Returns the scale of the given end point x1 at time t; zero unless the process is a bridge."""
        return self.schedule.beta(t)

    def sigma(self, t):
        """Returns the standard deviation of the noise at time t, per real component."""
        return self.schedule.sigma(t)

    def time(self, ratio):
        """Returns the time at which `sigma / alpha` is `ratio`; float64 on the host for host input."""
        return self.schedule.time(ratio)

    def ratio(self, t):
        """Returns `sigma(t) / alpha(t)`, the noise level in EDM's frame; inf where alpha is 0."""
        return safe_divide(self.sigma(t), self.alpha(t), jnp.inf)

    def sde(self, t):
        """Returns `(f, g2)` of `dx = f x dt + g dw` whose marginals are this process's (Song et al. 2021).

        `f = alpha' / alpha`, `g2 = (sigma^2)' - 2 f sigma^2`, by automatic differentiation (review Eq. 5).

        Raises:
            ValueError: for a bridge, whose drift depends on its end point.
        """
        if self.schedule.paired:
            raise ValueError(
                "A bridge has no drift f(t) x alone: use ddim() or euler() on it, not an SDE step."
            )
        t = jnp.asarray(t, jnp.result_type(float))
        ones = jnp.ones_like(t)
        alpha, d_alpha = jax.jvp(self.alpha, (t,), (ones,))
        variance, d_variance = jax.jvp(lambda u: self.sigma(u) ** 2, (t,), (ones,))
        f = d_alpha / alpha
        return f, d_variance - 2 * f * variance

    def mix(self, estimate, t):
        """Returns the state `alpha x0 + beta x1 + sigma noise` at time t.

        Args:
            estimate: `Estimate`; arrays of the shape of the image.
            t: time.

        Returns:
            Array of the shape of the image.
        """
        x = self.alpha(t) * estimate.x0 + self.sigma(t) * estimate.noise
        if self._end_point(estimate.x1) is not None:
            x = x + self.beta(t) * estimate.x1
        return x.astype(estimate.x0.dtype)

    def perturb(self, key, x0, t, x1=None):
        """Draws `x_t` given the clean image (review Eq. 1, 3, 9 and 15 in one).

        Args:
            key: PRNG key.
            x0: clean image.
            t: time.
            x1: given end point of a bridge.

        Returns:
            Array of the shape of x0.
        """
        return self.mix(Estimate(x0, self.law.sample(key, x0.shape, x0.dtype), x1), t)

    def prior(self, key, shape, t, x1=None, dtype=jnp.float32):
        """Draws the starting point of a sampler: the state of a zero image at time t.

        Args:
            key: PRNG key.
            shape: shape of the image.
            t: first time of the grid.
            x1: given end point of a bridge.
            dtype: real or complex dtype of the state.

        Returns:
            Array of the given shape.
        """
        return self.perturb(key, jnp.zeros(shape, dtype), t, x1)

    def log_prior(self, x, t):
        """Returns the log density of `prior` at x, a real scalar; sigma(t) is one number."""
        sigma = self.sigma(t)
        size = x.size * (2 if jnp.iscomplexobj(x) else 1)
        return self.law.log_prob(x / sigma) - size * jnp.log(sigma)

    def estimate(self, x_t, t, x0, x1=None):
        """Solves for the noise of a state, given its clean image.

        `noise = (x_t - alpha x0 - beta x1) / sigma`, 0 where sigma is 0. Where alpha is also 1 the voxel is
        clean and x0 is x_t itself, bit for bit.

        Args:
            x_t: state.
            t: its time.
            x0: clean image, usually a denoiser's posterior mean.
            x1: given end point of a bridge.

        Returns:
            `Estimate` with `mix(estimate, t) == x_t`.
        """
        alpha, sigma = self.alpha(t), self.sigma(t)
        x0 = jnp.where((sigma == 0) & (alpha == 1), x_t, x0)
        rest = x_t - alpha * x0
        if self._end_point(x1) is not None:
            rest = rest - self.beta(t) * x1
        return Estimate(x0, safe_divide(rest, sigma).astype(x_t.dtype), x1)

    def reverse(self, key, x_t, estimate, t, s, eta, of="posterior"):
        """Moves one step back from t to s < t, given the clean image.

        `x_s = mix(x0, refresh(noise, z, r), s)`. With `of="posterior"`,
        `r = eta sqrt(1 - (alpha_t sigma_s / (alpha_s sigma_t))^2)`: eta 0 is DDIM, 1 is DDPM and I2SB,
        between is I3SB. With `of="marginal"`, `r = eta`: DDS's mixing, and at eta 1 multistep consistency.
        `of="forward"` is the posterior mean plus eta times the forward step's noise
        `sqrt(sigma_t^2 - (alpha_t sigma_s / alpha_s)^2) z`: DDPM's large variance (review Eq. 2), without
        noise on the step that ends at sigma 0.

        Args:
            key: PRNG key.
            x_t: state at t; an affine process reads it from the estimate.
            estimate: coordinates of the state.
            t: time of the state.
            s: next time.
            eta: share of fresh noise, in [0, 1].
            of: "posterior", "marginal" or "forward".

        Returns:
            State at s.

        Raises:
            ValueError: for another `of`, or where the noise law cannot be refreshed in part.
        """
        if of not in ("posterior", "marginal", "forward"):
            raise ValueError(f'reverse: of must be "posterior", "marginal" or "forward", got {of!r}.')
        if isinstance(eta, (int, float)) and eta == 0:
            return self.mix(estimate, s)
        law, shape, dtype = self.law, estimate.noise.shape, estimate.noise.dtype
        if of == "marginal":
            return self.mix(
                estimate._replace(noise=law.refresh(estimate.noise, law.sample(key, shape, dtype), eta)), s
            )
        markov = self._markov(t, s)
        if of == "posterior":
            noise = law.refresh(estimate.noise, law.sample(key, shape, dtype), eta * markov)
            return self.mix(estimate._replace(noise=noise), s)
        mean = self.mix(estimate._replace(noise=law.refresh(estimate.noise, 0.0, markov)), s)
        # The forward step's noise has scale sigma_t times the same Markov factor.
        spread = jnp.where(self.sigma(s) > 0, self.sigma(t) * markov, 0.0)
        return mean + (eta * spread * law.sample(key, shape, dtype)).astype(dtype)

    def renoise(self, key, x_t, t, s):
        """Moves exactly forward from t to a noisier s: `x_s = (alpha_s / alpha_t) x_t + widening noise`.

        Raises:
            ValueError: if the noise law has no closed-form forward move, or for a bridge.
        """
        if self.schedule.paired:
            raise ValueError("A bridge cannot be renoised: its forward move depends on both ends.")
        scale = safe_divide(self.alpha(s), self.alpha(t))
        added = self.law.widen(key, x_t.shape, x_t.dtype, scale * self.sigma(t), self.sigma(s))
        return (scale * x_t + added).astype(x_t.dtype)

    def tilt(self, estimate, x_t, t, grad, dsigma=0.0, gain=None):
        """Turns a likelihood gradient into the posterior's estimate; the state x_t is kept.

        The one place where `grad_x ln p(y | x_t)` becomes a displacement, right for every noise law: for a
        Normal law `x0 + sigma^2 grad / alpha`, for Student-t foundations' exact finite-D formula.

        Args:
            estimate: the prior's estimate at x_t.
            x_t: state.
            t: its time.
            grad: gradient of ln p(y | x_t) with respect to x_t.
            dsigma: derivative of ln p(y | x_t, sigma) with respect to sigma; Normal laws ignore it.
            gain: posterior mean of the noise variance; by default the law's, from the state's own residual.

        Returns:
            `Estimate` with `mix(estimate, t) == x_t`; where alpha is 0 the state tells nothing and x0 is kept.
        """
        alpha, sigma = self.alpha(t), self.sigma(t)
        if gain is None:
            residual = sigma * estimate.noise
            energy, size = self._energy(residual)
            gain = self.law.gain(sigma, energy, size)
        noise = self.law.tilt(estimate.noise, sigma, grad, dsigma, gain)
        noise = jnp.where(alpha == 0, estimate.noise, noise)
        x0 = estimate.x0 + safe_divide(sigma, alpha) * (estimate.noise - noise)
        return Estimate(x0.astype(estimate.x0.dtype), noise.astype(estimate.noise.dtype), estimate.x1)

    def _energy(self, residual):
        if hasattr(self.law, "energy"):
            return self.law.energy(residual)
        return jnp.sum(jnp.abs(residual) ** 2), residual.size

    def _markov(self, t, s):
        """`sqrt(1 - (alpha_t sigma_s / (alpha_s sigma_t))^2)`; 1 from pure noise and from a pinned end."""
        kept = safe_divide(self.alpha(t) * self.sigma(s), self.alpha(s) * self.sigma(t))
        xp = namespace(kept)
        return xp.sqrt(xp.clip((1 - kept) * (1 + kept), 0.0, 1.0))

    def _end_point(self, x1):
        if self.schedule.paired and x1 is None:
            raise ValueError("This process is a bridge: give its end point, x1=... (the corrupted image).")
        if x1 is not None and not self.schedule.paired:
            raise ValueError("This process has no end point: x1 is for bridges (Bridge()), leave it out.")
        return x1

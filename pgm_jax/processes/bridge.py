"""Bridges between a clean image x0 (t = 0) and its corrupted partner x1 (t = 1): I2SB, Brownian bridge.

With F(t) = int_0^t g^2 and G(t) = F(1) - F(t) (Liu et al. 2023, Eq. 11; the review's Sec. 3.3),

    x_t = (G x0 + F x1) / (F + G) + sqrt(F G / (F + G)) noise.
"""

import math
from typing import Any

from flax import struct

from pgm_jax.core import namespace
from pgm_jax.processes.affine import Affine


class BridgeSchedule(struct.PyTreeNode):
    """The bridge whose rate g^2 has a root that is linear up to t = 1/2 and mirrored after it.

    `g(t) = a + (b - a) t` for t <= 1/2, `a^2 = rate_min`, `b^2 = rate_max`, and `g(t) = g(1 - t)`. Equal
    rates are the Brownian bridge, `sigma^2 = rate t (1 - t)`.

    Attributes:
        rate_min: g^2 at both ends.
        rate_max: the rate that the linear root would reach at t = 1 without the mirror.
    """

    rate_min: Any
    rate_max: Any

    @property
    def paired(self):
        """Whether the process needs an end point x1: always."""
        return True

    def _roots(self, xp):
        low, high = xp.sqrt(self.rate_min), xp.sqrt(self.rate_max)
        return low, high - low

    def _first_half(self, t):
        """F(t) for t <= 1/2, without the cancellation of cubes."""
        low, slope = self._roots(namespace(t, self))
        root = low + slope * t
        return t * (root**2 + root * low + low**2) / 3

    def total(self):
        """Returns F(1), the variance of the forward diffusion from one end to the other."""
        return 2 * self._first_half(0.5)

    def variance(self, t):
        """Returns F(t); G(t) is `variance(1 - t)`."""
        xp = namespace(t, self)
        return xp.where(t <= 0.5, self._first_half(t), self.total() - self._first_half(1 - t))

    def alpha(self, t):
        return self.variance(1 - t) / self.total()

    def beta(self, t):
        return self.variance(t) / self.total()

    def sigma(self, t):
        xp = namespace(t, self)
        # A product of roots, so that float32 keeps the smallest variances.
        return xp.sqrt(self.variance(t)) * xp.sqrt(self.variance(1 - t) / self.total())

    def time(self, ratio):
        """Returns the time at which `sigma / alpha = sqrt(F F(1) / G)` is `ratio`; 1 for infinity."""
        xp = namespace(ratio, self)
        finite = xp.where(xp.isinf(ratio), 1.0, ratio)
        total = self.total()
        # G / F(1), and the same from the other end, each accurate where it is small.
        left = total / (finite**2 + total)
        passed = finite**2 / (finite**2 + total)
        early = self._inverse(total * xp.minimum(passed, 0.5))
        late = 1 - self._inverse(total * xp.minimum(left, 0.5))
        return xp.where(xp.isinf(ratio), 1.0, xp.where(passed <= 0.5, early, late))

    def _inverse(self, variance):
        xp = namespace(variance, self)
        low, slope = self._roots(xp)
        root = xp.cbrt(low**3 + 3 * slope * variance)
        return 3 * variance / (root**2 + root * low + low**2)


def Bridge(beta_max=0.3, beta_min=0.1, schedule="symmetric", law=None):
    """Builds the bridge of I2SB and I3SB in continuous time (Liu et al. 2023; Wang et al. 2024).

    `alpha = G / (F + G)`, `beta = F / (F + G)`, `sigma^2 = F G / (F + G)`: x_t is x0 at t = 0 and x1 at
    t = 1, exactly. `reverse(eta=1)` is I2SB's posterior, eta 0 keeps the noise and between is I3SB. Scaling
    both betas scales the noise and nothing else, so OT-ODE is the limit of small betas (1e-8) with eta 1.
    At t = 1 the state is x1 and holds no noise, so the first step of a sampler adds the share eta of the
    bridge's noise.

    Args:
        beta_max: rate that the root-linear schedule would reach at t = 1; the paper has .3, or 1 for
            deblurring and inpainting. With "constant", the rate itself.
        beta_min: rate at both ends; .1 is the reference's 1e-4 per step at 1000 steps. "constant" ignores it.
        schedule: "symmetric" (root-linear up to the middle, mirrored; mid standard deviation .188) or
            "constant" (Brownian bridge).
        law: noise law, Normal by default.

    Returns:
        `Affine` process on t in [0, 1] whose methods need `x1`.

    Raises:
        ValueError: for another schedule, or rates that are not positive and finite.
    """
    if schedule not in ("symmetric", "constant"):
        raise ValueError(f'Bridge: schedule must be "symmetric" or "constant", got {schedule!r}.')
    rates = (float(beta_max if schedule == "constant" else beta_min), float(beta_max))
    if not all(math.isfinite(rate) and rate > 0 for rate in rates):
        raise ValueError(f"Bridge needs positive, finite rates, got {beta_min} (min) and {beta_max} (max).")
    built = BridgeSchedule(*rates)
    return Affine(built) if law is None else Affine(built, law)

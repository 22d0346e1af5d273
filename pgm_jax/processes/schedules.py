"""Schedules of diffusion and flow processes: alpha, sigma and the inverse of sigma / alpha.

Each is written once and evaluates on the host in float64, or in the dtype of a traced time. `expm1`, `log1p`
and products in place of differences keep float32 accurate at both ends of the range.
"""

from typing import Any

from flax import struct

from pgm_jax.core import namespace


class Schedule(struct.PyTreeNode):
    """Base of schedules without an end point: beta is zero."""

    @property
    def paired(self):
        """Whether the process needs an end point x1."""
        return False

    def beta(self, t):
        """Returns zeros of the shape of t."""
        return namespace(t).zeros_like(t)


class ExplodingIdentity(Schedule):
    """EDM's frame: alpha = 1, sigma = t."""

    def alpha(self, t):
        return namespace(t).ones_like(t)

    def sigma(self, t):
        return t

    def time(self, ratio):
        return ratio


class Exploding(Schedule):
    """The VE SDE from clean data: alpha = 1, sigma^2 = smin^2 ((smax / smin)^(2 t) - 1), t in [0, 1]."""

    sigma_min: Any
    sigma_max: Any

    def _log_span(self, xp):
        return xp.log(self.sigma_max / self.sigma_min)

    def alpha(self, t):
        return namespace(t).ones_like(t)

    def sigma(self, t):
        xp = namespace(t, self)
        return self.sigma_min * xp.sqrt(xp.expm1(2 * t * self._log_span(xp)))

    def time(self, ratio):
        xp = namespace(ratio, self)
        return 0.5 * xp.log1p((ratio / self.sigma_min) ** 2) / self._log_span(xp)


class _LinearRate(Schedule):
    """The rate beta(t) = b0 + (b1 - b0) t, with integral B(t)."""

    rate_min: Any
    rate_max: Any

    def _integral(self, t):
        return self.rate_min * t + 0.5 * (self.rate_max - self.rate_min) * t**2

    def _inverse(self, integral):
        xp = namespace(integral, self)
        root = xp.sqrt(self.rate_min**2 + 2 * (self.rate_max - self.rate_min) * integral)
        return 2 * integral / (self.rate_min + root)

    def alpha(self, t):
        xp = namespace(t, self)
        return xp.exp(-0.5 * self._integral(t))


class Preserving(_LinearRate):
    """The VP SDE: alpha = exp(-B / 2), sigma^2 = 1 - exp(-B)."""

    def sigma(self, t):
        xp = namespace(t, self)
        return xp.sqrt(-xp.expm1(-self._integral(t)))

    def time(self, ratio):
        return self._inverse(namespace(ratio, self).log1p(ratio**2))


class SubPreserving(_LinearRate):
    """The sub-VP SDE: alpha = exp(-B / 2), sigma = 1 - exp(-B)."""

    def sigma(self, t):
        xp = namespace(t, self)
        return -xp.expm1(-self._integral(t))

    def time(self, ratio):
        # sigma / alpha = 2 sinh(B / 2)
        return self._inverse(2 * namespace(ratio, self).arcsinh(ratio / 2))


class CosineSchedule(Schedule):
    """Nichol and Dhariwal's cosine: alpha = cos(a (t + s)) / cos(a s), a = pi / (2 (1 + s)), t in [0, 1]."""

    offset: Any

    def _angles(self, xp):
        rate = 0.5 * xp.pi / (1 + self.offset)
        return rate, rate * self.offset

    def alpha(self, t):
        xp = namespace(t, self)
        rate, start = self._angles(xp)
        return xp.sin(rate * (1 - t)) / xp.cos(start)

    def sigma(self, t):
        xp = namespace(t, self)
        rate, start = self._angles(xp)
        # cos^2 a - cos^2 b = sin(b - a) sin(b + a), without the cancellation near t = 0
        return xp.sqrt(xp.sin(rate * t) * xp.sin(rate * t + 2 * start)) / xp.cos(start)

    def time(self, ratio):
        xp = namespace(ratio, self)
        rate, start = self._angles(xp)
        return (xp.arctan2(xp.sqrt(ratio**2 + xp.sin(start) ** 2), xp.cos(start)) - start) / rate


class Straight(Schedule):
    """Flow matching: alpha = 1 - t, sigma = t, t in [0, 1]."""

    def alpha(self, t):
        return 1 - t

    def sigma(self, t):
        return t

    def time(self, ratio):
        xp = namespace(ratio)
        return xp.where(xp.isinf(ratio), 1.0, ratio / (1 + xp.where(xp.isinf(ratio), 0.0, ratio)))


class Circle(Schedule):
    """TrigFlow: alpha = cos t, sigma = sigma_data sin t, t in [0, pi / 2]."""

    sigma_data: Any

    def alpha(self, t):
        # The sine is exactly 0 at the quarter turn, where the cosine is only rounded to 0.
        xp = namespace(t, self)
        return xp.sin(0.5 * xp.pi - t)

    def sigma(self, t):
        return self.sigma_data * namespace(t, self).sin(t)

    def time(self, ratio):
        return namespace(ratio, self).arctan(ratio / self.sigma_data)


class Tabulated(Schedule):
    """A discrete chain of T steps: alpha^2 is the running product of 1 - beta_i, at times 0, 1, ..., T.

    Times between the integers interpolate log alpha^2; a last entry of -inf is zero terminal SNR.

    Attributes:
        log_alpha_sq: (T + 1,) table that starts at 0.
    """

    log_alpha_sq: Any

    def _log_alpha_sq(self, t):
        xp = namespace(t, self.log_alpha_sq)
        table = xp.asarray(self.log_alpha_sq)
        low = xp.clip(xp.floor(xp.asarray(t)).astype(int), 0, table.shape[0] - 2)
        part = t - low
        below, above = table[low], table[low + 1]
        between = below + xp.where(part > 0, part, 1.0) * (above - below)
        return xp.where(part > 0, between, below)

    def alpha(self, t):
        return namespace(t, self.log_alpha_sq).exp(0.5 * self._log_alpha_sq(t))

    def sigma(self, t):
        xp = namespace(t, self.log_alpha_sq)
        return xp.sqrt(-xp.expm1(self._log_alpha_sq(t)))

    def time(self, ratio):
        xp = namespace(ratio, self.log_alpha_sq)
        table = xp.asarray(self.log_alpha_sq)
        steps = xp.arange(table.shape[0], dtype=table.dtype)
        return xp.interp(xp.log1p(xp.asarray(ratio) ** 2), -table, steps)

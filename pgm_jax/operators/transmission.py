"""The Poisson likelihood of transmission tomography, `y ~ Poisson(I0 exp(-A x) + r)`, before the logarithm."""

from typing import Any

import jax.numpy as jnp

from pgm_jax.core import safe_divide
from pgm_jax.operators.counts import log_prob_of_counts, ratio_to_mean, require_counts, sample_counts
from pgm_jax.operators.likelihood import Likelihood


class PoissonTransmission(Likelihood):
    """The likelihood `y ~ Poisson(I0 exp(-A x) + r)` of independent photon counts, x >= 0, every a_ij >= 0.

    It takes no logarithm of the data, so a bin without a photon is as good as any other. Build it with
    `create`, which checks the counts.

    Source: Eq. 28 of the review, corrected and with a background: its gradient `A^T (I0 exp(-A x) - y)` at
    r = 0 has I0 acting entry by entry on the vector exp(-A x), and y are counts, not line integrals.
    Curvature: H. Erdogan and J. A. Fessler, Monotonic algorithms for transmission tomography, IEEE TMI 18
    (1999).

    Attributes:
        operator: linear operator A in lengths, such as `ParallelBeam`, for an image in 1/length.
        y: counts, of the shape of `operator.range`.
        blank: I0 >= 0, expected counts without an object, broadcasts to y.
        background: r >= 0, expected scatter and dark counts, broadcasts to y.
    """

    operator: Any
    y: Any
    blank: Any
    background: Any = 0.0

    @classmethod
    def create(cls, operator, y, blank, background=0.0) -> "PoissonTransmission":
        """Checks the counts; otherwise the same as the constructor.

        Args:
            operator: linear operator A.
            y: counts.
            blank: expected counts without an object, broadcasts to y.
            background: expected scatter and dark counts, broadcasts to y.

        Raises:
            ValueError: if the shapes do not fit, or (outside of `jit`) counts, blank or background are
                negative or not finite.
        """
        require_counts(y, operator.range, cls.__name__, blank=blank, background=background)
        return cls(operator, jnp.asarray(y, operator.range.dtype), blank, background)

    def transmitted(self, lengths):
        """Computes the expected photons that passed, `I0 exp(-l)`, of line integrals `l = A x`."""
        return self._filled(self.blank) * jnp.exp(-lengths)

    def mean(self, x):
        """Computes the expected counts `I0 exp(-A x) + r`, like y."""
        return self.transmitted(self.operator(x)) + self._filled(self.background)

    def log_prob(self, x):
        """Computes `sum y ln(I0 exp(-A x) + r) - (I0 exp(-A x) + r) - ln y!`.

        The logarithm is `logaddexp(ln I0 - A x, ln r)`, finite for rays that let nothing pass.

        Args:
            x: image of the shape of `operator.domain`, in 1/length.

        Returns:
            Real scalar, in nats.
        """
        return self.log_prob_at(self.operator(x))

    def log_prob_at(self, lengths):
        """Computes `log_prob(x)` from the line integrals `A x` alone."""
        blank, background = self._filled(self.blank), self._filled(self.background)
        primary = jnp.where(blank > 0, _log(blank) - lengths, -jnp.inf)
        # The derivative of logaddexp of two infinities is not a number.
        scattered = background > 0
        both = jnp.logaddexp(primary, jnp.where(scattered, _log(background), 0.0))
        log_mean = jnp.where(scattered, both, primary)
        return log_prob_of_counts(self._counts, self.transmitted(lengths) + background, log_mean)

    def residual(self, x):
        """Computes `y - (I0 exp(-A x) + r)`, like y, in counts."""
        return self._counts - self.mean(x)

    def grad(self, x):
        """Computes `A^T (p (1 - y / (p + r)))` with `p = I0 exp(-A x)`, an image like x."""
        return self.operator.adjoint(self.slope(self.operator(x)))

    def slope(self, lengths):
        """Computes the derivative of `ln p` by the line integrals, `p - y p / (p + r)`, `p = I0 exp(-A x)`."""
        return self.transmitted(lengths) - self._counts * self.share(lengths)

    def share(self, lengths):
        """Computes the primary share of the expected counts, `p / (p + r)`: 1 at r = 0 even if p underflows."""
        blank, background = self._filled(self.blank), self._filled(self.background)
        odds = jnp.exp(jnp.minimum(lengths + _log(background) - _log(jnp.maximum(blank, _TINY)), 80.0))
        return jnp.where(blank > 0, 1 / (1 + odds), 0.0)

    def information_weights(self, lengths):
        """Computes the Fisher information of each ray, `p^2 / (p + r)`, at its line integral; for ML-TR."""
        return self.transmitted(lengths) * self.share(lengths)

    def curvature(self, x):
        """Computes a diagonal d for which a parabola lies below `ln p` on all of x >= 0.

        `ln p(z) >= ln p(x) + <grad(x), z - x> - sum_j d_j (z_j - x_j)^2 / 2` for every x, z >= 0, with
        `d = A^T (c A 1)` and the optimal curvature of each ray, for which `h(l) = -ln p` of its length l is

            c = max(0, 2 (h(0) - h(l) + l h'(l)) / l^2),   max(0, h''(0)) at l = 0

        Args:
            x: image >= 0, in 1/length.

        Returns:
            Image like x.
        """
        weights = self.curvature_weights(self.operator(x))
        return self.operator.adjoint(weights * self.operator.row_sums())

    def sample(self, key, x):
        """Draws counts `y ~ Poisson(I0 exp(-A x) + r)`, like y."""
        return sample_counts(key, self.mean(x))

    def subset(self, i):
        """Returns the likelihood of `operator.subset(i)` alone; callers scale by the number of subsets."""
        given = (self.y, self.blank, self.background)
        parts = (self.operator.restrict(self._filled(values), i) for values in given)
        return PoissonTransmission(self.operator.subset(i), *parts)

    def curvature_weights(self, lengths):
        """Computes the optimal curvature c of each ray at its line integral; see `curvature`."""
        blank, background, y = self._filled(self.blank), self._filled(self.background), self._counts
        passed = self.transmitted(lengths)
        # h''(0) is the largest curvature, so it is safe below the lengths where the formula is rounding.
        flattest = jnp.maximum(blank * (1 - y * safe_divide(background, (blank + background) ** 2)), 0.0)
        short = lengths < 0.05
        l = jnp.where(short, 1.0, lengths)
        lost = -blank * jnp.expm1(-l)
        primary = self.share(l)
        mean = self.transmitted(l) + background
        log_fall = jnp.where(background > 0, jnp.log1p(ratio_to_mean(lost, mean)), l)
        drop = lost - l * self.transmitted(l) - y * (log_fall - l * primary)
        optimal = jnp.maximum(2 * drop / l**2, 0.0)
        return jnp.maximum(jnp.where(short, flattest, optimal), 1e-6 * passed)

    @property
    def _counts(self):
        return jnp.asarray(self.y, self.operator.range.dtype)

    def _filled(self, values):
        space = self.operator.range
        return jnp.broadcast_to(jnp.asarray(values, space.dtype), space.shape)


_TINY = 1e-30


def _log(values):
    """Computes `ln v`, -inf at 0, with a finite derivative."""
    return jnp.where(values > 0, jnp.log(jnp.where(values > 0, values, 1.0)), -jnp.inf)

"""The Poisson likelihood of emission tomography, `y ~ Poisson(A x + b)`, and the EM steps of it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax.core import safe_divide
from pgm_jax.operators.counts import (
    log_prob_of_counts,
    ratio_to_mean,
    require_counts,
    sample_counts,
)
from pgm_jax.operators.likelihood import Likelihood


class Emission(Likelihood):
    """What binned and list-mode emission share: the EM step, and the proximal map made of such steps.

    A subclass gives `operator`, `mean`, `ratio` and `sensitivities`.
    """

    def sensitivities(self):
        """Returns the sensitivity image `s = A^T 1`, like x."""
        raise NotImplementedError(f"{type(self).__name__} does not define sensitivities")

    def mean(self, x):
        """Computes the expected counts of every measured entry, `A x + b`."""
        return self.operator(x) + self._filled(self.background)

    def expectation(self, x, mean=None):
        """Computes the E step `x A^T(y / (A x + b))`: the counts that came from each voxel, given y and x.

        Divided by the sensitivity it is the next iterate of ML-EM. It is 0 where x is 0, and entries with
        `A x + b = 0` give 0.

        Args:
            x: image >= 0.
            mean: `mean(x)`, where the caller has it already.

        Returns:
            Image like x, in counts.
        """
        return x * self.operator.adjoint(self.ratio(self.mean(x) if mean is None else mean))

    def prox(self, x, gamma, steps: int, x_init=None):
        """Computes `argmin_{v >= 0} |v - x|^2 / 2 - gamma ln p(y | v)` by scaled EM steps.

        With the E step e and the sensitivity s each step solves `v^2 + (gamma s - x) v - gamma e = 0` voxel
        by voxel, the minimiser of a surrogate that touches the objective from above: it never rises.

        Source: A. R. De Pierro, A modified expectation maximization algorithm for penalized likelihood
        estimation in emission tomography, IEEE TMI 14 (1995), with a quadratic penalty around x.

        Args:
            x: image, which may be negative in places.
            gamma: variance of x, a scalar or an array that broadcasts against x, >= 0.
            steps: number of EM steps, one A and one A^T each.
            x_init: positive start; x raised to 1 % of the flat image of as many counts by default.

        Returns:
            Image like x, >= 0.
        """
        sensitivity = self.sensitivities()
        start = jnp.maximum(x, 0.01 * self.flat(sensitivity)) if x_init is None else x_init
        slope = x - gamma * sensitivity

        def step(_, v):
            product = gamma * self.expectation(v)
            root = jnp.sqrt(slope**2 + 4 * product)
            # The positive root without cancellation, whatever the sign of the slope.
            falling = safe_divide(2 * product, root - slope)
            return jnp.where(slope > 0, 0.5 * (slope + root), falling)

        return jax.lax.fori_loop(0, steps, step, start)

    def flat(self, sensitivity):
        """Returns the flat image that explains every count, 0 where the sensitivity is 0; a start for EM."""
        level = safe_divide(jnp.sum(self.counts), jnp.sum(sensitivity))
        return jnp.where(sensitivity > 0, level, 0.0).astype(sensitivity.dtype)

    def _filled(self, values):
        space = self.operator.range
        return jnp.broadcast_to(jnp.asarray(values, space.dtype), space.shape)


class PoissonEmission(Emission):
    """The likelihood `y ~ Poisson(A x + b)` of independent counts, x >= 0 and every element of A >= 0.

    Randoms and scatter are the affine term b; attenuation, detector efficiency and resolution belong to A.
    Build it with `create`, which checks the counts.

    Attributes:
        operator: linear operator A with one array as its measurement, such as `PET`.
        y: counts, of the shape of `operator.range`.
        background: b >= 0, expected randoms and scatter, broadcasts to y.
        sensitivity: cached `A^T 1`, set by `create`, or None.
    """

    operator: Any
    y: Any
    background: Any = 0.0
    sensitivity: Any = None

    @classmethod
    def create(cls, operator, y, background=0.0) -> "PoissonEmission":
        """Checks the counts and caches the sensitivity; otherwise the same as the constructor.

        Args:
            operator: linear operator A.
            y: counts.
            background: expected randoms and scatter, broadcasts to y.

        Raises:
            ValueError: if the shapes do not fit, or (outside of `jit`) counts or background are negative or
                not finite, or a bin that sees no voxel and no background has counts.
        """
        require_counts(y, operator.range, cls.__name__, background=background)
        likelihood = cls(operator, y, background)
        likelihood._require_possible()
        return likelihood.replace(y=likelihood.counts, sensitivity=likelihood.sensitivities())

    @property
    def counts(self):
        """The counts y in the dtype of the operator."""
        return jnp.asarray(self.y, self.operator.range.dtype)

    def sensitivities(self):
        """Returns `A^T 1`, from the cache if there is one."""
        return self.operator.adjoint(self._filled(1.0)) if self.sensitivity is None else self.sensitivity

    def ratio(self, mean):
        """Computes `y / m` for expected counts m, 0 where m is 0."""
        return ratio_to_mean(self.counts, mean)

    def log_prob(self, x):
        """Computes `sum y ln(A x + b) - (A x + b) - ln y!`.

        Args:
            x: image of the shape of `operator.domain`, >= 0.

        Returns:
            Real scalar, in nats; -inf where counts meet a mean of 0 or less.
        """
        return self.log_prob_at(self.mean(x))

    def log_prob_at(self, mean, x=None):
        """Computes `log_prob(x)` from `mean(x)` alone; x is read by list-mode data only."""
        return log_prob_of_counts(self.counts, mean)

    def residual(self, x):
        """Computes `y - (A x + b)`, like y, in counts."""
        return self.counts - self.mean(x)

    def grad(self, x):
        """Computes `A^T (y / (A x + b) - 1)`, an image like x."""
        return self.operator.adjoint(self.ratio(self.mean(x)) - 1)

    def curvature(self, x):
        """Computes `A^T (y / (A x + b)^2 A 1)`: its diagonal matrix majorises minus the Hessian at x.

        For every direction v, `-<v, Hess v> <= sum_j d_j v_j^2`, because A has no negative element.

        Args:
            x: image >= 0.

        Returns:
            Image like x.
        """
        mean = self.mean(x)
        weights = safe_divide(self.ratio(mean), mean)
        return self.operator.adjoint(weights * self.operator.row_sums())

    def sample(self, key, x):
        """Draws counts `y ~ Poisson(A x + b)`, like y."""
        return sample_counts(key, self.mean(x))

    def subset(self, i):
        """Returns the likelihood of `operator.subset(i)` alone; callers scale by the number of subsets."""
        parts = (self.operator.restrict(self._filled(v), i) for v in (self.y, self.background))
        return PoissonEmission(self.operator.subset(i), *parts)

    def _require_possible(self):
        """Checks that every counted bin sees a voxel or a background, where all of it is concrete."""
        reached = self.operator.row_sums() + self._filled(self.background)
        if isinstance(reached, jax.core.Tracer) or isinstance(self.y, jax.core.Tracer):
            return
        lost = int(np.sum((np.asarray(self.y) > 0) & ~(np.asarray(reached) > 0)))
        if lost:
            raise ValueError(
                f"{lost} bins have counts but see no voxel and no background: enlarge the image, "
                "give a background, or set these bins to 0"
            )

"""The likelihood of list-mode emission data, one entry an event."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from pgm_jax.core import inner
from pgm_jax.operators.counts import ratio_to_mean, require_counts, require_table
from pgm_jax.operators.poisson import Emission


class ListModeEmission(Emission):
    """The likelihood of a list of events: `ln p = sum_e ln((A x)_e + b_e) - <s, x>` up to a constant.

    Row e of A is the line, and the time-of-flight bin, of event e: a bin with three counts is listed three
    times. The sensitivity counts every line on which an event could have been recorded, listed or not.

    Source: L. Parra and H. H. Barrett, List-mode likelihood: EM algorithm and image quality estimation
    demonstrated on 2-D PET, IEEE TMI 17 (1998).

    Attributes:
        operator: linear operator A from an image to one number an event, such as `ListModePET`.
        sensitivity: s, image of the shape of `operator.domain`: A^T 1 over all lines of the scanner.
        background: b >= 0, expected randoms and scatter on the line of each event, broadcasts to the events.
    """

    operator: Any
    sensitivity: Any
    background: Any = 0.0

    @classmethod
    def create(cls, operator, sensitivity, background=0.0) -> "ListModeEmission":
        """Checks shapes and numbers; otherwise the same as the constructor.

        Args:
            operator: linear operator A of the events.
            sensitivity: sensitivity image of the whole scanner, scaled to the duration of the scan like A.
            background: expected randoms and scatter of each event's line.

        Raises:
            ValueError: if a shape does not fit, or (outside of `jit`) a number is negative or not finite.
        """
        one = np.ones(operator.range.shape)
        require_counts(one, operator.range, cls.__name__, background=background)
        require_table("sensitivity", sensitivity, operator.domain.shape, "give one number a voxel")
        return cls(operator, jnp.asarray(sensitivity, operator.domain.dtype), background)

    @property
    def counts(self):
        """One for each event."""
        return self._filled(1.0)

    def sensitivities(self):
        """Returns the sensitivity image."""
        return self.sensitivity

    def ratio(self, mean):
        """Computes `1 / m` for the rates m of the events, 0 where m is 0."""
        return ratio_to_mean(self.counts, mean)

    def log_prob(self, x):
        """Computes `sum_e ln((A x)_e + b_e) - <s, x>`, without the total background and ln of units.

        Args:
            x: image of the shape of `operator.domain`, >= 0.

        Returns:
            Real scalar, in nats; -inf where an event has rate 0.
        """
        return self.log_prob_at(self.mean(x), x)

    def log_prob_at(self, mean, x):
        """Computes `log_prob(x)` from the rates `mean(x)` and x."""
        possible = mean > 0
        logs = jnp.where(possible, jnp.log(jnp.where(possible, mean, 1.0)), -jnp.inf)
        return jnp.sum(logs) - inner(self.sensitivity, x)

    def residual(self, x):
        """Refused: a list holds no entry for the lines that saw nothing."""
        raise ValueError("list-mode data have no residual: bin them, or use grad")

    def grad(self, x):
        """Computes `A^T (1 / (A x + b)) - s`, an image like x."""
        return self.operator.adjoint(self.ratio(self.mean(x))) - self.sensitivity

    def curvature(self, x):
        """Computes `A^T ((A 1) / (A x + b)^2)`, a diagonal majoriser of minus the Hessian at x."""
        return self.operator.adjoint(jnp.square(self.ratio(self.mean(x))) * self.operator.row_sums())

    def subset(self, i):
        """Returns the likelihood of the events of `operator.subset(i)`, with as small a part of s."""
        operator = self.operator.subset(i)
        share = operator.range.size / self.operator.range.size
        background = self.operator.restrict(self._filled(self.background), i)
        return ListModeEmission(operator, share * self.sensitivity, background)

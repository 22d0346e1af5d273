"""The Poisson likelihood of a photon-counting detector: several energy bins, several materials."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax.operators.counts import (
    log_prob_of_counts,
    ratio_to_mean,
    require_counts,
    require_table,
    sample_counts,
)
from pgm_jax.operators.likelihood import Likelihood


class PhotonCounting(Likelihood):
    """The likelihood of the counts of every energy bin b, jointly in the maps x_m of all materials,

        y_b ~ Poisson(I0_b sum_e R_be exp(-sum_m mu_me (A x)_m) + r_b)

    One bin and one energy are `PoissonTransmission`. The image has one channel a material and the operator
    maps each channel alike, as `ParallelBeam` does; the counts have one channel a bin. ln p is not concave.

    Source: R. F. Barber, E. Y. Sidky, T. Gilat Schmidt and X. Pan, An algorithm for constrained one-step
    inversion of spectral CT data, PMB 61 (2016), its data model.

    Attributes:
        operator: linear operator A, (..., materials) to (*rays, materials), in lengths.
        y: counts (*rays, bins).
        response: R >= 0, (bins, energies), expected counts of bin b from the photons of energy e: tube
            spectrum times detector response.
        attenuation: mu >= 0, (materials, energies), in 1/length for a material of amount 1.
        blank: I0 >= 0, factor on the response that broadcasts to y.
        background: r >= 0, expected scatter and dark counts, broadcasts to y.
    """

    operator: Any
    y: Any
    response: Any
    attenuation: Any
    blank: Any = 1.0
    background: Any = 0.0

    @classmethod
    def create(cls, operator, y, response, attenuation, blank=1.0, background=0.0) -> "PhotonCounting":
        """Checks shapes and numbers; otherwise the same as the constructor.

        Args:
            operator: linear operator A.
            y: counts (*rays, bins).
            response: expected counts (bins, energies).
            attenuation: attenuation of each material (materials, energies).
            blank: factor on the response.
            background: expected scatter and dark counts.

        Raises:
            ValueError: if the shapes do not fit, or (outside of `jit`) a number is negative or not finite.
        """
        space = operator.range
        rays, materials, dtype = space.shape[:-1], space.shape[-1], space.dtype
        bins, energies = np.shape(response)
        mend = f"give one row for each of the {materials} materials, one column an energy of the response"
        require_table("attenuation", attenuation, (materials, energies), mend)
        require_table("response", response, (bins, energies), "give one row a bin, one column an energy")
        counts = jax.ShapeDtypeStruct((*rays, bins), dtype)
        require_counts(y, counts, cls.__name__, blank=blank, background=background)
        tables = (jnp.asarray(values, dtype) for values in (y, response, attenuation))
        return cls(operator, *tables, blank, background)

    def mean(self, x):
        """Computes the expected counts (*rays, bins)."""
        return self._mean(self._passed(self.operator(x)))

    def log_prob(self, x):
        """Computes `sum y ln m - m - ln y!` of the expected counts m.

        Args:
            x: image of the shape of `operator.domain`, one channel a material.

        Returns:
            Real scalar, in nats.
        """
        return self.log_prob_at(self.operator(x))

    def log_prob_at(self, lengths):
        """Computes `log_prob(x)` from the line integrals `A x` alone."""
        return log_prob_of_counts(self.y, self._mean(self._passed(lengths)))

    def residual(self, x):
        """Computes `y - m`, like y, in counts."""
        return self.y - self.mean(x)

    def grad(self, x):
        """Computes `A^T g` with `g_m = sum_b (1 - y_b / m_b) I0_b sum_e R_be mu_me exp(-...)_e`."""
        passed = self._passed(self.operator(x))
        mean = self._mean(passed)
        bins = self._filled(self.blank) * (1 - ratio_to_mean(self.y, mean))
        return self.operator.adjoint(_product(_product(bins, self.response) * passed, self.attenuation.T))

    def curvature(self, x):
        """Computes a diagonal that majorises minus the Hessian at x, as the row sums of a larger matrix.

        Minus the Hessian is `A^T G A` with materials times materials blocks G of each ray,
        `G = sum_b (1 - y_b / m_b) m_b'' + y_b / m_b^2 m_b' m_b'^T`. Bins with y_b > m_b lower the first term,
        which is left out for them; what remains has no negative element, so its row sums majorise it.

        Args:
            x: image >= 0.

        Returns:
            Image like x.
        """
        passed = self._passed(self.operator(x))
        mean, fall = self._mean(passed), self._fall(passed)
        ratio, sums = ratio_to_mean(self.y, mean), self.operator.row_sums()
        excess = self._filled(self.blank) * jnp.maximum(1 - ratio, 0.0)
        bent = _product(excess, self.response) * passed * _product(sums, self.attenuation)
        slopes = ratio_to_mean(ratio, mean) * jnp.sum(fall * sums[..., None, :], axis=-1)
        weights = _product(bent, self.attenuation.T) + jnp.sum(slopes[..., None] * fall, axis=-2)
        return self.operator.adjoint(weights)

    def sample(self, key, x):
        """Draws the counts of every bin, like y."""
        return sample_counts(key, self.mean(x))

    def subset(self, i):
        """Returns the likelihood of `operator.subset(i)` alone; callers scale by the number of subsets."""
        parts = (self._restrict(self._filled(values), i) for values in (self.y, self.blank, self.background))
        y, blank, background = parts
        return PhotonCounting(self.operator.subset(i), y, self.response, self.attenuation, blank, background)

    def _passed(self, lengths):
        """Computes `exp(-sum_m mu_me l_m)`, (*rays, energies)."""
        return jnp.exp(-_product(lengths, self.attenuation))

    def _mean(self, passed):
        return self._filled(self.blank) * _product(passed, self.response.T) + self._filled(self.background)

    def _fall(self, passed):
        """Computes minus the derivatives of the means by the line integrals, (*rays, bins, materials)."""
        table = self.response[:, :, None] * self.attenuation.T[None]
        fall = jnp.tensordot(passed, table, axes=[[-1], [1]], precision=jax.lax.Precision.HIGHEST)
        return self._filled(self.blank)[..., None] * fall

    def _restrict(self, values, i):
        """Restricts bin by bin, since the operator knows measurements of one channel a material only."""
        space = self.operator.range.shape
        one = lambda plane: self.operator.restrict(jnp.broadcast_to(plane[..., None], space), i)[..., 0]
        return jnp.stack([one(values[..., b]) for b in range(values.shape[-1])], axis=-1)

    def _filled(self, values):
        shape = (*self.operator.range.shape[:-1], np.shape(self.response)[0])
        return jnp.broadcast_to(jnp.asarray(values, self.operator.range.dtype), shape)


def _product(rays, table):
    return jnp.matmul(rays, table, precision=jax.lax.Precision.HIGHEST)

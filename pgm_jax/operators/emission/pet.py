"""PET from sinograms: projector, attenuation, detector efficiency and resolution."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from pgm_jax.operators.counts import require_table
from pgm_jax.operators.emission.attenuation import survival
from pgm_jax.operators.emission.time_of_flight import TimeOfFlight
from pgm_jax.operators.operator import LinearOperator


class PET(LinearOperator):
    """The mean counts of true coincidences, `A = diag(factors) P G`: blur, project, attenuate, detect.

    Randoms and scatter are not linear in the image: they are the background of the likelihood,
    `PoissonEmission.create(pet, y, randoms + scatter)`.

    Build it with `create`. Any projector goes, in mm; with `ParallelBeam` an image is (height, width, slices)
    and a sinogram (views, bins, slices), with `TimeOfFlight` (views, bins, time-of-flight bins, slices).

    Attributes:
        projector: projector P, such as `ParallelBeam` or `TimeOfFlight`; its subsets are those of the whole.
        factors: survival of the photon pairs times detector efficiency, broadcasts to a sinogram and has its
            number of axes and of views; or None for 1.
        psf: blur G from image to image, such as `GaussianPSF`; or None.
    """

    projector: Any
    factors: Any = None
    psf: Any = None

    @classmethod
    def create(cls, projector, *, attenuation=None, normalisation=None, psf=None) -> "PET":
        """Computes the factors of every line.

        Args:
            projector: projector in mm.
            attenuation: attenuation map of the shape of the image in 1/mm at 511 keV, or None.
            normalisation: detector efficiency >= 0 of every line (times calibration and duration), of the
                shape of a sinogram without time of flight, or None for 1.
            psf: blur of the image by the resolution of the scanner, or None.

        Returns:
            The operator.

        Raises:
            ValueError: for maps that do not fit, such as an attenuation in 1/cm.
        """
        timed = isinstance(projector, TimeOfFlight)
        lines = projector.projector if timed else projector
        factors = None if attenuation is None else survival(lines, attenuation)
        if normalisation is not None:
            require_table("normalisation", normalisation, lines.range.shape, "give one number a line")
            efficiency = jnp.asarray(normalisation, lines.range.dtype)
            factors = efficiency if factors is None else factors * efficiency
        if timed and factors is not None:
            factors = factors[:, :, None]
        return cls(projector, factors, psf)

    def __call__(self, x):
        return self._weigh(self.projector(x if self.psf is None else self.psf(x)))

    def adjoint(self, y):
        x = self.projector.adjoint(self._weigh(y))
        return x if self.psf is None else self.psf.adjoint(x)

    @property
    def domain(self):
        return self.projector.domain if self.psf is None else self.psf.domain

    @property
    def range(self):
        return self.projector.range

    @property
    def subsets(self) -> int:
        """Number of subsets of the projector."""
        return self.projector.subsets

    def subset(self, i):
        """Returns the operator of the projector's subset i; i may be traced."""
        factors = None if self.factors is None else self.projector.restrict(self.factors, i)
        return PET(self.projector.subset(i), factors, self.psf)

    def restrict(self, y, i):
        """Returns the entries of y that belong to `subset(i)`."""
        return self.projector.restrict(y, i)

    def _weigh(self, y):
        if self.factors is None:
            return y
        if np.ndim(self.factors) != np.ndim(y):
            raise ValueError(
                f"PET has factors with {np.ndim(self.factors)} axes for a sinogram with {np.ndim(y)}: build it "
                "with PET.create"
            )
        return self.factors * y

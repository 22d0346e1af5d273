"""The Gaussian likelihood of a linear measurement, `y = A x + s n`, and draws from it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax.core import squared_norm
from pgm_jax.operators.likelihood import Likelihood, covariance_solve, proximal_point
from pgm_jax.operators.trees import as_kind


class GaussianLikelihood(Likelihood):
    """The likelihood `y ~ N(A x, s^2 / w)` of independent entries, with s per REAL component.

    A complex entry has two components, so its noise has E|n|^2 = 2 s^2 / w. Whether the image is real is
    read from the x that is passed: for real x, `grad` and `prox` are real (the real part of `A^H`). `solve`
    sees no x: for a real prior and a complex operator wrap the operator in `RealImage`.

    Entries that were not measured (a zero row of A and a zero in y, as in `Sense`) have residual 0 and change
    nothing but the constant of `log_prob`, which counts them as measured zeros unless their weight is 0.

    Attributes:
        operator: linear operator A with one array as its measurement.
        y: measurement, of the shape of `operator.range`.
        noise_std: s, one number, in units of y.
        weights: w >= 0, relative precisions that broadcast to y (0: not measured), or None for 1.
        backprojection: cached `A^H w y`, set by `create`, or None.
    """

    operator: Any
    y: Any
    noise_std: Any
    weights: Any = None
    backprojection: Any = None

    @classmethod
    def create(cls, operator, y, noise_std, weights=None) -> "GaussianLikelihood":
        """Checks the data and caches `A^H w y`; otherwise the same as the constructor.

        Args:
            operator: linear operator A.
            y: measurement.
            noise_std: noise level per real component.
            weights: relative precisions that broadcast to y, or None.

        Raises:
            ValueError: if the shapes do not fit, noise_std is not one number, or (outside of `jit`) y has
                entries that are not finite, noise_std is negative or a weight is.
        """
        likelihood = cls(operator, y, noise_std, weights)
        likelihood._require_data()
        _require_values(y, noise_std, weights)
        return likelihood.replace(backprojection=likelihood._backproject())

    def residual(self, x):
        """Computes `y - A x`, like y; not whitened."""
        self._require_data()
        return self.y - self.operator(x)

    def log_prob(self, x):
        """Computes `-sum w |y - A x|^2 / (2 s^2) - sum_{w > 0} c (ln s - ln(w) / 2 + ln(2 pi) / 2)`.

        c is 1 for real and 2 for complex entries; s must be above 0.

        Args:
            x: image of the shape of `operator.domain`.

        Returns:
            Real scalar, in nats.
        """
        residual = self.residual(x)
        components = 2 if jnp.iscomplexobj(residual) else 1
        real = jnp.real(residual).dtype
        constant = jnp.log(jnp.asarray(self.noise_std, real)) + 0.5 * np.log(2 * np.pi)
        if self.weights is None:
            return -0.5 * squared_norm(residual / self.noise_std) - components * residual.size * constant
        weights = self._full_weights(real)
        measured = weights > 0
        log_weights = jnp.log(jnp.where(measured, weights, 1.0))
        normaliser = components * jnp.sum(jnp.where(measured, constant - 0.5 * log_weights, 0.0))
        return -0.5 * squared_norm(jnp.sqrt(weights) * residual / self.noise_std) - normaliser

    def grad(self, x):
        """Computes `A^H w (y - A x) / s^2`, an image of the kind (real or complex) of x."""
        residual = self._weigh(self.residual(x))
        return as_kind(self.operator.adjoint(residual), x) / self.noise_std**2

    def curvature(self, x):
        """Computes a diagonal d that majorises minus the Hessian, `A^H w A / s^2`, the same at every x.

        `A^T w A 1 / s^2` for a real operator without negative elements, such as a projector; for a complex
        one, or one that knows of negative elements, the flat `||A||^2 max(w) / s^2` by power iteration.

        Args:
            x: image of the shape of `operator.domain`.

        Returns:
            Real image of that shape.
        """
        self._require_data()
        kinds = [space.dtype for space in (self.operator.domain, self.operator.range)]
        if self.operator._signed or any(jnp.issubdtype(kind, jnp.complexfloating) for kind in kinds):
            largest = 1.0 if self.weights is None else jnp.max(self.weights)
            bound = largest * self.operator.norm() ** 2 / self.noise_std**2
            return jnp.full(jnp.shape(x), bound, jnp.real(x).dtype)
        return self.operator.adjoint(self._weigh(self.operator.row_sums())) / self.noise_std**2

    def sample(self, key, x):
        """Draws a measurement like y, `A x + s n / sqrt(w)`; see `measure`."""
        return measure(key, self.operator, x, self.noise_std, self.weights)

    def prox(self, x, gamma, steps: int, x_init=None):
        """Computes `argmin_v |v - x|^2 / 2 - gamma ln p(y | v)` by CG on the normal equations.

        `(I + gamma / s^2 A^H w A) v = x + gamma / s^2 A^H w y`, so gamma is the variance of the prior around
        x whatever s is. With s = 0 the steps are CG on `A^H A v = A^H y` from x (DDS without noise).

        Source: H. Chung, S. Lee, J. C. Ye, Decomposed diffusion sampler (2024), its proximal step with weight
        gamma / s^2 there named gamma.

        Args:
            x: image, real or complex.
            gamma: variance of x per real component, a scalar or an array that broadcasts against x.
            steps: number of CG steps.
            x_init: start of CG; x by default.

        Returns:
            Image like x.
        """
        self._require_data()
        right = self._backproject() if self.backprojection is None else self.backprojection
        return proximal_point(self._normal, right, jnp.square(self.noise_std), x, gamma, steps, x_init)

    def solve(self, r, cov, *, rtol=1e-5, max_steps: int = 100):
        """Computes `(A cov A^H + s^2 / w)^-1 r` in data space by CG; entries of weight 0 give 0.

        Differentiable by an implicit solve, see `solve_positive_definite`; s = 0 is allowed if
        `A cov A^H` is definite on the measured entries.

        Args:
            r: array like y, such as a residual.
            cov: Hermitian positive semidefinite function from image to image.
            rtol: relative residual at which to stop.
            max_steps: largest number of CG steps.

        Returns:
            Array like r.
        """
        return covariance_solve([self.data_terms()], (r,), cov, rtol, max_steps)[0]

    def subset(self, i):
        """Returns the likelihood of `operator.subset(i)` alone; callers scale by the number of subsets."""
        weights = self.weights
        if weights is not None:
            weights = self.operator.restrict(self._full_weights(jnp.result_type(weights)), i)
        return GaussianLikelihood(
            self.operator.subset(i), self.operator.restrict(self.y, i), self.noise_std, weights
        )

    def normal_equations(self):
        """Returns `(x -> A^H w A x / s^2, A^H w y / s^2)`; s must be above 0."""
        precision = 1 / jnp.square(self.noise_std)
        right = self._backproject() if self.backprojection is None else self.backprojection
        return (lambda x: precision * self._normal(x)), precision * right

    def data_terms(self):
        """Returns `(sqrt(w) A, A^H sqrt(w), s^2, r -> sqrt(w) r)`, the terms of `solve`."""
        self._require_data()

        def scale(r):
            return r if self.weights is None else jnp.sqrt(self._full_weights(jnp.real(r).dtype)) * r

        def forward(x):
            return scale(self.operator(x))

        def backward(u):
            return self.operator.adjoint(scale(u))

        return forward, backward, jnp.square(self.noise_std), scale

    def _backproject(self):
        return self.operator.adjoint(self._weigh(self.y))

    def _normal(self, x):
        if self.weights is None:
            return self.operator.gram(x)
        return self.operator.adjoint(self._weigh(self.operator(x)))

    def _weigh(self, r):
        return r if self.weights is None else self._full_weights(jnp.real(r).dtype) * r

    def _full_weights(self, dtype):
        return jnp.broadcast_to(jnp.asarray(self.weights, dtype), jnp.shape(self.y))

    def _require_data(self):
        space = self.operator.range
        if isinstance(space, tuple):
            raise ValueError(
                "GaussianLikelihood needs one array as measurement: add one likelihood a part, l1 + l2"
            )
        if jnp.shape(self.y) != space.shape:
            raise ValueError(
                f"y has shape {jnp.shape(self.y)} but {type(self.operator).__name__} measures {space.shape}: "
                "build the operator for this scan, or vmap over a batch of y"
            )
        if jnp.ndim(self.noise_std) != 0:
            raise ValueError(
                f"noise_std must be one number, got shape {jnp.shape(self.noise_std)}: "
                "put entry-wise precisions in weights"
            )


def _require_values(y, noise_std, weights):
    """Checks concrete numbers; tracers have none to check."""
    if not isinstance(y, jax.core.Tracer) and not np.all(np.isfinite(np.asarray(y))):
        count = int(np.sum(~np.isfinite(np.asarray(y))))
        raise ValueError(f"y has {count} entries that are not finite: set them to 0 and give them weight 0")
    if not isinstance(noise_std, jax.core.Tracer) and not 0 <= float(noise_std) < np.inf:
        raise ValueError(f"noise_std must be finite and >= 0, got {noise_std}")
    if weights is not None and not isinstance(weights, jax.core.Tracer) and np.any(np.asarray(weights) < 0):
        raise ValueError("weights are relative precisions and must be >= 0")


def measure(key, operator, x, noise_std, weights=None):
    """Draws a measurement `y = A x + s n / sqrt(w)` with unit n: E n^2 = 1 real, E|n|^2 = 2 complex.

    Entries of weight 0 are 0, as a scanner leaves what it did not measure.

    Args:
        key: random key.
        operator: linear operator A with one array as its measurement.
        x: image of the shape of `operator.domain`.
        noise_std: s per real component, in units of y.
        weights: relative precisions that broadcast to y, such as a k-space mask, or None for 1.

    Returns:
        Measurement of the shape of `operator.range`.
    """
    clean = operator(x)
    unit = jax.random.normal(key, clean.shape, clean.dtype)
    unit = np.sqrt(2).astype(jnp.real(clean).dtype) * unit if jnp.iscomplexobj(clean) else unit
    if weights is None:
        return clean + noise_std * unit
    weights = jnp.broadcast_to(jnp.asarray(weights, jnp.real(clean).dtype), clean.shape)
    measured = weights > 0
    spread = noise_std / jnp.sqrt(jnp.where(measured, weights, 1.0))
    return jnp.where(measured, clean + spread * unit, 0.0)

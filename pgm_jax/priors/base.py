"""What every exact prior shares: from one Gaussian conditional to the denoiser of any process.

A prior answers one question: for `x = alpha x0 + sqrt(variance) n`, n Normal, what is the density of x and
the posterior mean of x0? A noise law that is a Gaussian scale mixture averages the answer over its variance
multiplier (`law.marginalise`), so priors never ask which law they meet.
"""

import jax.numpy as jnp
from flax import struct

from pgm_jax.core import real_size


def levels(process, x_t, t):
    """Returns `(alpha(t), sigma(t))` in the real dtype of the state.

    Args:
        process: affine process without an end point.
        x_t: state.
        t: time.

    Returns:
        Two arrays: scalars, or arrays of the image's rank for voxel-wise or per-coefficient time.

    Raises:
        ValueError: for a bridge.
    """
    schedule = getattr(process, "schedule", None)
    if getattr(schedule, "paired", False):
        raise ValueError("Exact priors know no end point x1: use a process without one, not a bridge.")
    dtype = working_dtype(x_t)
    alpha, sigma = (jnp.asarray(value, dtype) for value in (process.alpha(t), process.sigma(t)))
    return tuple(value.reshape(()) if value.size == 1 else value for value in (alpha, sigma))


def working_dtype(x):
    """Returns the real dtype in which densities are computed: that of x, at least float32.

    Args:
        x: image.

    Returns:
        dtype.
    """
    return jnp.promote_types(jnp.finfo(x.dtype).dtype, jnp.float32)


class Prior(struct.PyTreeNode):
    """Base of priors with a known density. Subclasses give `observe`, `sample` and `posterior`."""

    def observe(self, x, alpha):
        """Splits the conditional at `x = alpha x0 + sqrt(variance) n` into what a law averages and the rest.

        Args:
            x: state, of the image's shape.
            alpha: scale of the clean image, a scalar (or an array where the prior allows it).

        Returns:
            `(given, combine, offset)`: `given(variance) -> (log p(x | variance) - offset, statistics)`, and
            the linear `combine(statistics) -> E[x0 | x]`. Averaging statistics instead of means makes a
            denoiser cost one transform, however many nodes the law uses; the offset keeps the log densities
            of large images apart in float32.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define this method")

    def sample(self, key):
        """Draws one clean image.

        Args:
            key: PRNG key.

        Returns:
            Array of the image's shape.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define this method")

    def posterior(self, operator, y, noise_std):
        """Conditions on `y = A x0 + noise_std n`; see the subclasses.

        Args:
            operator: linear map A from an image to a measurement.
            y: measurement, real or complex.
            noise_std: standard deviation of the noise per real component of y.

        Returns:
            The posterior, an object with the methods of a prior.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define this method")

    def conditional(self, x, alpha, variance):
        """Computes the density of `x = alpha x0 + sqrt(variance) n`, n Normal, and the mean of x0 given x.

        Args:
            x: state, of the image's shape.
            alpha: scale of the clean image.
            variance: variance of the noise per real component.

        Returns:
            `(log p(x), E[x0 | x])`: a real scalar and an array of the image's shape.
        """
        given, combine, offset = self.observe(x, alpha)
        log_density, statistics = given(variance)
        return log_density + offset, combine(statistics).astype(x.dtype)

    def log_prob(self, x):
        """Computes the log density of a clean image.

        Args:
            x: clean image.

        Returns:
            log p0(x), a real scalar, normalised over the real components.
        """
        dtype = working_dtype(x)
        given, _, offset = self.observe(x, jnp.ones((), dtype))
        return given(jnp.zeros((), dtype))[0] + offset

    def denoiser(self, process):
        """Builds the exact denoiser of a process: `E[x0 | x_t]`.

        Args:
            process: affine process with any noise law; bridges are refused when it is called.

        Returns:
            `(x_t, t, cond=None) -> x0_hat`, of the shape and dtype of x_t; cond is not used. Where sigma is 0
            it is `x_t / alpha`, and where alpha is 0 the prior mean.
        """

        def denoise(x_t, t, cond=None):
            alpha, sigma = levels(process, x_t, t)
            # At sigma = 0 a singular prior has no density; the state itself is the answer, taken below.
            noisy = jnp.where(sigma == 0, 1.0, sigma) if sigma.ndim == 0 else sigma
            x0 = self._posterior_mean(process, x_t, alpha, noisy)
            clean = x_t / jnp.where(alpha == 0, 1.0, alpha)
            return jnp.where(sigma == 0, clean, x0).astype(x_t.dtype)

        return denoise

    def log_marginal(self, process, x_t, t):
        """Computes `log p_t(x_t)`, the normalised log density of the noised images, for any noise law.

        Args:
            process: affine process.
            x_t: state.
            t: time, one number (or an array where the prior allows it).

        Returns:
            Real scalar.
        """
        alpha, sigma = levels(process, x_t, t)
        return self._log_integral(process, x_t, alpha, sigma, 0.0)

    def log_potential(self, process, x_t, t):
        """Computes the log potential `log int p0(x0) v p(v) N(x_t; alpha x0, sigma^2 v) dv dx0`.

        For Student-t noise the kernel is `(|x_t - alpha x0|^2 + r^2)^(-(N + D - 2) / 2)`, times a factor of
        sigma and D alone: only differences between two priors under one law have a meaning, such as
        `ln g = posterior.log_potential - prior.log_potential` of foundations 2.7.6. It diverges for
        N + D <= 2. For Normal noise it is `log_marginal`.

        Args:
            process: affine process.
            x_t: state.
            t: time.

        Returns:
            Real scalar.
        """
        alpha, sigma = levels(process, x_t, t)
        return self._log_integral(process, x_t, alpha, sigma, 1.0)

    def noise_variance(self, process, x_t, t):
        """Computes `E[sigma^2 v | x_t]`, the exact gain of a likelihood gradient.

        Normal: sigma^2. Student-t: `E[D sigma^2 + |x_t - alpha x0|^2 | x_t] / (N + D - 2)`, infinite for
        N + D <= 2.

        Args:
            process: affine process.
            x_t: state.
            t: time.

        Returns:
            Real array of the shape of sigma(t).
        """
        alpha, sigma = levels(process, x_t, t)
        noisy = jnp.where(sigma == 0, 1.0, sigma) if sigma.ndim == 0 else sigma
        return sigma**2 * self._mean_multiplier(process, x_t, alpha, noisy)

    # The three averages below are quadratures over the law; EmpiricalPrior has them in closed form.

    def _posterior_mean(self, process, x_t, alpha, sigma):
        given, combine, _ = self.observe(x_t, alpha)
        _, statistics = process.law.marginalise(lambda v: given(sigma**2 * v), size=real_size(x_t))
        return combine(statistics)

    def _log_integral(self, process, x_t, alpha, sigma, power):
        given, _, offset = self.observe(x_t, alpha)
        only_density = lambda v: (given(sigma**2 * v)[0], ())
        return process.law.marginalise(only_density, power=power, size=real_size(x_t))[0] + offset

    def _mean_multiplier(self, process, x_t, alpha, sigma):
        given, _, _ = self.observe(x_t, alpha)
        multiplier = lambda v: (given(sigma**2 * v)[0], v)
        return process.law.marginalise(multiplier, size=real_size(x_t))[1]


def one_number(name, value, prior):
    """Returns `value`, a scalar, and refuses an array.

    Args:
        name: what the value is, for the message.
        value: array.
        prior: name of the prior that needs one number.

    Returns:
        The value.

    Raises:
        ValueError: if the value has axes.
    """
    if jnp.ndim(value):
        raise ValueError(
            f"{prior} is exact for one time per image, but {name} has shape {jnp.shape(value)} (a time per "
            "voxel or coefficient): use DiagonalGaussianPrior; small: GaussianPrior, MixturePrior."
        )
    return value


def normal_log_density(energy, log_variances):
    """Returns `-(energy + sum log variances + N log 2 pi) / 2`.

    Args:
        energy: sum of squares over variances, a scalar.
        log_variances: (N,) log variances of the real components.

    Returns:
        Real scalar.
    """
    return -0.5 * (energy + jnp.sum(log_variances) + log_variances.size * jnp.log(2 * jnp.pi))

"""Likelihoods p(y | x) of a clean image: the base class, joint measurements, and latents.

The likelihood of one image given several measurements is `l1 + l2`, never two chained corrections: the second
would differentiate through the first.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from pgm_jax.core import safe_divide
from pgm_jax.operators.conjugate_gradient import conjugate_gradient, solve_positive_definite
from pgm_jax.operators.trees import as_kind, tree_axpy


class Likelihood(struct.PyTreeNode):
    """Base of every likelihood: a subclass gives `log_prob` and `residual`, and what else it can."""

    def __init_subclass__(cls, **options):
        # Compared and hashed by identity, since arrays have no hash: `jax.jit(likelihood.grad)` needs one.
        super().__init_subclass__(**{"eq": False, **options})

    # This class itself is a dataclass without fields, whose own equality would hold for any two of a kind.
    __eq__, __hash__ = object.__eq__, object.__hash__

    def log_prob(self, x):
        """Computes `ln p(y | x)`, a real scalar, of one clean image x."""
        raise NotImplementedError(f"{type(self).__name__} does not define log_prob")

    def residual(self, x):
        """Computes `y - (expected y given x)`, shaped like y."""
        raise NotImplementedError(f"{type(self).__name__} does not define residual")

    def grad(self, x):
        """Computes the gradient of `log_prob` by autodiff, an image like x.

        For complex x it is `d/dRe(x) + i d/dIm(x)`, the direction of steepest ascent; JAX's own convention is
        its conjugate.
        """
        gradient = jax.grad(self.log_prob)(x)
        return jnp.conj(gradient) if jnp.iscomplexobj(gradient) else gradient

    def curvature(self, x):
        """Computes an image d with `-<v, Hess ln p v> <= sum_j d_j |v_j|^2` at x; refused unless known."""
        raise ValueError(f"{type(self).__name__} has no diagonal curvature: use grad with a step length")

    def sample(self, key, x):
        """Draws a measurement from `p(y | x)`; refused unless a subclass knows how."""
        raise ValueError(f"{type(self).__name__} cannot draw a measurement")

    def prox(self, x, gamma, steps: int, x_init=None):
        """Computes `argmin_v |v - x|^2 / 2 - gamma ln p(y | v)`; refused unless a subclass knows how."""
        raise ValueError(
            f"{type(self).__name__} has no proximal map: use a method based on grad, such as dps"
        )

    def solve(self, r, cov, *, rtol=1e-5, max_steps: int = 100):
        """Computes `(A cov A^H + noise)^-1 r`; refused unless the likelihood is linear and Gaussian."""
        raise ValueError(f"{type(self).__name__} has no covariance solve: it needs a linear Gaussian one")

    def subset(self, i) -> "Likelihood":
        """Returns the likelihood of subset i of the measurement (ordered subsets)."""
        raise ValueError(f"{type(self).__name__} has no subsets: use the whole likelihood")

    def through(self, decode) -> "LatentLikelihood":
        """Returns the likelihood of a latent z, `ln p(y | decode(z))`.

        Args:
            decode: function from a latent to an image. Parameters that should cross a `jit` border or be
                differentiated are passed as `jax.tree_util.Partial(decode, params)`.
        """
        is_partial = isinstance(decode, jax.tree_util.Partial)
        return LatentLikelihood(self, decode if is_partial else jax.tree_util.Partial(decode))

    def normal_equations(self):
        """Returns `(normal, right)` with `grad(x) = right - normal(x)`, if linear and Gaussian."""
        raise ValueError(
            f"{type(self).__name__} is not linear and Gaussian, so it has no normal equations: use grad"
        )

    def data_terms(self):
        """Returns `(forward, backward, variance, scale)`, the terms of `solve`, if linear and Gaussian."""
        raise ValueError(
            f"{type(self).__name__} is not linear and Gaussian, so it has no data covariance: use grad"
        )

    def __add__(self, other):
        if not isinstance(other, Likelihood):
            return NotImplemented
        return JointLikelihood((*_parts(self), *_parts(other)))


def _parts(likelihood):
    return likelihood.parts if isinstance(likelihood, JointLikelihood) else (likelihood,)


class JointLikelihood(Likelihood):
    """Independent measurements of one image, `p(y_1, y_2, ... | x) = prod_k p(y_k | x)`; made by `l1 + l2`.

    `log_prob`, `grad` and `curvature` are sums, `residual` and `sample` give tuples. `prox` and `solve` need
    every part to be linear and Gaussian.

    Attributes:
        parts: tuple of likelihoods.
    """

    parts: tuple

    def log_prob(self, x):
        return sum(part.log_prob(x) for part in self.parts)

    def grad(self, x):
        return sum(part.grad(x) for part in self.parts)

    def residual(self, x):
        return tuple(part.residual(x) for part in self.parts)

    def curvature(self, x):
        return sum(part.curvature(x) for part in self.parts)

    def sample(self, key, x):
        keys = jax.random.split(key, len(self.parts))
        return tuple(part.sample(k, x) for k, part in zip(keys, self.parts, strict=True))

    def normal_equations(self):
        terms = [part.normal_equations() for part in self.parts]

        def normal(x):
            return sum(apply(x) for apply, _ in terms)

        return normal, sum(right for _, right in terms)

    def prox(self, x, gamma, steps: int, x_init=None):
        """Computes `argmin_v |v - x|^2 / 2 - gamma sum_k ln p(y_k | v)` by CG on the summed normal equations.

        Args and result as for `GaussianLikelihood.prox`; every noise_std must be above 0.
        """
        normal, right = self.normal_equations()
        return proximal_point(normal, right, 1.0, x, gamma, steps, x_init)

    def solve(self, r, cov, *, rtol=1e-5, max_steps: int = 100):
        """Computes `(A cov A^H + noise)^-1 r` for the stacked operator A and a tuple r of residuals."""
        terms = [part.data_terms() for part in self.parts]
        return covariance_solve(terms, tuple(r), cov, rtol, max_steps)

    def subset(self, i):
        return JointLikelihood(tuple(part.subset(i) for part in self.parts))


class LatentLikelihood(Likelihood):
    """The likelihood of a latent, `ln p(y | decode(z))`; made by `likelihood.through(decode)`.

    Attributes:
        likelihood: likelihood of the image.
        decode: `jax.tree_util.Partial` from a latent to an image.
    """

    likelihood: Any
    decode: Any

    def log_prob(self, x):
        return self.likelihood.log_prob(self.decode(x))

    def residual(self, x):
        return self.likelihood.residual(self.decode(x))

    def sample(self, key, x):
        return self.likelihood.sample(key, self.decode(x))

    def prox(self, x, gamma, steps: int, x_init=None):
        raise ValueError(
            "the likelihood of a latent is not quadratic, so it has no proximal map by CG: "
            "correct the decoded image with the image's own likelihood, or use grad"
        )

    def subset(self, i):
        return LatentLikelihood(self.likelihood.subset(i), self.decode)


def proximal_point(normal, right, variance, v, gamma, steps: int, x_init=None):
    """Computes `argmin_x |x - v|^2 / 2 + gamma / variance (<x, W x> / 2 - Re <x, h>)` by conjugate gradients.

    With `x = v + g u` and `g^2 = gamma / (variance + max gamma)` the system is
    `(variance / (variance + max gamma) I + g W g) u = g (h - W v)`: symmetric for voxel-wise gamma too, of
    bounded scale, and at variance 0 it still projects v towards the data. For scalar gamma its iterates are
    those of `(I + gamma / variance W) x = v + gamma / variance h`.

    Args:
        normal: the map W, Hermitian positive semidefinite, from and to images.
        right: h, an image.
        variance: real scalar >= 0.
        v: image, real or complex; the result is of its kind.
        gamma: real scalar, or array that broadcasts against v, >= 0.
        steps: number of CG steps.
        x_init: start like v; v by default.

    Returns:
        Image like v.
    """
    real = jnp.real(v).dtype
    gamma, variance = jnp.asarray(gamma, real), jnp.asarray(variance, real)
    scale = variance + jnp.max(gamma)
    root = jnp.sqrt(safe_divide(gamma, scale))
    shrink = safe_divide(variance, scale)
    towards = as_kind(right, v)
    b = root * (towards - as_kind(normal(v), v))
    start = None if x_init is None else safe_divide(x_init - v, root)

    def matvec(u):
        return shrink * u + root * as_kind(normal(root * u), v)

    # Where v fits the data already, b is rounding, and further steps would walk the null space of W.
    u, _ = conjugate_gradient(matvec, b, start, steps=steps, among=root * towards)
    return v + root * u


def covariance_solve(terms, r, cov, rtol, max_steps: int):
    """Computes `(A cov A^H + noise)^-1 r` for the stacked measurements of one image.

    Args:
        terms: one `data_terms()` for each measurement.
        r: tuple of arrays, one for each measurement.
        cov: Hermitian positive semidefinite function from image to image.
        rtol: relative residual at which conjugate gradients stop.
        max_steps: largest number of steps.

    Returns:
        Tuple like r.
    """
    forwards, backwards, variances, scales = zip(*terms, strict=True)

    def scaled(parts):
        return tuple(scale(part) for scale, part in zip(scales, parts, strict=True))

    def matvec(u):
        image = cov(sum(backward(part) for backward, part in zip(backwards, u, strict=True)))
        data = (forward(image) for forward in forwards)
        return tuple(
            tree_axpy(jnp.asarray(s), part, d) for s, part, d in zip(variances, u, data, strict=True)
        )

    return scaled(solve_positive_definite(matvec, scaled(r), rtol=rtol, max_steps=max_steps))

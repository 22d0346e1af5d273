"""Projections of the state on the data: Song et al.'s in a transform, score-MRI's, and MCG's.

A projection of the next state `x_s = alpha x0 + sigma noise` on noised data `alpha y + sigma A z` is a
projection of x0 on y and of the noise on A z, whatever s the sampler goes to: that is how they are written.
"""

import jax.numpy as jnp

from pgm_jax.core import chain
from pgm_jax.guidance.least_squares import project
from pgm_jax.guidance.likelihoods import dps
from pgm_jax.guidance.makers import move
from pgm_jax.guidance.requirements import require_gaussian
from pgm_jax.operators.trees import as_kind


def song(transform, inverse, mask, y, weight=1.0):
    """Makes the projection of Song, Shen, Xing and Ermon (2022; review Eq. 26 and 27, corrected).

    For an operator that keeps some coordinates of an invertible transform, `A = P(Lambda) T`, the next state
    moves towards the data at its own level, `y_s = alpha y + sigma T z` with fresh z in image space:

        x_s <- T^-1 (lambda Lambda y_s + (1 - lambda) Lambda T x_s + (1 - Lambda) T x_s)
             = x_s + T^-1 lambda Lambda (y_s - T x_s).

    The second form is used: an approximate inverse then acts on the correction alone. For Cartesian MRI T is
    the orthonormal Fourier transform and its adjoint the exact inverse (a real image takes the real part,
    exact if the mask is symmetric about DC). For CT T is the projector at all views and the inverse is
    approximate: filtered backprojection for speed, or least squares by conjugate gradients. Operators
    without such a T (several coils, cone beams) take `dds` or `mcg`.

    Fresh noise enters, so Normal noise only: at finite D the law refuses. Biased: at lambda 1 noisy data are
    copied as if they were exact, below 1 the result lies between the data and the prior by a tuned number, and
    what is not measured hears of y through the network alone: .38 standard deviations and 46 % on the Gaussian
    case of `pigdm` at .84.

    Args:
        transform: T, from an image to its coordinates.
        inverse: linear function from coordinates to an image, T^-1 or close to it.
        mask: Lambda, zeros and ones that broadcast against the coordinates.
        y: coordinates measured, of the shape of `transform(image)`; read where the mask is 1.
        weight: lambda in [0, 1]; 1 reproduces the data.

    Returns:
        A guidance.

    Raises:
        ValueError: when it is applied, if y has not the shape of the coordinates.
    """

    def target(key, process, estimate, t):
        clean, noise = transform(estimate.x0), transform(estimate.noise)
        if jnp.shape(y) != clean.shape:
            raise ValueError(
                f"song: y has shape {jnp.shape(y)}, but transform gives {clean.shape}: place the measured "
                "entries among all coordinates, with zeros elsewhere."
            )
        kept = jnp.broadcast_to(jnp.asarray(mask, jnp.real(clean).dtype), clean.shape)
        fresh = process.law.sample(key, estimate.noise.shape, estimate.noise.dtype)
        renewed = process.law.refresh(noise, transform(fresh), kept)

        def moved(image, change):
            return (image + as_kind(inverse(weight * change), image)).astype(image.dtype)

        return estimate._replace(
            x0=moved(estimate.x0, kept * (y - clean)), noise=moved(estimate.noise, renewed - noise)
        )

    return move(target)


def score_mri(likelihood, weight=1.0):
    """Makes score-MRI's consistency step (Chung and Ye 2022): `x_s <- x_s + lambda A^H (y - A x_s)`, y clean.

    With lambda 1 and an orthonormal masked Fourier transform it is the hard replacement of the measured
    k-space; for several coils, or a projector with lambda below `1 / |A|^2`, it is the paper's Kaczmarz step,
    whose falling lambda is a function of the level. y is scaled by alpha, so that the step means the same on
    every process. No noise is drawn and any law may be used, as a heuristic: the data are not noised.

    Biased: the measured part of the state has no noise, which the network never saw, and noisy data are copied
    as if they were exact: .38 standard deviations and 46 % on the Gaussian case of `pigdm`.

    Args:
        likelihood: one `GaussianLikelihood` without weights; its noise_std is not read.
        weight: lambda, a number or a function `(process, t) -> lambda`.

    Returns:
        A guidance.

    Raises:
        ValueError: for another likelihood.
    """
    require_gaussian(likelihood, "score_mri", weights=False)

    def target(key, process, estimate, t):
        strength = weight(process, t) if callable(weight) else weight

        def stepped(image, data):
            back = likelihood.operator.adjoint(data - likelihood.operator(image))
            return (image + strength * as_kind(back, image)).astype(image.dtype)

        return estimate._replace(
            x0=stepped(estimate.x0, likelihood.y),
            noise=stepped(estimate.noise, jnp.zeros_like(likelihood.y)),
        )

    return move(target)


def mcg(likelihood, weight=1.0, *, normalise=True, steps=8):
    """Makes the manifold constrained gradient (Chung, Sim, Ryu and Ye 2022): a DPS step, then a projection.

    The gradient of the residual goes through the network, see `dps`; then the next state is projected on the
    noised data, `x_s <- x_s + A^+ (alpha y + sigma A z - A x_s)` with fresh z in image space. `A^+` is a least
    squares fit by conjugate gradients, exact after as many steps as there are data, one if A is orthonormal.

    Fresh noise enters, so Normal noise only: at finite D the law refuses. Biased: noisy data are copied as if
    they were exact, so the residual of a draw is 0 where the posterior's is the noise: .36 standard deviations
    and 46 % on the Gaussian case of `pigdm`.

    Args:
        likelihood: one `GaussianLikelihood`.
        weight: step of the gradient, as in `dps`.
        normalise: divide the gradient by the norm of the residual, as in `dps`.
        steps: conjugate gradient steps of the projection.

    Returns:
        A guidance.

    Raises:
        ValueError: for another likelihood.
    """
    require_gaussian(likelihood, "mcg")

    def fitted(image, data):
        return project(likelihood.replace(y=data), image, steps).astype(image.dtype)

    def target(key, process, estimate, t):
        law, measure = process.law, likelihood.operator
        fresh = law.sample(key, estimate.noise.shape, estimate.noise.dtype)
        # All of the measured noise is new, the rest is kept: a mixture that only a Normal law allows.
        renewed = law.refresh(measure(estimate.noise), measure(fresh), jnp.ones(()))
        return estimate._replace(x0=fitted(estimate.x0, likelihood.y), noise=fitted(estimate.noise, renewed))

    return chain(dps(likelihood, weight, normalise=normalise), move(target))

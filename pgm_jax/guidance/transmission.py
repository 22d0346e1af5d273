"""Guidance by photon counts of transmission CT, without a logarithm of the data: nonlinear DPS."""

import jax
import jax.numpy as jnp

from pgm_jax.core import Estimator, safe_divide
from pgm_jax.guidance.subsets import first_position, parts


def transmission_dps(
    likelihood, step="majoriser", *, steps=1, jacobian_free=False, keep_noise=False, scale=1.0, offset=0.0
):
    """Makes diffusion posterior sampling with the nonlinear likelihood of transmission CT, by ordered subsets.

    The clean attenuation `m = scale x0 + offset`, raised to 0 where it is negative, takes a few steps up the
    likelihood of one subset s of S after another. With its gradient g_s, its diagonal curvature d_s and the
    precision `rho = alpha^2 / (sigma scale)^2` of the state, a step of the default "majoriser" is

        v <- max(0, v + (S g_s(v) - rho (v - m)) / (S d_s(v) + rho)),   v = m at first.

    It needs no schedule: far from the clean end it is `g / d`, a step of `reconstruction.paraboloids`, near it
    plain DPS, `g / rho`; with many steps and S = 1 it ends at the maximum of `ln p(y | v) - rho |v - m|^2 / 2`
    over v >= 0. A number or function xi for `step` is a schedule chosen by hand, as published,
    `v <- max(0, v + xi S g_s(v) / rho)`; 1 is the weight of the likelihood itself. The displacement
    `w = (v - m) / scale` then goes through the Jacobian J of the denoiser,

        x0 <- x0 + alpha J^T w,   or `x0 + w` without Jacobian, where J is taken for 1 / alpha.

    The number of subsets visited is the carried state, their order that of Herman and Meyer; a likelihood step
    costs 1 / S of a full one. Jump start: give the sampler a noised first image on the tail of its grid,

        tail = grid[first:]
        sample_one(key, ddim(), denoise, process, tail, x_init=process.perturb(key, fbp / scale, tail[0]),
                   guidance=transmission_dps(likelihood, steps=4, jacobian_free=True, scale=scale))

    Bias: a diagonal step stands for a solve with the covariance of x0 given x_t; on rays that cross many voxels a
    few steps a level fit the data in part. On eight voxels seen alone, where the posterior is known, with
    `ancestral()` and 100 levels, the mean errs by .27 posterior standard deviations and the spread is 1.03 of
    its own; without Jacobian .08 and .91; with the noise kept too, .56 and .44.

    Sources: S. Li, X. Jiang, M. Tivnan, G. J. Gang, Y. Shen and J. W. Stayman, CT reconstruction using
    diffusion posterior sampling conditioned on a nonlinear measurement model (2023): the likelihood and its
    subsets, with the gradient of the review's Eq. 28, corrected; X. Jiang et al., Strategies for CT
    reconstruction using diffusion posterior sampling with a nonlinear model (2024): jump start, no Jacobian,
    several steps. The precision rho in the majoriser is this library's.

    Args:
        likelihood: `PoissonTransmission`, `PhotonCounting`, or another likelihood of an image >= 0 with a
            gradient and, for the majoriser, a curvature; of an operator built with `subsets` for S > 1.
        step: "majoriser", or xi: a number or a function `(process, t) -> number`.
        steps: likelihood steps at each evaluation, one subset each.
        jacobian_free: True leaves out the derivative of the network.
        keep_noise: False keeps the state, like every gradient of a likelihood; True keeps the noise, so that
            the next state moves by all of the displacement, which fits the data in fewer steps.
        scale: attenuation over the units of x, such as 1 / 1000 of that of water for HU.
        offset: attenuation where x is 0, such as that of water for HU.

    Returns:
        A guidance for real images, valid for every noise law.

    Raises:
        ValueError: for another word as step, steps below 1, the likelihood of a latent, and at the first use for
            complex images or a likelihood without curvature.
    """
    _require(likelihood, step, steps)
    return _moved_by(_climb(likelihood, step, steps, scale, offset), jacobian_free, keep_noise)


def _require(likelihood, step, steps):
    if isinstance(step, str) and step != "majoriser":
        raise ValueError(f'transmission_dps: step must be "majoriser" or a number or function, got {step!r}.')
    if hasattr(likelihood, "decode"):
        raise ValueError(
            "transmission_dps keeps the image >= 0, which a latent need not be: use dps(likelihood, "
            "normalise=False) for latents, and scale and offset for other units."
        )
    if steps < 1:
        raise ValueError(f"transmission_dps needs at least 1 likelihood step, got steps={steps}.")


def _climb(likelihood, step, steps, scale, offset):
    """Returns `(process, x0, t, position) -> (w, position)`, the displacement by a few likelihood steps."""
    subsets = parts(likelihood)

    def displacement(process, x0, t, position):
        if jnp.iscomplexobj(x0):
            raise ValueError("transmission_dps needs a real image of attenuations, got a complex one.")
        # The variance of the state in units of attenuation is free / alpha^2; kept apart, both may be 0.
        alpha_sq, free = process.alpha(t) ** 2, (process.sigma(t) * scale) ** 2
        image = jnp.maximum(scale * x0 + offset, 0.0).astype(x0.dtype)

        def move(visit, v):
            part = subsets.pick(position + visit)
            gradient = subsets.count * part.grad(v)
            if step == "majoriser":
                bent = free * subsets.count * part.curvature(v) + alpha_sq
                change = safe_divide(free * gradient - alpha_sq * (v - image), bent)
            else:
                xi = step(process, t) if callable(step) else step
                change = xi * safe_divide(free, alpha_sq) * gradient
            return jnp.maximum(v + change, 0.0).astype(x0.dtype)

        end = jax.lax.fori_loop(0, steps, move, image)
        return (end - image) / scale, position + steps

    return displacement


def _moved_by(displacement, jacobian_free, keep_noise):
    """Makes the guidance that moves x0 by a displacement, through the Jacobian of the denoiser or without."""

    def guidance(inner):
        process = inner.process

        def apply(key, x_t, t, state, *, cond=None, s=None):
            def clean(x):
                estimate, new = inner.apply(key, x, t, state[0], cond=cond, s=s)
                return estimate.x0, (estimate, new)

            if jacobian_free:
                _, (estimate, inner_state) = clean(x_t)
                change, position = displacement(process, estimate.x0, t, state[1])
            else:
                _, pullback, (estimate, inner_state) = jax.vjp(clean, x_t, has_aux=True)
                change, position = displacement(process, estimate.x0, t, state[1])
                change = process.alpha(t) * pullback(change.astype(estimate.x0.dtype))[0]
            x0 = (estimate.x0 + change).astype(estimate.x0.dtype)
            if keep_noise:
                return estimate._replace(x0=x0), (inner_state, position)
            return process.estimate(x_t, t, x0, estimate.x1), (inner_state, position)

        return Estimator(process, lambda x_t: (inner.init(x_t), first_position(x_t)), apply)

    return guidance

"""One-evaluation steps built on `process.reverse`: DDIM, DDPM, Euler, multistep consistency, CTM."""

import jax
import jax.numpy as jnp

from pgm_jax.core import Sampler, safe_divide


def empty(x):
    """Returns the memory of a sampler without history."""
    return ()


def ddim(eta=0.0, of="posterior"):
    """Makes DDIM's step (Song et al. 2021, Eq. 12), on any process: `x_s = process.reverse(..., eta, of)`.

    Eta 0 integrates the coefficients of the probability-flow ODE to first order: DDIM on VP, Euler on EDM and
    PFGM++, straight lines on flow matching, OT-ODE on a bridge. Eta 1 is DDPM's ancestral step with the small
    variance, I2SB on a bridge, and the exact mixture posterior of a categorical process.

    Args:
        eta: share of fresh noise in [0, 1]; the Python number 0 draws none and is valid for every noise law.
        of: "posterior", "marginal" (DDS's mixing) or "forward" (DDPM's large variance); see `Affine.reverse`.

    Returns:
        `Sampler` with one evaluation a step.
    """

    def step(key, process, estimate, state, t, s):
        key_estimate, key_noise = jax.random.split(key)
        current, guidance = estimate(key_estimate, state.x, t, state.guidance)
        x = process.reverse(key_noise, state.x, current, t, s, eta, of)
        return state._replace(x=x, guidance=guidance)

    return Sampler(empty, step)


def euler():
    """Makes the first-order step of the probability-flow ODE in the coefficients; equals `ddim(0.)`.

    On EDM and PFGM++ it is Euler's step on review Eq. 8 and 13, `dx / dsigma = (x - x0) / sigma`.

    Returns:
        `Sampler` with one evaluation a step.
    """
    return ddim(0.0)


def ancestral(variance="small"):
    """Makes DDPM's ancestral step (Ho et al. 2020, Algorithm 2; review Eq. 2, corrected).

    Args:
        variance: "small", the variance of the posterior given x0 (exact for a point mass), or "large", the
            variance beta of the forward step (exact for unit Gaussian data). No noise on the step to sigma 0.

    Returns:
        `Sampler` with one evaluation a step; Normal noise only (or a categorical process).

    Raises:
        ValueError: for another name.
    """
    kinds = {"small": "posterior", "large": "forward"}
    if variance not in kinds:
        raise ValueError(f'ancestral: variance must be "small" or "large", got {variance!r}.')
    return ddim(1.0, of=kinds[variance])


def consistency(t_min=None):
    """Makes multistep consistency sampling (Song et al. 2023, Algorithm 1).

    The denoiser is a consistency function, `f(x_t, t)`: a clean image, which is noised afresh to each next
    time. A function whose boundary is at `t_min > 0` returns an image with the noise of that level; then the
    re-noising starts there, `x_s = f + sqrt(s^2 - t_min^2) z`, and the grid ends at `t_min` (Normal, or D = 1).

    Args:
        t_min: time of the boundary `f(x, t_min) = x`; None takes it as 0, right for every noise law.

    Returns:
        `Sampler` with one evaluation a step.
    """
    if t_min is None:
        return ddim(1.0, of="marginal")

    def step(key, process, estimate, state, t, s):
        key_estimate, key_noise = jax.random.split(key)
        current, guidance = estimate(key_estimate, state.x, t, state.guidance)
        x = process.renoise(key_noise, current.x0, jnp.asarray(t_min, t.dtype), s)
        return state._replace(x=x, guidance=guidance)

    return Sampler(empty, step)


def ctm(gamma=0.0):
    """Makes CTM's gamma-sampling (Kim et al. 2024, Algorithm 2): an exact jump below s, then noise up to s.

    The estimate is asked for the jump to u, where `sigma(u) / alpha(u) = sqrt(1 - gamma^2) sigma(s) / alpha(s)`,
    and the state is renoised from u to s. Gamma 0 is deterministic and valid for every noise law; gamma 1 is
    multistep consistency.

    Args:
        gamma: Python number in [0, 1].

    Returns:
        `Sampler` with one evaluation of a jump denoiser a step.

    Raises:
        ValueError: for gamma outside [0, 1].
    """
    if not 0 <= gamma <= 1:
        raise ValueError(f"ctm: gamma must lie in [0, 1], got {gamma}.")

    def step(key, process, estimate, state, t, s):
        key_estimate, key_noise = jax.random.split(key)
        target = s
        if gamma > 0:
            ratio = safe_divide(process.sigma(s), process.alpha(s))
            target = process.time(jnp.sqrt(1 - gamma**2) * ratio)
        current, guidance = estimate(key_estimate, state.x, t, state.guidance, s=target)
        x = process.mix(current, target)
        if gamma > 0:
            x = process.renoise(key_noise, x, target, s)
        return state._replace(x=x, guidance=guidance)

    return Sampler(empty, step)

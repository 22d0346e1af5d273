"""Stochastic steps that need a Normal score: Langevin dynamics, predictor-corrector, reverse SDE."""

import jax
import jax.numpy as jnp

from pgm_jax.core import Sampler, safe_divide, squared_norm
from pgm_jax.samplers.ancestral import empty


def _score(process, current, t):
    """Score of the perturbed density at time t; refused by noise laws that have none."""
    return process.law.score(current.noise, process.sigma(t))


def _seen(process, current, t, x):
    """The state that the estimate stands for: x itself, unless a guidance has moved it."""
    return process.mix(current, t).astype(x.dtype)


def _unit(key, process, x):
    return process.law.sample(key, x.shape, x.dtype)


def langevin(steps=5, step_size=2e-5, sigma_last=0.01):
    """Makes annealed Langevin dynamics (Song and Ermon 2019; review Eq. 4).

    At each time of the grid, `steps` times: `x <- x + a score + sqrt(2 a) z` with
    `a = step_size sigma^2 / sigma_last^2`; then the state goes to the next level unchanged (rescaled by alpha).
    The step to sigma 0 ends with the denoised image, `x + sigma^2 score` on VE.

    Args:
        steps: Langevin iterations at each level.
        step_size: step at the last level, in the convention of review Eq. 4 (half of NCSN version 1's).
        sigma_last: smallest level of the grid.

    Returns:
        `Sampler` with steps + 1 evaluations on the last step and `steps` elsewhere; Normal noise only.
    """

    def step(key, process, estimate, state, t, s):
        key_chain, key_end = jax.random.split(key)
        sigma = process.sigma(t)
        a = step_size * (sigma / sigma_last) ** 2

        def iterate(carry, key):
            x, guidance = carry
            key_estimate, key_noise = jax.random.split(key)
            current, guidance = estimate(key_estimate, x, t, guidance)
            drift = a * _score(process, current, t)
            x = _seen(process, current, t, x) + drift + jnp.sqrt(2 * a) * _unit(key_noise, process, x)
            return (x.astype(carry[0].dtype), guidance), None

        carry, _ = jax.lax.scan(iterate, (state.x, state.guidance), jax.random.split(key_chain, steps))

        def denoised(carry):
            current, guidance = estimate(key_end, carry[0], t, carry[1])
            return process.mix(current, s), guidance

        def handed_over(carry):
            x, guidance = carry
            return (safe_divide(process.alpha(s), process.alpha(t)) * x).astype(x.dtype), guidance

        x, guidance = jax.lax.cond(process.sigma(s) > 0, handed_over, denoised, carry)
        return state._replace(x=x, guidance=guidance)

    return Sampler(empty, step)


def reverse_diffusion():
    """Makes the reverse-diffusion predictor (Song et al. 2021, Eq. 46).

    With `a = alpha_t / alpha_s` and `g^2 = sigma_t^2 - a^2 sigma_s^2` of one forward step:
    `x_s = (2 - a) x_t + g^2 score + g z`, without noise on the step to sigma 0. On VE (a = 1) the mean is exact.

    Returns:
        `Sampler` with one evaluation a step; Normal noise only.
    """

    def step(key, process, estimate, state, t, s):
        key_estimate, key_noise = jax.random.split(key)
        current, guidance = estimate(key_estimate, state.x, t, state.guidance)
        a = safe_divide(process.alpha(t), process.alpha(s))
        g2 = (process.sigma(t) - a * process.sigma(s)) * (process.sigma(t) + a * process.sigma(s))
        mean = (2 - a) * _seen(process, current, t, state.x) + g2 * _score(process, current, t)
        noise = jnp.where(process.sigma(s) > 0, jnp.sqrt(g2), 0.0) * _unit(key_noise, process, state.x)
        return state._replace(x=(mean + noise).astype(state.x.dtype), guidance=guidance)

    return Sampler(empty, step)


def euler_maruyama(noise=1.0):
    """Makes Euler-Maruyama on the reverse SDE (review Eq. 6), or on any member of its family.

    `dx = [f x - (1 + k^2) / 2 g^2 score] dt + k g dw`: k = 1 is Anderson's reverse SDE, k = 0 the
    probability-flow ODE (review Eq. 7) by Euler in t. All k share the marginals of the process.

    Args:
        noise: k >= 0.

    Returns:
        `Sampler` with one evaluation a step; Normal noise only. The grid ends above the singular end of the
        process, if it has one.
    """

    def step(key, process, estimate, state, t, s):
        key_estimate, key_noise = jax.random.split(key)
        current, guidance = estimate(key_estimate, state.x, t, state.guidance)
        f, g2 = process.sde(t)
        x = _seen(process, current, t, state.x)
        drift = f * x - 0.5 * (1 + noise**2) * g2 * _score(process, current, t)
        spread = noise * jnp.sqrt(jnp.maximum(g2 * (t - s), 0.0))
        x = x + drift * (s - t) + spread * _unit(key_noise, process, state.x)
        return state._replace(x=x.astype(state.x.dtype), guidance=guidance)

    return Sampler(empty, step)


def predictor_corrector(predictor=None, steps=1, snr=0.16):
    """Makes predictor-corrector sampling (Song et al. 2021, Algorithms 2 and 3): corrector, then predictor.

    Each corrector iteration is a Langevin step at t with `a = 2 (alpha_t / alpha_s)^2 (snr |z| / |score|)^2`,
    norms taken over one sample (references average them over the batch, so that samples depend on their
    neighbours). Guidance state is kept at every iteration.

    Args:
        predictor: any `Sampler`; `reverse_diffusion()` by default.
        steps: corrector iterations at each time.
        snr: signal-to-noise ratio of the corrector, 0.16 for VE and 0.01 for VP on CIFAR-10.

    Returns:
        `Sampler` with `steps` evaluations more than the predictor; Normal noise only.
    """
    predictor = reverse_diffusion() if predictor is None else predictor

    def step(key, process, estimate, state, t, s):
        key_chain, key_predict = jax.random.split(key)
        scale = safe_divide(process.alpha(t), process.alpha(s)) ** 2

        def iterate(carry, key):
            x, guidance = carry
            key_estimate, key_noise = jax.random.split(key)
            current, guidance = estimate(key_estimate, x, t, guidance)
            score, z = _score(process, current, t), _unit(key_noise, process, x)
            a = 2 * scale * snr**2 * safe_divide(squared_norm(z), squared_norm(score))
            x_new = _seen(process, current, t, x) + a * score + jnp.sqrt(2 * a) * z
            return (x_new.astype(x.dtype), guidance), None

        carry, _ = jax.lax.scan(iterate, (state.x, state.guidance), jax.random.split(key_chain, steps))
        state = state._replace(x=carry[0], guidance=carry[1])
        return predictor.step(key_predict, process, estimate, state, t, s)

    return Sampler(predictor.init, step, predictor.check)

"""MeanFlow: the mean velocity between two times, by one forward-mode derivative of the network."""

import jax
import jax.numpy as jnp

from pgm_jax.core import Estimate, Network, Objective, sample_key
from pgm_jax.networks.jump import told
from pgm_jax.training.objectives import levels as level_laws
from pgm_jax.training.objectives.pairs import EARLIEST, at_least_float32, indices, network_keys, summary
from pgm_jax.training.objectives.residual import call, mean_square, noise_level

# Fold of a sample's key for its times and noise.
_TIMES = 5
# Of the adaptive weight (Geng et al. 2025, Eq. 22).
_FLOOR, _POWER = 1e-3, 1.0


def meanflow(process, network: Network, parameterisation, levels=None, *, equal: float = 0.75) -> Objective:
    """Makes MeanFlow: the network knows the mean velocity from t to s (Geng et al. 2025, Eq. 6 to 11).

        u(x_t, t, s) = (x_t - x0_hat) / t,   |u - sg( v - (t - s) (v . grad u + du/dt) )|^2,   v = x_t',

    weighted by `1 / sg(|error|^2 + .001)` per component. For paths that are straight in t, without noise at t = 0:
    flow matching, and EDM and PFGM++, where v is the noise. Sample with `as_jump_denoiser` and `ctm()`.

    Args:
        process: `FlowMatching`, `EDM` or `PFGMpp`, of any noise law.
        network: `Network` built for the target (`networks.jump`).
        parameterisation: `(process, t) -> Coefficients`.
        levels: distribution from which both times are drawn; `levels.lognormal(-.4, 1)` by default.
        equal: share of pairs with s = t, which are plain flow matching.

    Returns:
        Objective, see `denoising`; the carry is passed through.

    Raises:
        ValueError: for a process whose paths are not straight in t, or a share outside [0, 1].
    """
    _require_straight(process)
    if not 0 <= equal <= 1:
        raise ValueError(f"meanflow: equal is a share in [0, 1], got {equal}.")
    levels = level_laws.lognormal(-0.4, 1.0) if levels is None else levels

    def one(key, x0):
        first, second, third, noise_key = jax.random.split(key, 4)
        draw = lambda key: jnp.maximum(levels(process, level_laws.independent(key)), EARLIEST)
        a, b = draw(first), draw(second)
        t = jnp.maximum(a, b)
        s = jnp.where(level_laws.independent(third) < equal, t, jnp.minimum(a, b))
        noise = process.law.sample(noise_key, x0.shape, x0.dtype)
        x_t, velocity = jax.jvp(lambda t: process.mix(Estimate(x0, noise), t), (t,), (jnp.ones_like(t),))
        return x_t, t, s, velocity

    def objective(params, carry, batch, key):
        index, cond = indices(batch), batch.get("cond")
        keys = jax.vmap(lambda i: jax.random.fold_in(sample_key(key, i), _TIMES))(index)
        x_t, t, s, velocity = jax.vmap(one)(keys, at_least_float32(batch["x0"]))
        mean = _mean_velocity(process, network, parameterisation, params, s, cond, network_keys(key, index))
        u, rate = jax.jvp(mean, (x_t, t), (velocity, jnp.ones_like(t)))
        aim = velocity - jax.vmap(jnp.multiply)(t - s, rate)
        square = mean_square(u - jax.lax.stop_gradient(aim))
        losses = square / jax.lax.stop_gradient(square + _FLOOR) ** _POWER
        loss, metrics = summary(losses, jax.vmap(lambda t: noise_level(process, t))(t))
        return loss, (carry, metrics | {"square": jnp.mean(square)})

    return objective


def _mean_velocity(process, network, parameterisation, params, s, cond, keys):
    """`u(x, t) = (x - x0_hat) / t` towards s, of a batch."""
    each = jax.vmap(jnp.multiply)
    target = jax.vmap(lambda s: parameterisation(process, s).c_noise)(s)
    cond = told(cond, target)

    def velocity(x, t):
        c = jax.vmap(lambda t: parameterisation(process, t))(t)
        output = call(network, params, each(c.c_in, x), c.c_noise, cond, keys)
        return each((1 - c.c_skip) / t, x) - each(c.c_out / t, output)

    return velocity


def _require_straight(process):
    low, high = 0.25, 0.75
    curved = [
        abs(float(f(0.5 * (low + high))) - 0.5 * float(f(low) + f(high))) > 1e-6
        for f in (process.alpha, process.sigma)
    ]
    if any(curved) or float(process.sigma(0.0)) != 0:
        raise ValueError("meanflow needs straight paths from t = 0: use FlowMatching(), EDM() or PFGMpp(D).")

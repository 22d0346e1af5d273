"""Averages over the variance multiplier of a Gaussian scale mixture, by a trapezoid rule in ln v."""

import jax
import jax.numpy as jnp

# Widest range of ln v that a float32 draw can show, for D >= 0.5 and up to 10^7 dimensions.
_RANGE = (-20.0, 60.0)
# The integrand below exp(-40) of its maximum adds less than float64 rounding.
_DEPTH = 40.0


def log_average(conditional, log_mixing, nodes, levels=4, scan_nodes=25):
    """Computes `ln int exp(log_mixing(u)) p(x | e^u) du` and the average of a value under the integrand.

    The interval is narrowed `levels` times around the part that matters, then the trapezoid rule, which
    converges geometrically for this analytic integrand, is applied once. The interval carries no gradient.

    Args:
        conditional: `v -> (log p(x | v), values)`.
        log_mixing: `u -> log density of u = ln v`.
        nodes: number of nodes of the final rule.
        levels: number of narrowings.
        scan_nodes: nodes of each narrowing.

    Returns:
        `(log integral, averaged values)`.
    """

    def log_integrand(u):
        log_density, values = conditional(jnp.exp(u))
        return log_density + log_mixing(u), values

    log_only = jax.vmap(lambda u: log_integrand(u)[0])
    low, high = (jnp.asarray(edge) for edge in _RANGE)
    for _ in range(levels):
        low, high = _narrow(log_only, low, high, scan_nodes)
    u = jax.lax.stop_gradient(low + (high - low) * jnp.linspace(0.0, 1.0, nodes))
    log_f, values = jax.vmap(log_integrand)(u)
    log_total = jax.nn.logsumexp(log_f)
    weights = jnp.exp(log_f - log_total)
    average = jax.tree.map(lambda a: jnp.tensordot(weights, a, axes=1), values)
    return log_total + jnp.log(u[1] - u[0]), average


def _narrow(log_only, low, high, nodes):
    u = low + (high - low) * jnp.linspace(0.0, 1.0, nodes)
    log_f = jax.lax.stop_gradient(log_only(jax.lax.stop_gradient(u)))
    log_f = jnp.where(jnp.isnan(log_f), -jnp.inf, log_f)
    inside = log_f > jnp.max(log_f) - _DEPTH
    step = u[1] - u[0]
    lowest, highest = jnp.min(jnp.where(inside, u, high)), jnp.max(jnp.where(inside, u, low))
    return jnp.maximum(low, lowest - step), jnp.minimum(high, highest + step)

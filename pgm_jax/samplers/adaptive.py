"""One step of a sampler by an adaptive ODE solver of diffrax (the `ode` extra)."""

import jax
import jax.numpy as jnp

from pgm_jax.core import Sampler, require
from pgm_jax.samplers.ancestral import empty


def velocity(process, estimate, t):
    """Computes `dx / dt` of the probability-flow ODE: the estimate held, the coefficients differentiated.

    `alpha'(t) x0 + beta'(t) x1 + sigma'(t) noise`; review Eq. 7, 8 and 13 for VP, EDM and PFGM++.

    Args:
        process: affine process.
        estimate: coordinates of the state at t.
        t: scalar time.

    Returns:
        Array of the shape of the image.
    """
    t = jnp.asarray(t, jnp.finfo(estimate.x0.dtype).dtype)
    return jax.jvp(lambda u: process.mix(estimate, u), (t,), (jnp.ones_like(t),))[1]


def adaptive(rtol=1e-5, atol=1e-5, max_steps=4096):
    """Makes a step that integrates the probability-flow ODE from t to s with diffrax's Tsit5.

    The grid only marks where the solution is read; the solver chooses its own steps between. Guidance
    without state is allowed; stateful guidance has no meaning on trial points and is refused.

    Args:
        rtol: relative tolerance.
        atol: absolute tolerance.
        max_steps: bound on inner steps, past which the run fails.

    Returns:
        `Sampler`; the number of evaluations depends on the data.

    Raises:
        MissingExtra: without the `ode` extra.
        ValueError: for guidance that carries state; at run time when `max_steps` is reached.
    """
    diffrax = require("diffrax", "ode")

    def step(key, process, estimate, state, t, s):
        if jax.tree.leaves(state.guidance):
            raise ValueError(
                "adaptive() evaluates at trial points, where guidance that carries state cannot follow: "
                "use heun() or ddim() with this guidance."
            )

        def field(u, x, _):
            return velocity(process, estimate(key, x, u, state.guidance)[0], u)

        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(field),
            diffrax.Tsit5(),
            t,
            s,
            None,
            state.x,
            stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol),
            max_steps=max_steps,
            throw=True,
        )
        return state._replace(x=solution.ys[-1])

    return Sampler(empty, step)

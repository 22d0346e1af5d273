"""Consistency trajectory models (CTM): jumps from any time to any earlier one."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgm_jax.core import Estimate, Network, Objective, State, lift, sample_key
from pgm_jax.networks import as_denoiser
from pgm_jax.networks.jump import told
from pgm_jax.training.objectives import distances
from pgm_jax.training.objectives.consistency import Teacher, followed
from pgm_jax.training.objectives.pairs import Pairs, at_least_float32, indices, network_keys, summary
from pgm_jax.training.objectives.residual import call, mean_square, weighted_error

# Fold of a sample's key for its times and noise, and for a teacher's solver.
_TIMES, _SOLVER = 5, 4


class Trajectory(NamedTuple):
    """The grid on which CTM jumps.

    Attributes:
        times: rising times, the lowest of which is the boundary; float64 on the host.
        most: largest number of the teacher's solver steps from t to u.
    """

    times: Any
    most: int = 4


def ctm(
    process,
    network: Network,
    parameterisation,
    trajectory: Trajectory,
    teacher: Teacher | None = None,
    *,
    rate=None,
    distance=None,
    denoising: float = 1.0,
) -> Objective:
    """Makes consistency trajectory training with its denoising term (Kim et al. 2024, Eq. 10 to 14):

        d( G_-(G(x_t, t, s), s, e),  G_-(G_-(x_u, u, s), s, e) ) + denoising |g(x_t, t, t) - x0|^2 / c_out^2,

    t > u >= s >= e on the grid; x_u is where the teacher's solver goes, one place of the grid at a time, or without
    a teacher the state of the same noise. G_- are jumps with the target's parameters. The adversarial term of the
    paper is a second objective around it, `adversarial`. Sample with `as_jump_denoiser` and
    `samplers.ctm(gamma)`.

    Args:
        process: affine process of any noise law.
        network: `Network` built for the target (`networks.jump`).
        parameterisation: `(process, t) -> Coefficients`, such as `precondition.edm(sigma_data)`.
        trajectory: `Trajectory`.
        teacher: `Teacher`, its parameters in `carry["teacher"]`, or None.
        rate: `step -> mu` of the averaged target, `curricula.constant(.999)` as published; None stops the gradient.
        distance: `(a, b) -> (batch,)`; `distances.pseudo_huber()` by default.
        denoising: weight of the denoising term.

    Returns:
        Objective with the carry of `carry_of`; its metrics also have "jump" and "denoise", the two terms.

    Raises:
        ValueError: for a grid that does not rise from above 0, or `most` outside 1 to its steps.
    """
    times = _checked(trajectory)
    distance = distances.pseudo_huber() if distance is None else distance

    def objective(params, carry, batch, key):
        index, cond = indices(batch), batch.get("cond")
        keys, x0 = network_keys(key, index), at_least_float32(batch["x0"])
        draw = lambda i: _draw(process, trajectory, sample_key(key, i), x0.shape[1:], x0.dtype)
        drawn = jax.vmap(draw)(index)
        carry = followed(carry, params, rate)
        target = jax.lax.stop_gradient(params if rate is None else carry["target"])
        grid = jnp.asarray(times, jnp.float32)
        t, u, s = (grid[place] for place in (drawn.t, drawn.u, drawn.s))
        mixed = lambda t: jax.vmap(lambda x0, n, t: process.mix(Estimate(x0, n), t))(x0, drawn.noise, t)
        x_t = mixed(t)
        solved = lambda: _solved(process, teacher, carry, grid, trajectory, drawn, x_t, cond)
        x_u = mixed(u) if teacher is None else solved()
        jump = lambda params, x, t, s: _jump(process, network, parameterisation, params, x, t, s, cond, keys)
        end = jnp.full_like(t, times[0])
        ours = jump(target, jump(params, x_t, t, s), s, end)
        aim = jump(target, jump(target, jax.lax.stop_gradient(x_u), u, s), s, end)
        jumps = distance(ours, jax.lax.stop_gradient(aim))
        at_rest = told(cond, jax.vmap(lambda t: parameterisation(process, t).c_noise)(t))
        pairs = Pairs(x_t, t, x0, drawn.noise)
        error, level = weighted_error(
            process, network, parameterisation, None, params, pairs, at_rest, key=keys
        )
        plain = mean_square(error)
        loss, metrics = summary(jumps + denoising * plain, level)
        terms = {"jump": jnp.mean(jumps), "denoise": jnp.mean(plain)}
        return loss, (carry | {"step": carry["step"] + 1}, metrics | terms)

    return objective


def _checked(trajectory):
    times = np.asarray(trajectory.times, np.float64)
    if times.ndim != 1 or len(times) < 2 or times[0] <= 0 or np.any(np.diff(times) <= 0):
        raise ValueError(f"ctm needs rising times above 0, at least two, got {times}.")
    if not 1 <= trajectory.most < len(times):
        raise ValueError(f"ctm: most must lie in 1 to {len(times) - 1}, got {trajectory.most}.")
    return times


class _Drawn(NamedTuple):
    t: Any
    u: Any
    s: Any
    noise: Any
    key: Any


def _draw(process, trajectory, key, shape, dtype):
    """Places t > u >= s on the grid, u at most `most` below t, and the noise."""
    t_key, u_key, s_key, noise_key, solver = jax.random.split(jax.random.fold_in(key, _TIMES), 5)
    t = jax.random.randint(t_key, (), 1, len(trajectory.times))
    u = t - jax.random.randint(u_key, (), 1, jnp.minimum(trajectory.most, t) + 1)
    s = jax.random.randint(s_key, (), 0, u + 1)
    return _Drawn(t, u, s, process.law.sample(noise_key, shape, dtype), solver)


def _solved(process, teacher, carry, grid, trajectory, drawn, x_t, cond):
    """The teacher's solver from t to u, one place of the grid at a time; those who have arrived wait."""
    denoise = as_denoiser(teacher.network, carry["teacher"], process, teacher.parameterisation)
    estimator = lift(process, denoise)

    def one(key, x, t, u, cond):
        estimate = lambda key, x, t, state: estimator.apply(key, x, t, state, cond=cond)

        def step(x, number):
            here, below = grid[t - number], grid[jnp.maximum(t - number - 1, 0)]
            state = State(x, estimator.init(x), teacher.solver.init(x))
            moved = teacher.solver.step(
                jax.random.fold_in(key, number), process, estimate, state, here, below
            ).x
            return jnp.where(t - number > u, moved, x), None

        return jax.lax.scan(step, x, jnp.arange(trajectory.most))[0]

    return jax.vmap(one)(drawn.key, x_t, drawn.t, drawn.u, cond)


def _jump(process, network, parameterisation, params, x, t, s, cond, keys):
    """`G(x_t, t, s)` of a batch; the state itself where s = t."""
    c = jax.vmap(lambda t: parameterisation(process, t))(t)
    target = jax.vmap(lambda s: parameterisation(process, s).c_noise)(s)
    each = jax.vmap(jnp.multiply)
    output = call(network, params, each(c.c_in, x), c.c_noise, told(cond, target), keys)
    x0 = each(c.c_skip, x) + each(c.c_out, output)
    moved = jax.vmap(lambda x, t, x0, s: process.mix(process.estimate(x, t, x0), s))(x, t, x0, s)
    return jax.vmap(jnp.where)(s < t, moved, x)
